"""Stride: how far a finalist's next level lies from those that were measured, towards its crest. Pure."""

from collections.abc import Sequence

import numpy as np

from tuner.crest import Level, crest_of

# The next level is at least and at most so many times as high or low.
STEP, BOLDEST = 1.05, 1.4
# The next level up is to lie beyond the crest, which is known less from below.
BEYOND = 1.03
# A single level says no more than that the edge is some way off where half of the allowed misses are unused.
BOLD, SPARE = 1.15, 0.5


def stride_up(levels: Sequence[Level], wanted: float) -> float:
    """How many times as high as the highest of `levels`, ascending, which holds the attainment `wanted`.

    A little beyond the crest by the power law through the two highest. Where hardly a request is bad they say little
    of it, and the stride is the boldest.
    """
    highest = levels[-1]
    if len(levels) < 2:
        spare = (highest.attainment - wanted) / (1 - wanted)
        return BOLD if spare > SPARE else STEP
    crest = crest_of(levels[-2:], (highest.level, highest.level * BOLDEST), wanted)
    return min(max(crest.level / highest.level * BEYOND, STEP), BOLDEST)


def stride_down(levels: Sequence[Level], wanted: float) -> float:
    """How many times as low as the lowest of at least two `levels`, ascending: by the line through the two lowest."""
    lowest, above = levels[:2]
    slope = (lowest.attainment - above.attainment) / np.log(above.level / lowest.level)
    if slope <= 0:
        return BOLDEST
    return float(np.exp(np.clip((wanted - lowest.attainment) / slope, np.log(STEP), np.log(BOLDEST))))
