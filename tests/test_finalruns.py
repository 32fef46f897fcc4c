"""Final runs: what windows at one level say together, of drawn arrivals and of a recording's."""

from dataclasses import replace

import pytest

from tests.builders import a_score
from tuner.finalists import Finalist, value_of
from tuner.finalruns import FinalistRun, levels_of, mean_attainment, mean_goodput

CAME = (0.5, 1.5, 1.0)
"""Of the load that was asked for, by seed."""


def windows(rate_rps: float, attainment: tuple[float, float, float], *, is_recorded: bool) -> list[FinalistRun]:
    return [
        FinalistRun(
            3,
            seed,
            rate_rps,
            replace(
                a_score(rate_rps, share, goodput_rps=share * came * rate_rps, request_rps=came * rate_rps),
                counted=round(1000 * came),
                is_recorded=is_recorded,
            ),
        )
        for seed, (came, share) in enumerate(zip(CAME, attainment, strict=True))
    ]


def test_drawn_windows_count_alike_however_many_requests_happened_to_come() -> None:
    own = windows(10.0, (1.0, 0.9, 0.95), is_recorded=False)
    assert mean_attainment(own) == {10.0: pytest.approx(0.95)}
    assert mean_goodput(own) == {10.0: pytest.approx(9.5)}
    assert [level.offered_rps for level in levels_of(own)] == [10.0]


def test_of_a_recording_requests_count_alike_and_goodput_is_what_came() -> None:
    """Busy windows hold more requests, and more of those that miss."""
    own = windows(10.0, (1.0, 0.8, 1.0), is_recorded=True)
    assert mean_attainment(own) == {10.0: pytest.approx((500 + 1200 + 1000) / 3000)}
    assert mean_goodput(own) == {10.0: pytest.approx((5.0 + 12.0 + 10.0) / 3)}


def test_a_recordings_load_is_in_proportion_to_its_level() -> None:
    """What came at levels 5 % apart says nothing of how the load grows with them."""
    calm, busy = windows(10.0, (1.0, 1.0, 1.0), is_recorded=True), windows(10.5, (1.0, 1.0, 1.0), is_recorded=True)
    busy = [replace(run, score=replace(run.score, request_rps=1.2 * run.score.request_rps)) for run in busy]
    assert [level.offered_rps for level in levels_of(calm + busy)] == pytest.approx([11.0, 11.55])


def test_a_recording_at_one_speed_is_worth_what_was_good_in_its_windows() -> None:
    """All requests are good, and yet nobody served more than came."""
    runs = windows(16.0, (1.0, 1.0, 1.0), is_recorded=True)
    found = value_of(Finalist(3, 16.0, 2, steps="none", usual_variance=0.0), runs, 0.99)
    assert found.mean == pytest.approx(8.0), "the arithmetic mean of 4, 12 and 8"
    assert found.per_seed[1] / found.per_seed[0] == pytest.approx(3.0)
    low, high = found.ci95 or (0.0, 0.0)
    assert low < 4 and high > 12, "so different were the windows"


def test_a_searched_recording_is_worth_no_more_than_came() -> None:
    runs = windows(10.0, (1.0, 1.0, 1.0), is_recorded=True) + windows(10.5, (0.95, 0.9, 0.95), is_recorded=True)
    found = value_of(Finalist(3, 10.0, 1, usual_variance=0.0), runs, 0.99)
    assert 9.9 < found.mean < 10.3
    few = [replace(run, score=replace(run.score, request_rps=0.5 * run.score.request_rps)) for run in runs]
    assert value_of(Finalist(3, 10.0, 1, usual_variance=0.0), few, 0.99).mean == pytest.approx(found.mean / 2)


def test_windows_in_which_nobody_came_hold_nothing() -> None:
    own = [
        replace(run, score=replace(run.score, counted=0)) for run in windows(10.0, (0.0, 0.0, 0.0), is_recorded=True)
    ]
    assert mean_attainment(own) == {10.0: 0.0}
