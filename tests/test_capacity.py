"""Capacity: the highest rate that a server kept up with, who says that its queue stayed short, and how sure it is."""

from typing import Any

import pytest

from tests.builders import a_score, percentiles
from tuner.capacity import Capacity, capacity
from tuner.config.slo import Limits
from tuner.engineview import EngineView
from tuner.score import Score
from tuner.target import ClosedLoop

LIMITS = Limits(ttft_s=0.2, itl_s=0.05)
SLOW, LATE = percentiles(2.1, 3.0, 4.0), percentiles(0.01, 0.02, 0.051)


def waiting(queue_p50_s: float | None) -> EngineView:
    return EngineView(scrapes=9, queue_p50_s=queue_p50_s)


@pytest.mark.parametrize(
    ("probes", "expected"),
    [
        pytest.param([a_score(3.0), a_score(9.0), a_score(5.0)], (9.0, "ttft"), id="the highest"),
        pytest.param([a_score(3.0, 0.2)], (3.0, "ttft"), id="whatever the attainment"),
        pytest.param([a_score(3.0), a_score(9.0, ttft_s=SLOW)], (3.0, "ttft"), id="TTFT stands for the queue"),
        pytest.param([a_score(9.0, ttft_s=SLOW, engine=waiting(0.1))], (9.0, "queue_time"), id="the engine knows it"),
        pytest.param([a_score(9.0, engine=waiting(2.1))], (None, None), id="the engine's queue is long"),
        pytest.param([a_score(9.0, engine=waiting(None))], (9.0, "ttft"), id="an engine that does not say"),
        pytest.param([a_score(9.0, itl_s=LATE)], (None, None), id="gaps over their limit"),
        pytest.param([a_score(9.0, itl_s=None)], (None, None), id="no gap seen"),
        pytest.param([a_score(9.0, ttft_s=None)], (None, None), id="no token seen"),
        pytest.param([a_score(9.0, missed={"failed": 20})], (None, None), id="a server that turns requests away"),
        pytest.param([a_score(9.0, stopped="hopeless")], (None, None), id="stopped early"),
        pytest.param([a_score(load=ClosedLoop(4))], (None, None), id="a closed loop has no rate to keep up with"),
        pytest.param([], (None, None), id="no probe"),
    ],
)
def test_capacity_is_the_highest_rate_offered_without_a_growing_queue_or_long_gaps(
    probes: list[Score], expected: Any
) -> None:
    found = capacity(probes, LIMITS)
    assert (found and (found.rate_rps, found.by)) == (expected if expected[0] else None)


@pytest.mark.parametrize(
    ("above", "is_least"),
    [
        pytest.param([], True, id="nothing more was offered"),
        pytest.param([a_score(9.8, ttft_s=SLOW)], False, id="it did not keep up with hardly more"),
        pytest.param([a_score(9.0, itl_s=LATE)], False, id="nor always with that"),
        pytest.param([a_score(9.8, missed={"failed": 20})], False, id="it turned away some of hardly more"),
        pytest.param([a_score(12.0, ttft_s=SLOW)], True, id="it did not keep up with far more"),
        pytest.param([a_score(9.8, 0.3, stopped="hopeless")], True, id="stopped for its SLO, with a short queue"),
        pytest.param([a_score(9.8, ttft_s=SLOW, stopped="hopeless")], False, id="stopped, with a long one"),
        pytest.param([a_score(9.8, itl_s=None, ttft_s=None)], True, id="nobody saw how that went"),
    ],
)
def test_it_is_a_lower_bound_but_where_the_server_fell_behind_just_above(above: list[Score], is_least: bool) -> None:
    """A search offers a server that misses its SLO early low rates only."""
    found = capacity([a_score(3.0), a_score(9.0), *above], LIMITS)
    assert found == Capacity(9.0, "ttft", is_least)


def test_without_a_limit_on_gaps_the_queue_alone_decides() -> None:
    assert capacity([a_score(9.0, itl_s=LATE)], Limits(ttft_s=0.2)) == Capacity(9.0, "ttft", is_least=True)
