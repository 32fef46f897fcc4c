"""Goodput: which load to probe next on a warm server, and what its goodput is worth."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuner.curve import Curve, fit, level_of
from tuner.score import Score
from tuner.target import ClosedLoop, Load, OpenLoop

QUICK_REQUESTS = 150
MAX_PROBES = 12
ENOUGH_PROBES=8
CLOSE_ENOUGH = 0.03
SURE_ENOUGH = 0.02
LEAST_ATTAINMENT = 0.5
HOPELESS_LOOK = 0.5
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
    """What was found. `edge` is the level that is recommended."""

    ended: Literal["found", "hopeless", "misses-slo"]
    goodput_rps: float
    best: Score | None
    edge: float | None
    probes: tuple[Score, ...]


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


def next_level(scores: list[Score], question: Question) -> tuple[float, int] | None:
    curve = fit(scores, question.attainment)
    levels = [level_of(s.load) for s in scores]
    lowest, top = min(levels), max(levels)
    target = curve.best_level(question.attainment)
    top_att = _pooled(scores, top)
    allowed = 1 - question.attainment
    comfortable = top_att >= 1 - allowed * (0.5 if question.attainment > 0 else .15)
    if comfortable:
        return _rounded(max(min(target, 2 * top), top * question.growth), question), _quick(question)
    if target <= question.least:
        at = [s for s in scores if level_of(s.load) <= question.least * 1.001]
        if any(_decides(s, question) or _misses_clearly(s, question) for s in at):
            return None
        return question.least, (question.deciding_requests if at else _quick(question))
    if target > top * 1.1:
        return _rounded(min(target, top * question.growth), question), _quick(question)
    if target < lowest / 1.1:
        return _rounded(max(target, lowest / 3, question.least), question), _quick(question)
    decided = [s for s in scores if _decides(s, question)]
    near = [s for s in decided if abs(np.log(level_of(s.load) / target)) < 0.10]
    n_near = sum(s.counted for s in near)
    close = any(abs(np.log(level_of(s.load) / target)) < CLOSE_ENOUGH for s in near)
    if close and len(near) >= 2 and (curve.error_at(target) < SURE_ENOUGH or len(scores) >= ENOUGH_PROBES):
        return None
    offset = (0.0, 0.03, -0.03)[len(near) % 3] if close else 0.0
    return _rounded(max(target * (1 + offset),question.least), question), question.deciding_requests


def _pooled(scores, level):
    at = [s for s in scores if level_of(s.load) == level]
    return sum(s.good for s in at) / max(sum(s.counted for s in at), 1)


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
    curve = fit(scores, question.attainment)
    target = curve.best_level(question.attainment)
    ok = [s for s in scores if s.stopped is None]
    if not ok or (target < question.least and curve.attainment_at(question.least) < question.attainment):
        best = max(scores, key=lambda score: score.attainment)
        return Answer("hopeless" if ended == "hopeless" else "misses-slo", 0.0, best, None, tuple(scores))
    best = min(ok, key=lambda s: abs(np.log(level_of(s.load) / target)))
    return Answer(ended, float(curve.goodput_at(target)), best, target, tuple(scores))


def _decides(score: Score, question: Question) -> bool:
    return score.stopped is None and (question.in_users or score.counted >= question.deciding_requests)


def _quick(question: Question) -> int:
    return min(QUICK_REQUESTS, question.deciding_requests)


def _load(level: float, question: Question) -> Load:
    return ClosedLoop(max(1, round(level))) if question.in_users else OpenLoop(level)


def _rounded(level: float, question: Question) -> float:
    """Three significant digits, so that commands and tables can say the level exactly; whole users."""
    return float(max(1, round(level))) if question.in_users else float(f"{level:.3g}")
