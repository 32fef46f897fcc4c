"""What the finished probes of a bench say of its server: one number, and no limit that nothing was seen of."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launchers.remote import Described
from tests.builders import a_score, a_workload, an_slo
from tuner.benched import Benched, Cut, concluded
from tuner.benchfolder import as_data
from tuner.benchorder import Bench
from tuner.config.workload import Arrivals
from tuner.finished import Finished
from tuner.latencies import Percentiles
from tuner.mishaps import Mishap
from tuner.score import Score
from tuner.target import ClosedLoop, OpenLoop
from tuner.terminal.benched import benched_text
from tuner.wording.numbers import number

SERVER = Described("http://127.0.0.1:8000", "m", "vllm", 32000, 4096)
SEARCH = Bench(a_workload(), an_slo(attainment=0.9))
USERS = Bench(a_workload(arrivals=Arrivals(kind="closed")), an_slo(attainment=0.9))


def probes(*loads: tuple[float, float], counted: int = 1000) -> list[Score]:
    """Of so many requests each, by load and attainment."""
    return [a_score(rate, share, counted=counted) for rate, share in loads]


def users(*loads: tuple[int, float]) -> list[Score]:
    return [replace(one, load=ClosedLoop(round(one.offered_rps))) for one in probes(*loads)]


def said(scores: Sequence[Score], order: Bench = SEARCH) -> tuple[Benched, str, dict[str, Any]]:
    found = concluded(order, "vllm", [Finished("search", one) for one in scores])
    text = benched_text(found, order)
    assert max(map(len, text.splitlines())) <= 80
    return found, text, as_data(found, order, SERVER)


@pytest.mark.parametrize(
    ("scores", "order", "words"),
    [
        pytest.param(probes((4.11, 1.0), (16.4, 1.0)), SEARCH, "16.4 req/s", id="a search that was stopped early"),
        pytest.param(users((1, 1.0), (2, 1.0)), USERS, "2 users", id="of users"),
        pytest.param(
            probes((8.0, 0.7), (16.4, 1.0)), SEARCH, "16.4 req/s", id="it missed at a lower load, by bad luck"
        ),
    ],
)
def test_where_no_higher_load_missed_the_slo_there_is_no_load_that_it_holds_up_to(
    scores: Sequence[Score], order: Bench, words: str
) -> None:
    found, text, told = said(scores, order)
    assert f"holds at least      {words}; no higher load that misses it was offered" in text
    assert "holds up to" not in text
    assert (found.edge, told["holds_up_to"], told["fitted_up_to"]) == (None, None, None)
    assert told["meets_slo"]


def test_a_load_that_missed_the_slo_does_not_stand_for_one_that_meets_it() -> None:
    """The curve's best level lies between both, nearer to the one that misses."""
    scores = probes((8.77, 1.0), (35.1, 0.971), (61.3, 1.0), (86.9, 0.788), (106, 0.754), (117, 0.429), (129, 0.07))
    found, text, told = said(scores)
    assert found.outcome.best == scores[3]
    assert found.best == scores[2]
    assert told["best"]["load"] == {"rate_rps": 61.3} and told["holds_up_to"] == pytest.approx(80, rel=0.1)
    assert "goodput             61.3 req/s" in text and ", fitted through all probes" in text


def test_a_load_that_held_is_no_higher_than_what_it_holds_up_to() -> None:
    scores = probes((4.1, 1.0), (16.4, 1.0), (63.0, 0.89), (65.6, 0.902), (67.0, 0.7), (131.0, 0.2))
    found, text, told = said(scores)
    assert found.best == scores[3] and found.fitted is not None and found.fitted < 65.6
    assert told["holds_up_to"] == 65.6 and told["fitted_up_to"] == found.fitted
    assert f"holds up to         65.6 req/s, as seen; fitted through all probes: {number(found.fitted)}" in text


def test_a_lucky_window_far_above_the_edge_is_not_what_the_server_is_worth() -> None:
    lucky = a_score(200.0, 0.91, counted=100)
    scores = [*probes((50.0, 1.0), (80.0, 0.95), (100.0, 0.3), (110.0, 0.2)), lucky]
    found, _, _ = said(scores)
    assert found.best == scores[1]


def test_where_only_a_lucky_window_met_the_slo_the_fit_says_that_no_load_does() -> None:
    slo = SEARCH.slo.model_copy(update={"min_rate_rps_per_gpu": 5.0})
    scores = probes((5.0, 0.905), (5.2, 0.7), (6.0, 0.62), (10.0, 0.2))
    found, text, told = said(scores, replace(SEARCH, slo=slo))
    assert not found.outcome.holds_slo and told["best"] is None
    assert "no load worth having meets the SLO, by all probes" in text
    assert "the closest         5.00 req/s, whose window met it" in text


def test_where_no_load_met_it_the_one_that_missed_it_least_is_shown() -> None:
    _, text, told = said(users((1, 0.6), (2, 0.3)), USERS)
    assert "—, no load met the SLO; the closest to it: 1 user" in text
    assert not told["meets_slo"] and told["best"] is None


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(1, 400), st.sampled_from([0.0, 0.5, 0.88, 0.9, 0.95, 1.0]), min_size=1, max_size=8)
)
def test_goodput_its_load_and_what_holds_never_contradict_each_other(shares: dict[int, float]) -> None:
    _, text, told = said(probes(*((float(rate), share) for rate, share in shares.items())))
    best = told["best"]
    if best is None:
        assert told["holds_up_to"] is None and "holds " not in text
        return
    assert best["attainment"] >= 0.9
    assert best["goodput_rps_per_gpu"] == pytest.approx(best["load"]["rate_rps"] * best["attainment"])
    assert told["holds_up_to"] is None or told["holds_up_to"] >= best["load"]["rate_rps"]
    assert f"goodput             {number(best['goodput_rps_per_gpu'])} req/s" in text
    same = [one for one in told["probes"] if one["load"] == best["load"]]
    assert [one["goodput_rps_per_gpu"] for one in same] == [best["goodput_rps_per_gpu"]]


@pytest.mark.parametrize(
    ("counted", "attainment", "words"),
    [
        pytest.param(1000, 1.0, "100 % of 1,000, one window  ✓ need 99 %", id="as many as decide"),
        pytest.param(820, 1.0, "100 % of 820, one window  ✓ need 99 %", id="about as many: arrivals are random"),
        pytest.param(
            5,
            1.0,
            "100 % of 5, one window  ? need 99 %\n                      too few to tell: 1,000 would",
            id="too few",
        ),
        pytest.param(
            0,
            0.0,
            "0.0 % of 0, one window  ? need 99 %\n                      too few to tell: 1,000 would",
            id="none",
        ),
        pytest.param(5, 0.6, "60.0 % of 5, one window  ✗ need 99 %", id="few, and it missed"),
    ],
)
def test_no_mark_of_success_stands_on_fewer_requests_than_decide(counted: int, attainment: float, words: str) -> None:
    order = Bench(a_workload(), an_slo(), load=OpenLoop(2.0), requests=counted)
    _, text, told = said([a_score(2.0, attainment, counted=counted)], order)
    assert f"requests in SLO     {words}\n" in text
    assert told["requests_to_tell"] == 1000 and told["meets_slo"] == (attainment == 1.0)


def test_one_load_that_was_not_measured_meets_nothing_and_misses_nothing() -> None:
    order = replace(SEARCH, load=OpenLoop(2.0))
    found = replace(concluded(order, "vllm", []), cut=Cut("user", "Ctrl-C", OpenLoop(2.0)))
    told = as_data(found, order, SERVER)
    assert told["meets_slo"] is None and told["interrupted"]
    assert told["cut_short"] == {"by": "user", "why": "Ctrl-C", "load": {"rate_rps": 2.0}}
    assert benched_text(found, order).startswith("  stopped             at 2.00 req/s; the probe had not ended\n")


def test_beside_the_limit_on_gaps_stands_what_it_judges() -> None:
    order = Bench(a_workload(), an_slo(), load=OpenLoop(2.0))
    own = Percentiles(0.031, 0.062, 0.093)
    found = concluded(order, "vllm", [Finished("confirm", a_score(2.0, 0.7), own)])
    (judged,) = [line for line in benched_text(found, order).splitlines() if "limit 50 ms" in line]
    assert judged.split() == [
        "P99",
        "ITL",
        "of",
        "each",
        "31.0",
        "ms",
        "62.0",
        "ms",
        "93.0",
        "ms",
        "limit",
        "50",
        "ms",
    ]
    assert as_data(found, order, SERVER)["own_itl_s"] == {"p50": 0.031, "p90": 0.062, "p99": 0.093}


def test_what_to_watch_stands_in_the_summary_and_in_the_json() -> None:
    caveat = Mishap(
        "waited", "the load generator waited for a core 14% of the time: " + "some of it may be its own " * 4
    )
    scored = [Finished("search", one, caveats=(caveat,)) for one in probes((4.0, 1.0), (8.0, 0.2))]
    found = concluded(SEARCH, "vllm", scored)
    text = benched_text(found, SEARCH)
    assert "\n  watch               in 2 of 2 probes: the load generator waited for a core 14%" in text
    assert max(map(len, text.splitlines())) <= 80
    assert as_data(found, SEARCH, SERVER)["watch"] == [f"in 2 of 2 probes: {caveat.text}"]


def test_figures_are_for_each_gpu_in_the_table_too() -> None:
    order = replace(SEARCH, gpus=4)
    _, text, told = said(probes((8.0, 1.0), (16.0, 0.2)), order)
    assert "goodput             2.00 req/s per GPU, 4 of them, that meet the SLO" in text
    assert "goodput/GPU" in text and "8.00 req/s        100 %  2.00 req/s" in text
    assert told["best"]["goodput_rps_per_gpu"] == 2.0 and told["best"]["load"] == {"rate_rps": 8.0}


@pytest.mark.parametrize(
    ("came", "words"),
    [
        pytest.param(0.82, "3.00 req/s; 0.820 req/s came in the window", id="far fewer"),
        pytest.param(3.82, "3.00 req/s; 3.82 req/s came in the window", id="far more"),
        pytest.param(2.9, "3.00 req/s", id="about as many"),
    ],
)
def test_a_window_that_held_other_requests_than_its_load_promises_says_so(came: float, words: str) -> None:
    order = Bench(a_workload(), an_slo(), load=OpenLoop(3.0))
    _, text, told = said([a_score(3.0, 1.0, goodput_rps=came)], order)
    assert f"at a load of        {words}\n" in text
    assert told["came_rps"] == came and told["goodput_rps_per_gpu"] == min(came, 3.0)
