"""Final value: intervals of what seeds say, of one finalist and of the ratio of two."""

from dataclasses import replace

import numpy as np
import pytest

from tests.builders import a_score
from tuner.finalists import Finalist, value_of
from tuner.finalruns import FinalistRun
from tuner.finalvalue import Value, interval, paired_ratio

SEEDS = 5
SPREAD_OUT = Value(3, True, 10.0, 0.99, {seed: 10 * 1.02 ** (seed - 2) for seed in range(SEEDS)}, usual_spread=0.02)


def arms(value: Value) -> tuple[float, float]:
    """How far the interval reaches down and up, as logarithms."""
    low, high = value.ci95 or (np.nan, np.nan)
    return float(np.log(value.mean / low)), float(np.log(high / value.mean))


def test_an_interval_of_a_gentle_slope_is_symmetric() -> None:
    down, up = arms(replace(SPREAD_OUT, steepness=0.0))
    assert down == pytest.approx(up)


@pytest.mark.parametrize("steepness", [10.0, 60.0, 300.0])
def test_an_interval_of_a_cliff_reaches_further_down_than_up(steepness: float) -> None:
    symmetric, _ = arms(SPREAD_OUT)
    down, up = arms(replace(SPREAD_OUT, steepness=steepness))
    assert down > symmetric > up > symmetric / 2
    assert down < 3 * symmetric


def cliff(level: float, edge: float, random: np.random.Generator) -> FinalistRun:
    """A window whose share of bad requests is gamma distributed, 1 % in the mean at `edge`, growing as load^60."""
    mean_bad = min(0.01 * (level / edge) ** 60, 0.9)
    bad = min(random.gamma(0.35, mean_bad / 0.35), 1.0)
    score = replace(a_score(level, attainment=1 - bad, counted=4500), attainment=1 - bad)
    return FinalistRun(3, 0, level, score)


def test_intervals_of_a_cliff_hold_the_truth_though_few_seeds_rarely_hold_the_bad_one() -> None:
    """Symmetric ones do so in 94 % of these cases, and lie too high in all others."""
    random, edge = np.random.default_rng(1), 9.85
    found = []
    for _ in range(600):
        levels = [(level, seed) for level in (9.8, 10.29) for seed in range(SEEDS)]
        runs = [replace(cliff(level, edge, random), replicate=seed) for level, seed in levels]
        found.append(value_of(Finalist(3, 9.8, 1), runs, 0.99))
    intervals = [value.ci95 for value in found if value.is_settled and value.ci95]
    assert len(intervals) > 400
    assert np.mean([low <= 0.99 * edge <= high for low, high in intervals]) > 0.97


def test_the_interval_of_a_mean_is_students() -> None:
    low, high = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (low, high) == pytest.approx((3 - 1.9633, 3 + 1.9633), abs=1e-3)


def test_intervals_of_independent_normal_replicates_cover_their_mean_95_times_in_100() -> None:
    random = np.random.default_rng(0)
    covered = [low <= 0 <= high for low, high in (interval(random.normal(size=5)) for _ in range(4000))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_a_little_more_spread_makes_an_interval_a_little_wider(seeds: int) -> None:
    values = np.linspace(-1, 1, seeds)
    widths = [np.diff(interval(values * spread, 1.0))[0] for spread in np.arange(0.1, 8.0, 0.02)]
    assert (np.diff(widths) > 0).all()
    assert np.diff(np.log(widths[25:])).max() < 0.1


def test_a_ratio_is_paired_by_seed() -> None:
    default = Value(0, True, 1.0, 0.99, {k: 1.0 + k for k in range(5)})
    best = Value(1, True, 1.0, 0.99, {k: 1.2 * (1.0 + k) for k in range(5)})
    ratio, (low, high), per_seed = paired_ratio(best, default)
    assert ratio == pytest.approx(1.2)
    assert (low, high) == pytest.approx((1.2, 1.2))
    assert per_seed == pytest.approx([1.2] * 5)


def test_what_seeds_share_is_the_less_the_further_apart_two_loads_are() -> None:
    """Seeds that happen to agree about the ratio; the same trace at four times the speed is another one."""
    default = replace(SPREAD_OUT, trial=0)
    widths = []
    for level in (10.0, 13.0, 40.0, 400.0):
        best = replace(SPREAD_OUT, level=level, per_seed={seed: 1.2 * one for seed, one in default.per_seed.items()})
        _, (low, high), _ = paired_ratio(best, default)
        widths.append(np.log(high / low))
    assert widths[0] < 0.7 * widths[1] < 0.6 * widths[2]
    assert widths[2] == pytest.approx(widths[3], rel=0.15), "more than nothing cannot be lost"
