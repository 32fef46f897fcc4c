"""Goodput: which load to probe next on a warm server, and what its goodput is worth.

The value of a server is the maximum over load of good requests per second, among loads whose attainment is at
least the SLO's. Attainment falls as load rises, so probes are joined by an isotonic fit (PAVA)
and the next load is where the fitted curve promises most; that finds an edge and a free peak alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression

from tuner.requests import FloatArray
from tuner.score import Score
from tuner.target import ClosedLoop, Load, OpenLoop

QUICK_REQUESTS = 200
MAX_PROBES = 14
CLOSE_ENOUGH = 0.03
BRACKET_RATIO = 1.09
LEAST_ATTAINMENT = 0.5
# Arrivals are random: a window for the requests that decide counts fewer now and then, and so again if repeated.
ENOUGH = 0.8
# So many probes that miss the SLO, and the next ones go down faster.
TIMID_PROBES = 4
HOPELESS_LOOK = 0.5
GRID = 400
# 95 % of a t distribution with 9 degrees of freedom, one-sided: ten batch means.
T9_ONE_SIDED = 1.833

Probe = Callable[[Load, int], Score]
"""Measure at a load with at least so many counted requests."""


@dataclass(frozen=True)
class Question:
    """What is asked of one server. Levels are req/s, or users where the workload is a closed loop.

    `start` is where to begin, `growth` how boldly to go on from there, `least` the lowest level worth having.
    `beat_rps` is a goodput this server must exceed to matter (0: any); below it the search stops as hopeless.
    """

    attainment: float
    deciding_requests: int
    start: float
    least: float
    growth: float = 2.0
    beat_rps: float = 0.0
    in_users: bool = False


@dataclass(frozen=True)
class Answer:
    """What was found. `edge` is the highest level whose fitted attainment holds (G2), None where none does."""

    ended: Literal["found", "hopeless", "misses-slo"]
    goodput_rps: float
    best: Score | None
    edge: float | None
    probes: tuple[Score, ...]


@dataclass(frozen=True)
class Curve:
    """The isotonic fit through all probes: levels ascending, `attainment` not rising, `offered_rps` what came."""

    levels: FloatArray
    attainment: FloatArray
    offered_rps: FloatArray

    def attainment_at(self, level: float | FloatArray) -> FloatArray:
        """Fitted attainment, linear in the logarithm of the level."""
        return np.interp(np.log(level), np.log(self.levels), self.attainment)

    def goodput_at(self, level: float | FloatArray) -> FloatArray:
        """Fitted good requests per second."""
        offered = np.exp(np.interp(np.log(level), np.log(self.levels), np.log(self.offered_rps)))
        return self.attainment_at(level) * offered


def level_of(load: Load) -> float:
    """The number that says how hard a load is."""
    return load.rate_rps if isinstance(load, OpenLoop) else float(load.users)


def find_goodput(question: Question, probe: Probe) -> Answer:
    """Search the load of one warm server for its highest goodput."""
    scores: list[Score] = []
    level, counted = question.start, _quick(question)
    while len(scores) < MAX_PROBES:
        scores.append(probe(_load(level, question), counted))
        if _is_hopeless(scores, question):
            # One more look, so that the sampler learns how far off it was and the frontier gets its point.
            scores.append(probe(_load(_rounded(level * HOPELESS_LOOK, question), question), counted))
            return _answer("hopeless", scores, question)
        proposal = next_level(scores, question)
        if proposal is None:
            break
        level, counted = proposal
    return _answer("found", scores, question)


def at_one_load(found: Score, attainment: float) -> Answer:
    """What a server is worth that is offered one load only."""
    if found.attainment < attainment:
        return Answer("misses-slo", 0.0, found, None, (found,))
    return Answer("found", found.goodput_rps, found, None, (found,))


def worth(scores: list[Score], question: Question) -> Answer:
    """What these probes say of a server, whoever chose their loads."""
    return _answer("found", scores, question)


def next_level(scores: list[Score], question: Question) -> tuple[float, int] | None:
    """The next (level, counted requests) to measure, or None when enough is known."""
    curve = fit(scores)
    promising = _most_promising(curve, question)
    if promising is None:
        return _step_down(scores, curve, question)
    top = float(curve.levels[-1])
    if promising >= top * (1 - 1e-9) and curve.attainment[-1] >= LEAST_ATTAINMENT:
        return _rounded(top * question.growth, question), _quick(question)
    return _refine(scores, curve, promising, question)


def fit(scores: list[Score]) -> Curve:
    """Isotonic regression of attainment on level, weighted by requests; equal levels are pooled."""
    levels = sorted({level_of(score.load) for score in scores})
    rows = [[score for score in scores if level_of(score.load) == level] for level in levels]
    counted = np.array([sum(score.counted for score in row) for row in rows], dtype=float)
    good = np.array([sum(score.good for score in row) for row in rows], dtype=float)
    attainment = np.divide(good, counted, out=np.zeros_like(good), where=counted > 0)
    fitted = isotonic_regression(attainment, weights=np.maximum(counted, 1), increasing=False).x
    offered = [max(row[-1].offered_rps, 1e-9) for row in rows]
    return Curve(np.array(levels), np.asarray(fitted, dtype=np.float64), np.array(offered))


def _most_promising(curve: Curve, question: Question) -> float | None:
    """The level of highest fitted goodput among those that hold the SLO; None where none does."""
    # With the levels themselves: a grid point just short of a passing level would look on its wrong side.
    grid = np.union1d(np.geomspace(curve.levels[0], curve.levels[-1], GRID), curve.levels)
    holds = curve.attainment_at(grid) >= question.attainment
    if not holds.any():
        return None
    goodput = np.where(holds, curve.goodput_at(grid), -1.0)
    return float(grid[int(np.argmax(goodput))])


def _step_down(scores: list[Score], curve: Curve, question: Question) -> tuple[float, int] | None:
    """A lower level to try when all so far miss the SLO: the further off and the longer this goes on, the bolder.

    The least level is given up only when it misses clearly, or was measured as thoroughly as any that decides.
    """
    lowest, reached = float(curve.levels[0]), float(curve.attainment[0])
    if lowest <= question.least:
        at_least = [score for score in scores if level_of(score.load) <= question.least]
        is_settled = any(_decides(score, question) or _misses_clearly(score, question) for score in at_least)
        # A third probe there would be the second again: the same requests.
        return None if is_settled or len(at_least) > 1 else (lowest, question.deciding_requests)
    factor = 1.2 if reached >= 0.9 * question.attainment else 1.5 if reached >= LEAST_ATTAINMENT else 3.0
    lower = lowest / factor ** max(1, len(scores) - TIMID_PROBES)
    return _rounded(max(lower, question.least), question), _quick(question)


def _refine(scores: list[Score], curve: Curve, promising: float, question: Question) -> tuple[float, int] | None:
    """A deciding probe near the promising level, unless one that passes is close enough already."""
    below = max((float(x) for x in curve.levels if x <= promising * (1 + 1e-9)), default=promising)
    above = min((float(x) for x in curve.levels if x > promising * (1 + 1e-9)), default=promising)
    decided = [score for score in scores if _decides(score, question) and _holds(curve, score, question)]
    nearest = max((level_of(score.load) for score in decided), default=0.0)
    narrow = above <= below * BRACKET_RATIO or (question.in_users and above - below <= 1)
    if narrow:
        if nearest >= promising * (1 - CLOSE_ENOUGH):
            return None
        levels = (promising, promising * (1 - CLOSE_ENOUGH / 2))
        fresh = [
            level for level in levels if _rounded(level, question) not in {level_of(each.load) for each in scores}
        ]
        if not fresh:
            return None
        level = fresh[0] if _is_new(promising, scores) else fresh[-1]
    else:
        # Between interpolation and bisection: a steep curve makes interpolation creep along one side.
        share = np.log(promising / below) / np.log(above / below) if above > below else 0.5
        level = below * (above / below) ** min(max(share, 0.3), 0.7)
    return _rounded(level, question), question.deciding_requests


def _is_hopeless(scores: list[Score], question: Question) -> bool:
    """Whether even the first level, whose whole load would not beat the incumbent, clearly misses the SLO."""
    first = scores[0]
    if question.beat_rps <= 0 or len(scores) > 1 or first.offered_rps > question.beat_rps * (1 + CLOSE_ENOUGH):
        return False
    return _misses_clearly(first, question)


def _misses_clearly(score: Score, question: Question) -> bool:
    return attainment_upper(score) < question.attainment


def attainment_upper(score: Score) -> float:
    """A one-sided 95 % upper bound on attainment, from batch means (requests in a queue are not independent)."""
    if len(score.batch_attainment) < 2:
        return score.attainment if score.stopped else 1.0
    spread = float(np.std(score.batch_attainment, ddof=1)) / len(score.batch_attainment) ** 0.5
    return float(score.attainment + T9_ONE_SIDED * spread)


def _answer(ended: Literal["found", "hopeless"], scores: list[Score], question: Question) -> Answer:
    curve = fit(scores)
    passing = [score for score in scores if score.stopped is None and _holds(curve, score, question)]
    decided = [score for score in passing if _decides(score, question)] or passing
    if not decided:
        best = max(scores, key=lambda score: score.attainment)
        return Answer("hopeless" if ended == "hopeless" else "misses-slo", 0.0, best, None, tuple(scores))
    best = max(decided, key=lambda score: float(curve.goodput_at(level_of(score.load))))
    holds = curve.levels[curve.attainment >= question.attainment]
    value = float(curve.goodput_at(level_of(best.load)))
    return Answer(ended, value, best, float(holds[-1]), tuple(scores))


def _holds(curve: Curve, score: Score, question: Question) -> bool:
    return float(curve.attainment_at(level_of(score.load))) >= question.attainment


def _decides(score: Score, question: Question) -> bool:
    return score.stopped is None and (question.in_users or score.counted >= ENOUGH * question.deciding_requests)


def _is_new(level: float, scores: list[Score]) -> bool:
    return all(abs(level / level_of(score.load) - 1) > CLOSE_ENOUGH / 2 for score in scores)


def _quick(question: Question) -> int:
    return min(QUICK_REQUESTS, question.deciding_requests)


def _load(level: float, question: Question) -> Load:
    return ClosedLoop(max(1, round(level))) if question.in_users else OpenLoop(level)


def _rounded(level: float, question: Question) -> float:
    """Three significant digits, so that commands and tables can say the level exactly; whole users."""
    return float(max(1, round(level))) if question.in_users else float(f"{level:.3g}")
