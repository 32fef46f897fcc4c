"""Finalists: how the winner and the default are measured again."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from tests.builders import a_score
from tuner.config.workload import Workload
from tuner.finalists import MAX_LEVELS, Cell, Finalist, next_cells, usual_variance, value_of
from tuner.finalruns import FinalistRun
from tuner.finalvalue import interval
from tuner.score import Score
from tuner.target import ClosedLoop

SEEDS = 5


def run(cell: Cell, edge: float, spread: float = 0.0) -> FinalistRun:
    """A window of a server whose attainment falls linearly, 0.99 at `edge`; seed k is better by (k − 2)·spread."""
    attainment = min(0.99 - 0.2 * np.log(cell.level / edge) + (cell.replicate - 2) * spread, 1.0)
    score = a_score(cell.level, attainment=attainment, goodput_rps=cell.level * attainment)
    return FinalistRun(cell.trial, cell.replicate, cell.level, score)


def power_law(cell: Cell, edge: float, power: float) -> FinalistRun:
    """A window of a server of which 1 % of the requests are bad at `edge`, their odds growing as a power of load."""
    attainment = 1 / (1 + 0.01 / 0.99 * (cell.level / edge) ** power)
    score = a_score(cell.level, attainment=attainment, counted=5000)
    return FinalistRun(cell.trial, cell.replicate, cell.level, replace(score, attainment=attainment))


def measured(finalist: Finalist, edge: float, spread: float = 0.0) -> list[FinalistRun]:
    runs: list[FinalistRun] = []
    while cells := next_cells(finalist, runs, SEEDS, 0.99):
        runs += [run(cell, edge, spread) for cell in cells]
    return runs


def test_every_level_is_measured_with_the_same_seeds() -> None:
    cells = next_cells(Finalist(3, 10.0, 1), [], SEEDS, 0.99)
    assert {(cell.replicate, cell.level) for cell in cells} == {
        (k, level) for k in range(SEEDS) for level in (10, 10.5)
    }


@pytest.mark.parametrize("edge", [6.0, 7.5, 9.0, 10.2, 11.4, 13.0])
def test_levels_are_added_until_one_holds_and_the_next_fails(edge: float) -> None:
    finalist = Finalist(3, 10.0, 2)
    found = value_of(finalist, measured(finalist, edge), 0.99)
    assert found.holds
    assert found.mean == pytest.approx(0.99 * edge / 2, rel=0.02)
    low, high = found.between
    assert low <= found.level <= high
    assert found.level == pytest.approx(edge, rel=0.02)


@pytest.mark.parametrize("edge", [10.05, 10.2, 10.4])
def test_the_edge_of_a_cliff_is_not_put_too_low(edge: float) -> None:
    """Between levels 5 % apart attainment falls from nearly 1 to 0.9: not on a straight line."""
    finalist, runs = Finalist(3, 10.0, 1), []
    while cells := next_cells(finalist, runs, SEEDS, 0.99):
        runs += [power_law(cell, edge, power=50.0) for cell in cells]
    assert value_of(finalist, runs, 0.99).level == pytest.approx(edge, rel=0.002)


@pytest.mark.parametrize("power", [2.0, 8.0, 60.0])
@pytest.mark.parametrize(("above", "most"), [(1.0, 3), (1.3, 5), (2.5, 7)])
def test_an_edge_above_is_reached_in_bold_steps(above: float, most: int, power: float) -> None:
    finalist, runs = Finalist(3, 10.0, 1), []
    while cells := next_cells(finalist, runs, SEEDS, 0.99):
        runs += [power_law(cell, 10.0 * above, power) for cell in cells]
    found = value_of(finalist, runs, 0.99)
    assert found.is_settled and len({one.rate for one in runs}) <= most
    assert found.mean == pytest.approx(0.99 * 10.0 * above, rel=0.02)


@pytest.mark.parametrize("power", [3.0, 8.0, 60.0])
@pytest.mark.parametrize("above", [1.0, 1.3, 2.5])
def test_bold_steps_that_noise_points_do_not_make_values_higher_or_lower(above: float, power: float) -> None:
    """5000 requests of a window tell as much as 500 independent ones would; the same seeds at all levels."""
    share = min(0.1, 1 / power)
    edge = 10.0 * above * (1 / 99 * (1 - share) / share) ** (1 / power)
    logs = []
    for replication in range(12):
        random, finalist, runs = np.random.default_rng(replication), Finalist(3, 10.0, 1), []
        while cells := next_cells(finalist, runs, SEEDS, 0.9):
            for cell in cells:
                exact = power_law(cell, edge, power)
                seen = float(random.binomial(500, exact.score.attainment)) / 500
                runs.append(replace(exact, score=replace(exact.score, attainment=seen)))
        found = value_of(finalist, runs, 0.9)
        assert found.is_settled and found.holds
        logs.append(np.log(found.mean / ((1 - share) * 10.0 * above)))
    assert abs(np.mean(logs)) < 0.01 + 3 * np.std(logs) / len(logs) ** 0.5


@pytest.mark.parametrize("rel", [0.4, 0.7])
@pytest.mark.parametrize("power", [3.0, 27.0, 60.0])
def test_a_peak_far_above_is_reached_and_looked_at_on_both_sides(power: float, rel: float) -> None:
    edge = 10.0 * (0.01 / 0.99 * (power - 1)) ** (1 / power)
    finalist, runs = Finalist(3, 10.0 * rel, 1), []
    while cells := next_cells(finalist, runs, SEEDS, 0.0):
        runs += [power_law(cell, edge, power) for cell in cells]
    found = value_of(finalist, runs, 0.0)
    assert found.is_settled
    assert found.mean == pytest.approx(10.0 * (1 - 1 / power), rel=0.005)


def test_an_edge_too_far_away_ends_after_a_bounded_number_of_levels() -> None:
    finalist = Finalist(3, 10.0, 1)
    runs = measured(finalist, 0.1)
    assert len({one.rate for one in runs}) == MAX_LEVELS
    assert not value_of(finalist, runs, 0.99).holds


def test_a_seed_that_did_better_is_worth_more() -> None:
    finalist = Finalist(3, 10.0, 1)
    per_seed = value_of(finalist, measured(finalist, 10.2, spread=0.001), 0.99).per_seed
    assert list(per_seed.values()) == sorted(per_seed.values())
    assert per_seed[4] > per_seed[0]


def test_how_many_requests_happened_to_come_says_nothing_of_a_server() -> None:
    finalist = Finalist(3, 10.0, 1)
    lucky = [replace(one, score=replace(one.score, goodput_rps=99.0)) for one in measured(finalist, 10.2)]
    assert value_of(finalist, lucky, 0.99).mean == pytest.approx(0.99 * 10.2, rel=0.01)


@pytest.mark.parametrize("spread", [0.002, 0.05])
def test_the_seeds_mean_is_the_edge_however_far_they_lie_apart(spread: float) -> None:
    finalist = Finalist(3, 10.0, 1)
    found = value_of(finalist, measured(finalist, 10.2, spread), 0.99)
    assert found.mean == pytest.approx(0.99 * found.level, rel=0.01)


def test_where_goodput_peaks_below_the_edge_the_peak_counts() -> None:
    finalist = Finalist(3, 10.0, 1)

    def peaked(cell: Cell) -> FinalistRun:
        goodput_rps = 10.0 - abs(cell.level - 10.5)
        score = a_score(cell.level, attainment=goodput_rps / cell.level, goodput_rps=goodput_rps)
        return FinalistRun(cell.trial, cell.replicate, cell.level, score)

    runs: list[FinalistRun] = []
    while cells := next_cells(finalist, runs, SEEDS, 0.5):
        runs += [peaked(cell) for cell in cells]
    assert value_of(finalist, runs, 0.5).level == pytest.approx(10.5, rel=0.02)


@pytest.mark.parametrize("wanted", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("power", [5.0, 25.0, 60.0])
def test_a_peak_between_two_measured_levels_is_found(power: float, wanted: float) -> None:
    """Goodput load · (1 − bad) is highest where one request in `power` is bad."""
    peak = 10.2
    edge = peak * (0.01 / 0.99 * (power - 1)) ** (1 / power)
    finalist, runs = Finalist(3, 10.0, 1), []
    while cells := next_cells(finalist, runs, SEEDS, wanted):
        runs += [power_law(cell, edge, power) for cell in cells]
    found = value_of(finalist, runs, wanted)
    if 1 / power <= 1 - wanted:
        assert found.mean == pytest.approx(peak * (1 - 1 / power), rel=0.003)
        assert found.attainment == pytest.approx(1 - 1 / power, abs=0.02)
    else:
        assert found.attainment == pytest.approx(wanted), "the SLO does not let it go that far"


@pytest.mark.parametrize("above", [1.05, 1.1, 1.2])
@pytest.mark.parametrize("power", [5.0, 27.0, 60.0])
def test_a_search_that_ended_above_a_peak_is_put_right(power: float, above: float) -> None:
    """Beyond the peak the lower of two levels is the better one: that is no proof that it is the best."""
    peak = 10.0
    edge = peak * (0.01 / 0.99 * (power - 1)) ** (1 / power)
    finalist, runs = Finalist(3, float(f"{peak * above:.3g}"), 1), []
    while cells := next_cells(finalist, runs, SEEDS, 0.0):
        runs += [power_law(cell, edge, power) for cell in cells]
    found = value_of(finalist, runs, 0.0)
    assert found.is_settled
    assert found.mean == pytest.approx(peak * (1 - 1 / power), rel=0.01)


def test_a_peak_that_may_lie_below_all_that_was_measured_is_not_settled() -> None:
    runs = [power_law(Cell(3, seed, level), 9.0, 27.0) for seed in range(SEEDS) for level in (12.0, 12.6)]
    assert not value_of(Finalist(3, 12.0, 1), runs, 0.0).is_settled


def test_levels_of_other_seeds_do_not_count() -> None:
    """What a re-scoring leaves of the windows may have lost other seeds at each level."""
    runs = [run(Cell(3, seed, level), 10.2) for seed, level in ((0, 10.0), (1, 10.0), (1, 10.5), (2, 10.5))]
    found = value_of(Finalist(3, 10.0, 1, steps="none"), runs, 0.99)
    assert set(found.per_seed) == {0, 1} and found.level == 10.0


def test_a_slope_too_gentle_to_see_is_no_reason_to_warn() -> None:
    finalist = Finalist(3, 10.0, 1)
    runs = [run(Cell(3, seed, level), 1.0) for seed in range(SEEDS) for level in (10.0, 10.5)]
    nearly_flat = [replace(one, score=replace(one.score, attainment=0.5 - 1e-9 * one.rate, good=500)) for one in runs]
    assert {cell.level for cell in next_cells(finalist, nearly_flat, SEEDS, 0.99)} == {float(f"{10 / 1.4:.3g}")}


def test_seeds_that_happen_to_agree_are_not_taken_for_certainty() -> None:
    """All 5 seeds alike: what is usual of such a slope is still to be expected of others."""
    finalist, runs = Finalist(3, 10.0, 1), []
    while cells := next_cells(finalist, runs, SEEDS, 0.9):
        runs += [power_law(cell, 9.9, 40.0) for cell in cells]
    found = value_of(finalist, runs, 0.9)
    assert found.ci95 is not None
    low, high = found.ci95
    assert 0.01 < (high - low) / found.mean < 0.2
    assert value_of(
        finalist, [replace(one, score=replace(one.score, counted=100)) for one in runs], 0.9
    ).usual_spread > (found.usual_spread), "fewer requests tell less"


@pytest.mark.parametrize("usual, expected", [(0.0, 1.9633), (2.5**0.5, 1.5755), (1.25**0.5, 1.3183), (0.1, 1.9425)])
def test_what_is_usual_of_replicates_counts_like_six_more_of_them(usual: float, expected: float) -> None:
    """Variance 2.5 of five, moderated: (6·usual² + 4·2.5)/10 with 10 degrees of freedom. The more it is beyond twice
    the usual one, the less that counts: this box is not a usual one."""
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0], usual)
    assert (3 - low, high - 3) == pytest.approx((expected, expected), abs=1e-3)


def test_what_was_begun_with_more_seeds_is_ended_with_as_many() -> None:
    """A study resumed with fewer --seeds: levels of unequal seeds could not be compared."""
    finalist = Finalist(3, 10.0, 1)
    runs = [run(cell, 11.4) for cell in next_cells(finalist, [], SEEDS, 0.99)]
    assert len(next_cells(finalist, runs, 2, 0.99)) == SEEDS


@pytest.mark.parametrize(
    ("edge", "levels"),
    [
        pytest.param(9.0, {10.0}, id="misses at the least level: nothing below is worth having"),
        pytest.param(10.2, {10.0, 10.5}, id="holds at the least level: followed to its edge"),
    ],
)
def test_below_the_least_level_nothing_is_measured(edge: float, levels: set[float]) -> None:
    finalist = Finalist(3, 10.0, 1, least=10.0)
    runs = measured(finalist, edge)
    assert {run.rate for run in runs} == levels
    found = value_of(finalist, runs, 0.99)
    assert found.is_settled and found.holds == (edge > 10)


@pytest.mark.parametrize(("attainments", "may_hold"), [
    pytest.param([0.992, 0.987, 0.995, 0.98, 0.99], True, id="11 misses where 10 were allowed"),
    pytest.param([0.96, 0.97, 0.95, 0.96, 0.97], False, id="clearly too many"),
])  # fmt: skip
def test_a_finalist_that_misses_by_no_more_than_chance_may_hold(attainments: list[float], may_hold: bool) -> None:
    scores = [replace(a_score(0.5, attainment=share), attainment=share) for share in attainments]
    runs = [FinalistRun(3, seed, 0.5, score) for seed, score in enumerate(scores)]
    found = value_of(Finalist(3, 0.5, 1, least=0.5), runs, 0.99)
    assert (found.holds, found.may_hold) == (False, may_hold)


@pytest.mark.parametrize("steps", ["users", "none"])
def test_what_timed_out_of_users_is_missing_once_in_what_a_finalist_is_worth(steps: Literal["users", "none"]) -> None:
    """At every number of users 10 requests come in a second, of which 8 are good."""
    finalist = Finalist(3, 20.0, 1, steps=steps)
    scores = {
        users: a_score(users, share, load=ClosedLoop(users), request_rps=10.0, goodput_rps=10 * share)
        for users, share in ((20, 0.8), (21, 0.5))
    }
    cells = next_cells(finalist, [], SEEDS, 0.8)
    runs = [FinalistRun(3, cell.replicate, cell.level, scores[round(cell.level)]) for cell in cells]
    assert value_of(finalist, runs, 0.8).mean == pytest.approx(8.0)


def test_users_are_added_one_at_least() -> None:
    cells = next_cells(Finalist(3, 4.0, 1, steps="users"), [], SEEDS, 0.99)
    assert {cell.level for cell in cells} == {4.0, 5.0}


def test_one_user_is_the_least_there_is() -> None:
    finalist = Finalist(3, 1.0, 1, steps="users")
    runs = measured(finalist, 0.5)
    assert not value_of(finalist, runs, 0.99).holds and value_of(finalist, runs, 0.99).is_settled


def test_an_offline_load_has_one_level() -> None:
    finalist = Finalist(3, 1000.0, 1, steps="none")
    runs = [run(cell, 2000.0) for cell in next_cells(finalist, [], SEEDS, 0.0)]
    assert {one.rate for one in runs} == {1000.0}
    assert next_cells(finalist, runs, SEEDS, 0.0) == []


@pytest.mark.parametrize(
    ("of_the_workload", "variance"),
    [
        ({"arrivals": {"kind": "poisson"}}, 1.0),
        ({"arrivals": {"kind": "gamma", "cv": 3}}, 5.0),
        ({"arrivals": {"kind": "gamma", "cv": 1}}, 1.0),
        ({"arrivals": {"kind": "closed"}}, 0.0),
        ({"turns": {"per_session": 4, "added_tokens": {"fixed": 50}}}, 0.0),
    ],
)
def test_what_is_usual_of_windows_is_known_where_requests_come_singly(
    of_the_workload: dict[str, Any], variance: float
) -> None:
    """By Kingman's formula bursts make waiting vary by more; of users and sessions nothing is taken to be usual."""
    workload = Workload(title="one", prompt={"fixed": 100}, output={"fixed": 10}, **of_the_workload)
    assert usual_variance(workload) == pytest.approx(variance)


def test_bursts_make_the_usual_spread_of_a_finalist_larger() -> None:
    finalist = Finalist(3, 10.0, 1)
    runs = measured(finalist, edge=10.2, spread=0.001)
    single = value_of(finalist, runs, 0.99)
    bursty = value_of(replace(finalist, usual_variance=5.0), runs, 0.99)
    unknown = value_of(replace(finalist, usual_variance=0.0), runs, 0.99)
    assert bursty.usual_spread == pytest.approx(5**0.5 * single.usual_spread)
    assert unknown.usual_spread == 0 and bursty.mean == single.mean == unknown.mean


def test_a_level_at_which_a_seed_had_no_good_request_does_not_hold_even_where_any_attainment_will_do() -> None:
    finalist = Finalist(3, 10.0, 1, steps="none")
    bad = a_score(10.0, attainment=0.0)
    runs = [FinalistRun(3, 0, 10.0, a_score(10.0, attainment=0.01)), FinalistRun(3, 1, 10.0, bad)]
    assert not value_of(finalist, runs, 0.0).holds


@pytest.mark.parametrize(("edge", "users"), [(1.55, 1), (2.0, 2), (7.9, 7)])
def test_of_users_a_whole_number_that_holds_the_slo_is_stated(edge: float, users: int) -> None:
    """With 0.9 of the requests good at `edge` users, who bring a request a second each."""
    runs = [
        FinalistRun(3, seed, level, users_score(int(level), 1 / (1 + (level / edge) ** 4 / 9)))
        for seed in range(SEEDS)
        for level in (float(users), users + 1.0)
    ]
    found = value_of(Finalist(3, float(users), 1, steps="users", usual_variance=0.0), runs, 0.9)
    held = 1 / (1 + (users / edge) ** 4 / 9)
    assert (found.level, found.attainment) == (users, pytest.approx(held, abs=0.005))
    assert found.mean == pytest.approx(users * held, rel=0.01)


def users_score(users: int, attainment: float) -> Score:
    score = a_score(load=ClosedLoop(users), attainment=attainment, counted=2000, request_rps=float(users))
    return replace(score, attainment=attainment)
