"""Gaps between arrivals at a load of one arrival per second. Pure."""

import numpy as np

from tuner.config.workload import Arrivals
from tuner.requests import FloatArray


def unit_gaps(arrivals: Arrivals, rng: np.random.Generator, count: int) -> FloatArray:
    """`count` gaps of mean 1, the first before the first arrival; all 0 where everything comes at once.

    Poisson gaps are exponential. Gamma gaps of coefficient of variation cv have shape 1/cv² and scale cv². Closed
    loops get Poisson gaps, which they ignore: their users decide when the next session begins.
    """
    match arrivals.kind:
        case "at_once":
            return np.zeros(count)
        case "gamma":
            assert arrivals.cv is not None
            return rng.gamma(arrivals.cv**-2, arrivals.cv**2, count)
        case _:
            return rng.standard_exponential(count)
