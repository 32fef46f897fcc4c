"""Final value: intervals of what seeds say, which lean down where a server's cliff is steep."""

from dataclasses import replace

import numpy as np
import pytest

from tests.builders import a_score
from tuner.finalists import Finalist, value_of
from tuner.finalruns import FinalistRun
from tuner.finalvalue import Value

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
    random, edge, covered, too_high = np.random.default_rng(0), 10.0, [], []
    for _ in range(600):
        runs = [
            replace(cliff(level, edge, random), replicate=seed) for level in (9.8, 10.29) for seed in range(SEEDS)
        ]
        value = value_of(Finalist(3, 9.8, 1), runs, 0.99)
        low, high = value.ci95 or (0.0, 0.0)
        covered.append(low <= 0.99 * edge <= high)
        too_high.append(low > 0.99 * edge)
    assert 0.90 < np.mean(covered) < 0.99
    assert np.mean(too_high) < 0.07
