"""Score: the definitions of docs and METRICS, one sentence each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.logs import a_log
from tuner.config.slo import Limits
from tuner.engineview import EngineView
from tuner.requestlog import ClientHealth, RequestLog, Status
from tuner.score import Health, has_long_gaps, latencies, own_itl_s, score
from tuner.target import ClosedLoop, OpenLoop

OPEN = OpenLoop(1.0)


@pytest.mark.parametrize(
    ("limits", "is_good"),
    [
        pytest.param(Limits(ttft_s=0.5), True, id="first token exactly on its limit"),
        pytest.param(Limits(ttft_s=0.49), False, id="first token late"),
        pytest.param(Limits(ttft_s=0.3, ttft_s_per_prompt_token=0.002), True, id="a longer prompt may take longer"),
        pytest.param(Limits(tpot_s=0.25), True, id="mean gap on its limit"),
        pytest.param(Limits(tpot_s=0.24), False, id="mean gap too long"),
        pytest.param(Limits(itl_s=0.4), True, id="longest gap on its limit"),
        pytest.param(Limits(itl_s=0.39), False, id="one gap too long"),
        pytest.param(Limits(e2e_s=1.0), True, id="answer in time"),
        pytest.param(Limits(e2e_s=0.99), False, id="answer late"),
        pytest.param(Limits(ttft_s=0.5, e2e_s=0.99), False, id="all limits must hold together"),
        pytest.param(Limits(), True, id="no limit"),
    ],
)
def test_a_request_is_good_when_it_meets_every_limit(limits: Limits, is_good: bool) -> None:
    log = a_log([(0.0, (0.5, 0.6, 1.0))])
    assert score(log, OPEN, limits).attainment == float(is_good)


@pytest.mark.parametrize(
    "status", [Status.FAILED, Status.TIMED_OUT, Status.TRUNCATED, Status.EMPTY, Status.UNFOLLOWED]
)
def test_a_request_that_did_not_end_well_is_bad_however_fast(status: Status) -> None:
    log = a_log([(0.0, (0.1,)), (0.0, (0.1,))], status=np.array([Status.OK, status]))
    found = score(log, OPEN, Limits(ttft_s=1.0))
    assert (found.counted, found.good, found.missed["failed"]) == (2, 1, 1)


def test_requests_outside_the_window_are_not_counted() -> None:
    log = a_log([(0.0, (0.1,)), (1.0, (9.0,))], counted=np.array([True, False]))
    assert score(log, OPEN, Limits(ttft_s=0.5)).attainment == 1.0


def test_a_probe_stopped_early_is_judged_by_the_requests_that_had_ended() -> None:
    log = a_log([(0.0, (0.1,)), (1.0, ())], status=np.array([Status.OK, Status.UNFOLLOWED]), stopped="hopeless")
    assert (score(log, OPEN, Limits()).counted, score(log, OPEN, Limits()).attainment) == (1, 1.0)


def test_the_clock_starts_when_a_request_was_due_not_when_it_was_sent() -> None:
    late = a_log([(0.0, (0.5, 0.6))], sent_s=np.array([0.4]))
    assert latencies(late, OPEN).ttft_s[0] == 0.5
    assert latencies(late, ClosedLoop(1)).ttft_s[0] == pytest.approx(0.1)


def test_a_one_token_answer_has_no_time_per_output_token_and_cannot_violate_it() -> None:
    found = score(a_log([(0.0, (0.5,))]), OPEN, Limits(tpot_s=1e-6, itl_s=1e-6))
    assert (found.attainment, found.tpot_s, found.itl_s) == (1.0, None, None)


def test_time_per_output_token_counts_tokens_by_usage_not_by_chunks() -> None:
    two_tokens_a_chunk = a_log([(0.0, (1.0, 2.0, 3.0))], output_tokens=np.array([5]))
    assert latencies(two_tokens_a_chunk, OPEN).tpot_s[0] == 0.5


def test_below_a_hundred_gaps_the_limit_is_on_the_longest() -> None:
    gaps = [0.01] * 98 + [0.5]
    assert own_itl_s(a_log([(0.0, np.cumsum([0.1, *gaps]))]))[0] == pytest.approx(0.5)


def test_from_a_hundred_gaps_on_the_limit_is_on_the_nearest_rank_p99() -> None:
    gaps = [0.01] * 98 + [0.2, 0.5]
    assert own_itl_s(a_log([(0.0, np.cumsum([0.1, *gaps]))]))[0] == pytest.approx(0.2)


def test_goodput_is_good_requests_per_second_of_the_window() -> None:
    log = a_log([(0.0, (0.1,)), (1.0, (1.1,)), (2.0, (9.0,))])
    assert score(log, OPEN, Limits(ttft_s=0.5)).goodput_rps == 0.2


def test_throughput_counts_the_tokens_emitted_inside_the_window() -> None:
    log = a_log([(0.0, (1.0, 2.0)), (9.0, (9.5, 11.0, 12.0))], warmup_s=1.5, window_s=8.5)
    assert score(log, OPEN, Limits()).throughput_tok_s == pytest.approx(2 / 8.5)


CLIENT = ClientHealth(send_lag_p99_s=0.001, run_queue_wait_s=0.2, busy_frac=0.4, workers=2, cpu_frac=0.3)


def test_a_measured_probe_says_how_well_client_and_server_kept_their_word() -> None:
    log = a_log(
        [(0.0, (0.5, 0.6)), (1.0, (1.5,)), (2.0, (2.5, 2.6))],
        wanted_tokens=np.array([4, 4, 4]),
        output_tokens=np.array([4, 1, 2]),
        prompt_tokens=np.array([100, 300, 50]),
        status=np.array([Status.OK, Status.TRUNCATED, Status.UNFOLLOWED]),
        reusable_tokens=np.array([0, 200, 50]),
        cached_tokens=np.array([0, 160, 0]),
        client=CLIENT,
    )
    health = Health(CLIENT, wanted_tokens=8, received_tokens=5, chunks=3, reusable_frac=0.5, cached_frac=0.4)
    assert score(log, OPEN, Limits()).health == health


def test_a_server_that_does_not_say_what_it_had_cached_has_no_share_of_it() -> None:
    health = score(a_log([(0.0, (0.5,))], client=CLIENT), OPEN, Limits()).health
    assert health
    assert (health.reusable_frac, health.cached_frac) == (None, None)


def _a_log_of_20_000_prompt_tokens(**overrides: object) -> RequestLog:
    """100 requests that share nothing."""
    alike = {"prompt_tokens": np.full(100, 200), "reusable_tokens": np.zeros(100, dtype=np.int64), "client": CLIENT}
    return a_log([(0.0, (0.5, 0.6))] * 100, **(alike | overrides))


@pytest.mark.parametrize(
    ("overrides", "leftover_frac"),
    [
        pytest.param({"cached_tokens": np.full(100, 160)}, 0.8, id="another probe's prompts"),
        pytest.param(
            {"cached_tokens": np.full(100, 160), "reusable_tokens": np.full(100, 160)}, 0.0, id="as designed"
        ),
        pytest.param({"cached_tokens": np.full(100, 32)}, 0.0, id="the chat's template"),
        pytest.param({"cached_tokens": np.repeat([200, 0], [4, 96])}, 0.0, id="too few to matter"),
        pytest.param({"cached_tokens": np.repeat([200, 0], [30, 70])}, 0.3, id="a part of them"),
        pytest.param({"engine": EngineView(cache_hit_frac=0.9)}, 0.26, id="only the engine's counters say so"),
        pytest.param({"engine": EngineView(cache_hit_frac=0.3)}, 0.0, id="counters that a template explains"),
        pytest.param({"engine": EngineView()}, 0.0, id="nothing is known"),
    ],
)
def test_hits_that_the_workload_did_not_design_are_another_probes_leftovers(
    overrides: dict[str, object], leftover_frac: float
) -> None:
    health = score(_a_log_of_20_000_prompt_tokens(**overrides), OPEN, Limits()).health
    assert health and health.leftover_frac == pytest.approx(leftover_frac)


def test_what_the_engine_said_stands_beside_the_score() -> None:
    view = EngineView(scrapes=3, running=4.0)
    assert score(a_log([(0.0, (0.5,))], engine=view), OPEN, Limits()).engine is view


def test_in_virtual_time_there_is_no_client_whose_health_could_fail() -> None:
    assert score(a_log([(0.0, (0.5,))]), OPEN, Limits()).health is None


def test_an_empty_log_scores_nothing() -> None:
    found = score(a_log([]), OPEN, Limits(ttft_s=1.0))
    assert (found.counted, found.attainment, found.ttft_s) == (0, 0.0, None)


@given(st.lists(st.lists(st.floats(0.001, 5.0), min_size=1, max_size=130), min_size=1, max_size=8))
def test_own_p99_gap_is_the_nearest_rank_of_the_sorted_gaps(gaps: list[list[float]]) -> None:
    log = a_log([(0.0, np.cumsum(own)) for own in gaps])
    for row, own in enumerate(gaps):
        between = np.sort(np.diff(np.cumsum(own)))
        if len(between):
            assert own_itl_s(log)[row] == pytest.approx(between[-(-99 * len(between) // 100) - 1])
        else:
            assert np.isnan(own_itl_s(log)[row])


@given(st.lists(st.lists(st.floats(0.001, 5.0), max_size=230), min_size=1, max_size=8), st.floats(0.001, 5.0))
def test_a_limit_on_the_p99_gap_is_missed_by_whoever_has_too_many_longer_gaps(gaps, limit_s) -> None:
    log = a_log([(0.0, np.cumsum(own)) for own in gaps])
    assert has_long_gaps(log, limit_s).tolist() == (own_itl_s(log) > limit_s).tolist()


@given(
    st.lists(st.tuples(st.floats(0, 5), st.lists(st.floats(0.01, 2.0), min_size=1, max_size=5)), max_size=20),
    st.floats(0.01, 3.0),
    st.floats(1.0, 3.0),
)
def test_a_looser_limit_never_makes_fewer_requests_good(
    requests: list[tuple[float, list[float]]], limit: float, factor: float
) -> None:
    log = a_log([(due, due + np.cumsum(gaps)) for due, gaps in requests])
    strict, loose = Limits(ttft_s=limit, e2e_s=limit), Limits(ttft_s=limit * factor, e2e_s=limit * factor)
    assert score(log, OPEN, strict).good <= score(log, OPEN, loose).good
    assert score(log, OPEN, Limits(ttft_s=limit, e2e_s=limit)).good <= score(log, OPEN, Limits(ttft_s=limit)).good
