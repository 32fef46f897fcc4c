"""Curve: attainment against load, learnt from the probes of one server. Pure.

The odds that a request is bad are taken to grow as a power of the load around the load of interest:

    odds(level) = odds_at_edge · (level / edge) ^ power

Two unknowns, so all pairs of a grid are weighed by how well they explain the probes (Bayes' rule). Unlike a fit that
only joins neighbours, every probe near the edge sharpens it, no straight line is drawn across a cliff, and the spread
of what is still possible says when enough is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tuner.requests import FloatArray
from tuner.score import Score
from tuner.target import Load, OpenLoop

# Powers of simulated servers at their edges: 1.3 where only long answers miss, 3-7 for gaps, 20-50 for queues.
USUAL_POWER, POWER_FACTOR = 8.0, 3.0
POWERS = np.geomspace(0.7, 100.0, 21)
# The edge lies within this factor of the loads that were probed.
REACH = 50.0
# How far from the load of interest a probe still counts: the standard deviation of its weight in log load.
NEAR = 0.2
# One further away is taken for no more than so many independent requests: no power law holds for ever.
AFAR = 8.0
# Requests near capacity are not independent: so many of them tell as much as one would.
USUAL_DISPERSION, GUESSES = 4.0, 2
# Without an attainment asked for, curves are named by the load at which this share of requests is bad.
PEAK_BAD = 0.1
STEPS = 121
SURELY = 0.95
# A load that has more misses than so many times the allowed ones is the worse for it.
BEARABLE = 2.0


@dataclass(frozen=True)
class Curve:
    """What the probes leave possible: curves of weight `weights` (n,), which sum to 1.

    Each has its `edges` (n,), the load where the share of bad requests is `edge_bad`; its `powers` (n,); and its
    `best` (n,), the load of highest goodput among those that hold the SLO: `value` (n,) good requests/s. At a level
    `unit_rps` · level ^ `growth` requests/s come.
    """

    edges: FloatArray
    powers: FloatArray
    weights: FloatArray
    edge_bad: float
    best: FloatArray
    value: FloatArray
    unit_rps: float
    growth: float

    def attainment_at(self, level: float) -> float:
        """The share of good requests to expect."""
        log_odds = _log_odds(level, self.edges, self.powers, self.edge_bad)
        return float(self.weights @ (1 / (1 + np.exp(log_odds))))

    @cached_property
    def best_level(self) -> float:
        """Where goodput is highest among the loads that hold the SLO: the edge, or a peak below it; the median."""
        return _median(self.best, self.weights)

    def advice(self, wanted: float, levels: FloatArray) -> tuple[float, float]:
        """Which of `levels` to recommend, and the good requests/s to expect there.

        The highest goodput to expect, where goodput counts less the more misses there are beyond BEARABLE times the
        allowed ones: in the mean over what is possible. So the level lies below the edge of a cliff, by the more the
        less is known, for some per cent too low cost as many per cent and some beyond it everything; on a gentle
        slope, where an error of the level costs little either way, it is the likeliest.
        """
        bad = 1 / (1 + np.exp([-_log_odds(level, self.edges, self.powers, self.edge_bad) for level in levels]))
        borne = np.minimum(1.0, BEARABLE * (1 - wanted) / bad)
        offered = self.unit_rps * levels**self.growth
        best = int(np.argmax(offered * (((1 - bad) * borne) @ self.weights)))
        return float(levels[best]), float(offered[best] * ((1 - bad[best]) @ self.weights))

    def goodput_rps_within(self, reach: float) -> float:
        """The median of good requests per second at the best level, or at `reach` if that is lower."""
        bad = 1 / (1 + np.exp(-_log_odds(reach, self.edges, self.powers, self.edge_bad)))
        at_reach = self.unit_rps * reach**self.growth * (1 - bad)
        return _median(np.where(self.best > reach, at_reach, self.value), self.weights)

    @property
    def goodput_at_most_rps(self) -> float:
        """Good requests per second that it is hardly worth more than: 95 % of what is possible is below."""
        return _quantile(self.value, self.weights, SURELY)

    @property
    def error(self) -> float:
        """Standard deviation of the logarithm of the best level."""
        return _spread(np.log(self.best), self.weights)

    @property
    def edge_error(self) -> float:
        """Standard deviation of the logarithm of the edge."""
        return _spread(np.log(self.edges), self.weights)

    def chance_above(self, level: float) -> float:
        """How likely it is that the best level is above `level`."""
        return float(self.weights @ (self.best > level))


def level_of(load: Load) -> float:
    """The number that says how hard a load is: req/s, or users."""
    return load.rate_rps if isinstance(load, OpenLoop) else float(load.users)


def fit(scores: Sequence[Score], wanted: float) -> Curve:
    """What is known of a server after these probes, for an attainment of `wanted` (0: the peak of goodput)."""
    levels = np.array([level_of(score.load) for score in scores])
    low, high = levels.min() / REACH, levels.max() * REACH
    told = np.array([score.counted for score in scores]) / dispersion(scores)
    tells = told
    for _ in range(3):
        curve = _weighed(scores, tells, np.geomspace(low, high, STEPS), wanted)
        # Never narrower than the grid was fine: its points may have missed the best one.
        spread = np.exp(min(5 * curve.edge_error + 2 * np.log(high / low) / STEPS + 0.02, np.log(REACH)))
        middle = _median(curve.edges, curve.weights)
        low, high = middle / spread, middle * spread
        near = np.exp(-0.5 * (np.log(levels / curve.best_level) / NEAR) ** 2)
        tells = near * told + (1 - near) * np.minimum(told, AFAR)
    return curve


def dispersion(scores: Sequence[Score]) -> float:
    """How many requests tell as much as one independent one would, at least 1.

    The variance of batch means over a binomial one, geometric mean over all probes (and GUESSES more of what is
    usual): a probe that happened to be perfect just below a cliff shows no spread, so none may speak for itself.
    """
    ratios = [USUAL_DISPERSION] * GUESSES
    for score in scores:
        if score.batch_attainment and 0 < score.attainment < 1:
            binomial = score.attainment * (1 - score.attainment) * len(score.batch_attainment) / score.counted
            ratios.append(max(float(np.var(score.batch_attainment, ddof=1)) / binomial, 1.0))
    return float(np.exp(np.mean(np.log(ratios))))


def _weighed(scores: Sequence[Score], tells: FloatArray, edges: FloatArray, wanted: float) -> Curve:
    edge_bad = 1 - wanted if wanted > 0 else PEAK_BAD
    edge, power = (grid.ravel() for grid in np.meshgrid(edges, POWERS))
    log_weights = -0.5 * (np.log(power / USUAL_POWER) / np.log(POWER_FACTOR)) ** 2
    for score, independent in zip(scores, tells, strict=True):
        log_odds = _log_odds(level_of(score.load), edge, power, edge_bad)
        if score.stopped is not None:
            # The worst was still to come: that more would have been bad says nothing against a curve.
            log_odds = np.minimum(log_odds, float(np.log(_odds(np.clip(1 - score.attainment, 1e-9, 1 - 1e-9)))))
        # (1 − good)·log bad + good·log(1 − bad), as bad = 1 / (1 + exp(−log_odds)).
        log_weights -= independent * (np.logaddexp(0.0, -log_odds) + score.attainment * log_odds)
    weights = np.exp(log_weights - log_weights.max())
    # Goodput level^growth · (1 − bad) peaks where the share of bad requests is growth/power.
    growth = _growth(scores)
    best_bad = np.minimum(1 - wanted, np.minimum(growth / power, 0.98))
    best = edge * (_odds(best_bad) / _odds(edge_bad)) ** (1 / power)
    unit_rps = _unit_rps(scores, float(np.exp(np.log(best).mean())), growth)
    value = unit_rps * best**growth * (1 - best_bad)
    return Curve(edge, power, weights / weights.sum(), edge_bad, best, value, unit_rps, growth)


def _growth(scores: Sequence[Score]) -> float:
    """How the requests that come grow with the level: 1 in an open loop; less where users wait for a full server."""
    if all(isinstance(score.load, OpenLoop) for score in scores) or len(scores) < 2:
        return 1.0
    levels = np.log([level_of(score.load) for score in scores])
    came = np.log([max(score.offered_rps, 1e-9) for score in scores])
    spread = float(np.var(levels))
    return float(np.clip(np.cov(levels, came, bias=True)[0, 1] / spread, 0.05, 1.0)) if spread > 0 else 1.0


def _unit_rps(scores: Sequence[Score], level: float, growth: float) -> float:
    """Requests/s that would come at a level of one, by all probes at the level nearest to `level`."""
    if all(isinstance(score.load, OpenLoop) for score in scores):
        return 1.0
    nearest = min((level_of(score.load) for score in scores), key=lambda one: abs(np.log(one / level)))
    came = [(score.counted, max(score.offered_rps, 1e-9)) for score in scores if level_of(score.load) == nearest]
    lasted_s = sum(counted / rps for counted, rps in came)
    offered_rps = sum(counted for counted, _ in came) / lasted_s if lasted_s else came[0][1]
    return float(offered_rps / nearest**growth)


def _log_odds(level: float, edge: FloatArray, power: FloatArray, edge_bad: float) -> FloatArray:
    """Of a bad request."""
    return np.asarray(np.clip(np.log(_odds(edge_bad)) + power * np.log(level / edge), -20, 20))


def _odds(share: float | FloatArray) -> FloatArray:
    return np.asarray(share / (1 - share))


def _median(values: FloatArray, weights: FloatArray) -> float:
    return _quantile(values, weights, 0.5)


def _quantile(values: FloatArray, weights: FloatArray, share: float) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), share)])


def _spread(values: FloatArray, weights: FloatArray) -> float:
    return float(np.sqrt(weights @ (values - weights @ values) ** 2))
