"""Crest: where the goodput of a measured server is highest among loads that hold the SLO. Pure.

Around that load the odds of a bad request grow as a power of it (`tuner.curve`): a line through the log odds of what
was measured at a few levels. Goodput is highest where the share of bad requests reaches the one allowed (an edge), or
already below it where more load costs as many requests as it brings (a peak).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.requests import FloatArray

# Powers below are those of servers that hardly mind the load, ones above of measurements too coarse to tell.
LEAST_POWER, MOST_POWER = 0.3, 300.0
MOST_BAD = 0.98
LEAST_GROWTH = 0.05
# Where nothing came at all, logarithms are of so much.
TINY_RPS = 1e-9


@dataclass(frozen=True)
class Level:
    """What was measured at one level (req/s, or users), over all seeds: mean attainment, counted requests, requests
    that came per second."""

    level: float
    attainment: float
    counted: int
    offered_rps: float


@dataclass(frozen=True)
class Crest:
    """The best load: its `level`, mean `attainment` and the requests/s that come there, as level to the `growth`.

    Around it the log odds of a bad request are `intercept` + `power` · log level.
    """

    level: float
    attainment: float
    offered_rps: float
    power: float
    intercept: float
    growth: float

    def at(self, level: float) -> "Crest":
        """The same server at a lower level, by the same line."""
        attainment = 1 - float(_share(self.intercept + self.power * np.log(level)))
        offered_rps = self.offered_rps * (level / self.level) ** self.growth
        return replace(self, level=level, attainment=max(attainment, self.attainment), offered_rps=offered_rps)

    @property
    def goodput_rps(self) -> float:
        """Good requests/s there."""
        return self.attainment * self.offered_rps

    @property
    def steepness(self) -> float:
        """The relative change of the odds of a bad request there over that of the goodput, at an edge or a peak."""
        return self.power / max(self.growth, LEAST_GROWTH)

    @property
    def slope(self) -> float:
        """What attainment loses there per unit of log load."""
        bad = float(_share(self.intercept + self.power * np.log(self.level)))
        return self.power * bad * (1 - bad)


def crest_of(levels: Sequence[Level], within: tuple[float, float], wanted: float) -> Crest:
    """The crest of at least two levels, as far as it lies `within` the lower and upper one, for an attainment of
    `wanted`."""
    assert len(levels) > 1, "one level says nothing of a slope"
    log_level = np.log([one.level for one in levels])
    counted = np.array([max(one.counted, 1) for one in levels])
    bad = np.clip([1 - one.attainment for one in levels], 0.5 / counted, 1 - 0.5 / counted)
    weights = counted * bad * (1 - bad)
    slope, intercept = _line(log_level, _log_odds(bad), weights)
    power = float(np.clip(slope, LEAST_POWER, MOST_POWER))
    intercept += (slope - power) * float(np.average(log_level, weights=weights))
    growth, base = _line(log_level, np.log([max(one.offered_rps, TINY_RPS) for one in levels]), weights)
    # Goodput level^growth · (1 − bad) peaks where the share of bad requests is growth/power.
    best_bad = min(1 - wanted, max(growth, LEAST_GROWTH) / power, MOST_BAD)
    level = float(np.clip(np.exp((_log_odds(best_bad) - intercept) / power), *within))
    attainment = max(1 - float(_share(intercept + power * np.log(level))), wanted)
    return Crest(level, attainment, float(np.exp(base + growth * np.log(level))), power, intercept, growth)


def _line(x: FloatArray, y: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Slope and intercept by weighted least squares."""
    middle, height = np.average(x, weights=weights), np.average(y, weights=weights)
    slope = float(weights @ ((x - middle) * (y - height)) / (weights @ (x - middle) ** 2))
    return slope, float(height - slope * middle)


def _log_odds(share: float | FloatArray) -> FloatArray:
    return np.asarray(np.log(share / (1 - share)))


def _share(log_odds: float | FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-log_odds)))
