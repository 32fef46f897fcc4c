"""Unit-rate gaps between arrivals."""

from typing import Any

import numpy as np
import pytest

from tuner.config.workload import Arrivals
from tuner.workload.arrivals import unit_gaps


@pytest.mark.parametrize(
    "arrivals, cv",
    [
        ({"kind": "poisson"}, 1),
        ({"kind": "closed"}, 1),
        ({"kind": "gamma", "cv": 3}, 3),
        ({"kind": "gamma", "cv": 0.5}, 0.5),
    ],
)
def test_gaps_have_mean_one_and_the_coefficient_of_variation_asked_for(arrivals: dict[str, Any], cv: float) -> None:
    gaps = unit_gaps(Arrivals(**arrivals), np.random.default_rng(0), 200_000)
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1, rel=0.02)
    assert gaps.std() == pytest.approx(cv, rel=0.03)


def test_at_once_leaves_no_gaps() -> None:
    assert not unit_gaps(Arrivals(kind="at_once"), np.random.default_rng(0), 10).any()
