"""Score: the definitions of docs and METRICS, one sentence each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.logs import a_log
from tuner.config.slo import Limits
from tuner.engineview import EngineView
from tuner.health import health_of
from tuner.requestlog import ClientHealth, Status
from tuner.score import score
from tuner.target import ClosedLoop, Load, OpenLoop

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


@pytest.mark.parametrize(
    "load", [ClosedLoop(4), ClosedLoop(1000), OpenLoop(10.0)], ids=["users", "all at once", "rate"]
)
def test_what_failed_is_missing_once_in_goodput_however_load_is_offered(load: Load) -> None:
    """100 requests in 10 s, every fifth of which times out: 8 good ones a second."""
    status = np.where(np.arange(100) % 5, int(Status.OK), int(Status.TIMED_OUT))
    found = score(
        a_log([(due / 10, (due / 10 + 0.1,)) for due in range(100)], status=status), load, Limits(ttft_s=1.0)
    )
    assert (found.goodput_rps, found.request_rps, found.offered_rps) == (8.0, 10.0, 10.0)
    assert found.attainment * found.offered_rps == found.goodput_rps


def test_a_one_token_answer_has_no_time_per_output_token_and_cannot_violate_it() -> None:
    found = score(a_log([(0.0, (0.5,))]), OPEN, Limits(tpot_s=1e-6, itl_s=1e-6))
    assert (found.attainment, found.tpot_s, found.itl_s) == (1.0, None, None)


def test_goodput_is_good_requests_per_second_of_the_window() -> None:
    log = a_log([(0.0, (0.1,)), (1.0, (1.1,)), (2.0, (9.0,))])
    assert score(log, OPEN, Limits(ttft_s=0.5)).goodput_rps == 0.2


def test_throughput_counts_the_tokens_emitted_inside_the_window() -> None:
    log = a_log([(0.0, (1.0, 2.0)), (9.0, (9.5, 11.0, 12.0))], warmup_s=1.5, window_s=8.5)
    assert score(log, OPEN, Limits()).throughput_tok_s == pytest.approx(2 / 8.5)


def test_what_the_engine_said_and_the_probes_health_stand_beside_the_score() -> None:
    client = ClientHealth(send_lag_p99_s=0.001, run_queue_wait_s=0.2, busy_frac=0.4, workers=2, cpu_frac=0.3)
    log = a_log([(0.0, (0.5,))], engine=EngineView(scrapes=3, running=4.0), client=client)
    found = score(log, OPEN, Limits())
    assert found.engine is log.engine
    assert found.health == health_of(log)


def test_an_empty_log_scores_nothing() -> None:
    found = score(a_log([]), OPEN, Limits(ttft_s=1.0))
    assert (found.counted, found.attainment, found.ttft_s) == (0, 0.0, None)


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
