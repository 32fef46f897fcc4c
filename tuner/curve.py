"""Curve: attainment against load, fitted to the probes of one server. Pure.

The odds that a request is bad are taken to grow as a power of the load near the load of interest (logistic regression
on the logarithm of the load, probes further away counting less). Unlike a fit that only joins neighbours, every probe
near an edge sharpens it, and nothing is promised by a straight line drawn across a cliff.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.requests import FloatArray
from tuner.score import Score
from tuner.target import Load, OpenLoop

# Requests near capacity are not independent: so many of them tell as much as one would.
REQUESTS_PER_NEWS = 4.0
# The power to expect before anything is known, and how sure of that; no power outside of POWERS.
USUAL_POWER, POWER_SPREAD = 12.0, 10.0
POWERS = (1.0, 100.0)
# How far from the load of interest a probe still counts: the standard deviation of its weight, in log load.
NEAR = 0.15
ROUNDS = 4
NEWTON_STEPS = 12


@dataclass(frozen=True)
class Curve:
    """Odds of a bad request: exp(`log_odds`) at `level`, growing with the load to the `power`.

    `covariance` (2, 2) is that of (log_odds, power). `offered_per_level`: requests/s that come per unit of load.
    """

    level: float
    log_odds: float
    power: float
    covariance: FloatArray
    offered_per_level: Callable[[float], float]

    def attainment_at(self, level: float) -> float:
        """The share of good requests."""
        return float(1 / (1 + np.exp(min(self.log_odds + self.power * np.log(level / self.level), 700.0))))

    def goodput_at(self, level: float) -> float:
        """Good requests per second."""
        return self.attainment_at(level) * level * self.offered_per_level(level)

    def best_level(self, wanted: float) -> float:
        """Where goodput is highest among the loads whose attainment is at least `wanted`: the edge, or a peak below."""
        # Goodput load · (1 − bad) peaks where the share of bad requests is 1/power.
        at_peak = 1 - 1 / max(self.power, 1.02)
        return self._level_where(max(wanted, at_peak))

    def error_at(self, level: float) -> float:
        """Standard error of the logarithm of the load at which attainment is what it is at `level`."""
        toward = np.array([1.0, float(np.log(level / self.level))])
        return float(np.sqrt(toward @ self.covariance @ toward) / self.power)

    def _level_where(self, attainment: float) -> float:
        wanted = np.log((1 - attainment) / attainment)
        return float(self.level * np.exp(np.clip((wanted - self.log_odds) / self.power, -5, 5)))


def level_of(load: Load) -> float:
    """The number that says how hard a load is: req/s, or users."""
    return load.rate_rps if isinstance(load, OpenLoop) else float(load.users)


def fit(scores: Sequence[Score], wanted: float) -> Curve:
    """The curve near the best load for an attainment of `wanted`."""
    levels = np.array([level_of(score.load) for score in scores])
    counted = np.array([score.counted for score in scores], dtype=float)
    bad = counted - np.array([score.good for score in scores], dtype=float)
    focus, near = float(np.exp(np.mean(np.log(levels)))), np.ones(len(levels))
    for _ in range(ROUNDS):
        curve = _regression(levels, bad, counted, near, focus)
        focus = float(np.clip(curve.best_level(wanted), levels.min() / 1.5, levels.max() * 1.5))
        near = np.exp(-0.5 * (np.log(levels / focus) / NEAR) ** 2) + 1e-3
    curve = _regression(levels, bad, counted, near, focus)
    return curve


def _regression(levels: FloatArray, bad: FloatArray, counted: FloatArray, near: FloatArray, focus: float) -> Curve:
    x = np.log(levels / focus)
    share = (bad + 0.5) / (counted + 1)
    weight = near * (counted + 1) / REQUESTS_PER_NEWS
    prior = np.array([0.0, 1 / POWER_SPREAD**2])
    found = np.array([np.log(np.average(share, weights=weight) / (1 - np.average(share, weights=weight))), USUAL_POWER])
    for _ in range(NEWTON_STEPS):
        predicted = 1 / (1 + np.exp(-np.clip(found[0] + found[1] * x, -30, 30)))
        slope = weight * np.maximum(predicted * (1 - predicted), 1e-6)
        design = np.stack([np.ones_like(x), x])
        gradient = design @ (weight * (share - predicted)) - prior * (found - np.array([0.0, USUAL_POWER]))
        hessian = (design * slope) @ design.T + np.diag(prior + 1e-9)
        found = found + np.clip(np.linalg.solve(hessian, gradient), -3.0, 3.0)
        found[1] = np.clip(found[1], *POWERS)
    return Curve(focus, float(found[0]), float(found[1]), np.linalg.inv(hessian), lambda level: 1.0)
