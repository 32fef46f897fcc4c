"""Stretch: how much longer an SLO's limits would have to be for a probe to have held it. Pure."""

import math

from tuner.config.slo import Slo
from tuner.score import Answers, attainment_of

LONGEST = 100.0
"""No longer limits than so many times are looked at: who needs more has other troubles."""

STEPS = 14
"""Halvings of the interval between 1 and LONGEST, on a logarithmic scale: a factor known to 0.03 %."""


def needed_scale(answers: Answers, slo: Slo) -> float | None:
    """The least factor on every limit at which these answers hold the SLO, two digits, rounded up.

    None where no factor helps, as too many requests failed, or none is needed.
    """
    if _holds(answers, slo, 1.0) or not _holds(answers, slo, LONGEST):
        return None
    low, high = 1.0, LONGEST
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _holds(answers, slo, middle) else (middle, high)
    unit = 10.0 ** (math.floor(math.log10(high)) - 1)
    return round(math.ceil(high / unit) * unit, 2)


def _holds(answers: Answers, slo: Slo, factor: float) -> bool:
    return attainment_of(answers, slo.scaled(factor).limits) >= slo.attainment
