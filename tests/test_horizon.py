"""Horizon: how long a window is."""

import pytest

from tests.builders import an_slo
from tuner.config.slo import Limits
from tuner.horizon import needed_requests, search_window_s, whole_window_s
from tuner.target import ClosedLoop, Load, OpenLoop

SLO = an_slo(attainment=0.99, limits=Limits(ttft_s=0.2), warmup_s=15.0, window_s=120.0)
"""1000 requests decide."""


@pytest.mark.parametrize(
    ("load", "rate_rps", "counted", "window_s"),
    [
        pytest.param(OpenLoop(50.0), 50.0, 1000, 120.0, id="the SLO's own"),
        pytest.param(OpenLoop(2.0), 2.0, 1000, 500.0, id="as long as the requests take"),
        pytest.param(OpenLoop(0.1), 0.1, 1000, 10_000.0, id="however long that is"),
        pytest.param(ClosedLoop(2), 2.0, 1000, 500.0, id="users"),
        pytest.param(ClosedLoop(1), 0.1, 1000, 600.0, id="users never longer than five of the SLO's"),
    ],
)
def test_a_finalists_window_holds_the_requests_that_it_needs(
    load: Load, rate_rps: float, counted: int, window_s: float
) -> None:
    assert whole_window_s(SLO, load, rate_rps, counted) == window_s


def test_of_users_all_seeds_together_count_what_decides() -> None:
    assert needed_requests(SLO, OpenLoop(1.0)) == 1000
    assert needed_requests(SLO, ClosedLoop(4)) == 200
    assert needed_requests(an_slo(attainment=0.9), ClosedLoop(4)) == 100


@pytest.mark.parametrize("load", [OpenLoop(3.0), ClosedLoop(3)])
def test_a_search_never_looks_longer_than_a_finalist_would(load: Load) -> None:
    longest = whole_window_s(SLO, load, 3.0, needed_requests(SLO, load))
    assert search_window_s(SLO, load, 3.0, 100_000, answer_s=1e6) == longest
    assert search_window_s(SLO, load, 3.0, 150, answer_s=0.0) <= longest
