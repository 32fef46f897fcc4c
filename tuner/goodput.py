"""Goodput: which load to probe next on a warm server, and what its goodput is worth.

The value of a server is the maximum over load of good requests per second, among loads whose attainment is at least
the SLO's. A few quick probes bracket that load; thorough ones then stand around where the curve fitted to all of them
(`tuner.curve`) has it, until it is known well enough or thorough probes have been spent.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tuner.curve import Curve, fit, level_of
from tuner.requests import FloatArray
from tuner.score import Score
from tuner.target import ClosedLoop, Load, OpenLoop
from tuner.users import Looked, candidates, next_users

MAX_PROBES, MAX_QUICK, MAX_THOROUGH = 12, 6, 4
# Standard deviation of the logarithm of the best level: bracketed well enough for thorough probes, and known.
BRACKETED, KNOWN = 0.3, 0.02
# Between two probes closer than this another quick one would tell too little for its warm-up.
NARROW = 1.5
# A thorough probe within this factor of the best level has to confirm it.
CLOSE, NEARBY = 1.03, 1.10
# The best level may lie this far above the highest probe before another step up is taken; steps are at least so big.
ABOVE, LEAST_STEP = 1.15, 1.10
# Steps down are at most this big: an overloaded server tells little about how far off it is.
BOLDEST_DOWN = 3.0
# Thorough probes stand around the best level, so that they tell of its curve too; rather above, where more is bad.
OFFSETS = (1.0, 1.04, 0.98, 1.02)
# Where to look for the level to recommend, below the likeliest one.
MARGINS = np.geomspace(0.85, 1.0, 41)
# Arrivals are random: a window for so many requests on average counts at least this share of them.
ABOUT = 0.8
LEAST_ATTAINMENT = 0.5
TINY_RPS = 1e-9
HOPELESS_LOOK = 0.5
# A server whose chance to be what is asked of it is lower than this is given up.
HARDLY = 0.05
# 95 % of a t distribution with 9 degrees of freedom, one-sided: ten batch means.
T9_ONE_SIDED = 1.833

Probe = Callable[[Load, int], Score]
"""Measure at a load with at least so many counted requests."""


@dataclass(frozen=True)
class Question:
    """What is asked of one server. Levels are req/s, or users where the workload is a closed loop.

    `thorough` and `quick` are the requests that a probe of either kind counts; one of `whole_s` seconds that counts
    `deciding` is thorough too, and so is one of `longest_s`. `start` is where to begin, `growth` how boldly to go on
    from there, `least` the lowest level worth having. `beat_rps` is a goodput this server must exceed to matter (0:
    any); below it the search stops as hopeless.
    """

    attainment: float
    thorough: int
    start: float
    least: float
    quick: int = 150
    growth: float = 2.0
    beat_rps: float = 0.0
    in_users: bool = False
    deciding: int = 0
    whole_s: float = math.inf
    longest_s: float = math.inf

    def is_thorough(self, score: Score) -> bool:
        """Whether a probe ran on and counted about as many requests as a thorough one, whatever it was made for."""
        if score.stopped is not None:
            return False
        came_rps = max(score.offered_rps, TINY_RPS)
        in_whole_window = min(max(self.whole_s * came_rps, self.deciding), self.longest_s * came_rps)
        return score.counted >= ABOUT * min(self.thorough, in_whole_window)


@dataclass(frozen=True)
class Answer:
    """What was found: `goodput_rps` is what the fitted curve promises at `edge`, the level to recommend (G2 where an
    attainment is asked for); None where no level holds the SLO. `best` is the probe nearest to it."""

    ended: Literal["found", "hopeless", "misses-slo"]
    goodput_rps: float
    best: Score | None
    edge: float | None
    probes: tuple[Score, ...]


@dataclass(frozen=True)
class Search:
    """What is asked, and the probes so far."""

    question: Question
    probes: list[Score] = field(default_factory=list)

    @property
    def thorough(self) -> list[Score]:
        """Those of the probes that count as thorough."""
        return [score for score in self.probes if self.question.is_thorough(score)]

    @property
    def holds_somewhere(self) -> bool:
        """Whether some probe held the SLO, whatever its luck."""
        return any(score.attainment >= self.question.attainment for score in self.probes)

    def curve(self) -> Curve:
        """What all probes say."""
        return fit(self.probes, self.question.attainment)

    def levels(self, curve: Curve) -> FloatArray:
        """Those to choose from: not above what was probed by much, as what no probe came near is not promised."""
        best = min(curve.best_level, ABOVE * max(level_of(score.load) for score in self.probes))
        return candidates(curve, best, self.question.attainment) if self.question.in_users else best * MARGINS


def find_goodput(question: Question, probe: Probe) -> Answer:
    """Search the load of one warm server for its highest goodput."""
    search = Search(question)
    following: tuple[float, int] | None = (question.start, question.quick)
    while following and len(search.probes) < MAX_PROBES:
        level, counted = following
        search.probes.append(probe(_load(level, question), counted))
        if _is_hopeless(search):
            # One more look, so that the sampler learns how far off it was and the frontier gets its point.
            search.probes.append(probe(_load(_rounded(level * HOPELESS_LOOK, question), question), counted))
            return _answer("hopeless", search)
        if _is_surely_worse(search):
            return _answer("found" if search.thorough else "hopeless", search)
        following = next_level(search)
    return _answer("found", search)


def at_one_load(found: Score, attainment: float) -> Answer:
    """What a server is worth that is offered one load only."""
    if found.attainment < attainment:
        return Answer("misses-slo", 0.0, found, None, (found,))
    return Answer("found", found.goodput_rps, found, None, (found,))


def worth(scores: Sequence[Score], question: Question, *, given_up: bool = False) -> Answer:
    """What these probes say of a server, whoever chose their loads. `given_up`: whether that ended as hopeless."""
    return _answer("hopeless" if given_up else "found", Search(question, list(scores)))


def next_level(search: Search) -> tuple[float, int] | None:
    """The next (level, counted requests) to measure, or None when enough is known."""
    curve = search.curve()
    return _next_users(search, curve) if search.question.in_users else _next_rate(search, curve)


def _next_rate(search: Search, curve: Curve) -> tuple[float, int] | None:
    """As `next_level`, where levels are rates."""
    question = search.question
    highest, best = max(level_of(score.load) for score in search.probes), curve.best_level
    lowest = min(level_of(score.load) for score in search.probes)
    is_far_down = best <= question.least and lowest <= question.least * BOLDEST_DOWN
    if is_far_down or (len(search.probes) >= MAX_QUICK and not search.holds_somewhere):
        return _at_the_least(search, curve)
    if best <= question.least:
        return _level((lowest * question.least) ** 0.5, question), question.quick
    if best > highest * ABOVE:
        return _level(max(min(best, highest * question.growth), highest * LEAST_STEP), question), question.quick
    if not _is_bracketed(search, curve) and len(search.probes) - len(search.thorough) < MAX_QUICK:
        return _level(max(best, lowest / BOLDEST_DOWN), question), question.quick
    near = [score for score in search.thorough if _within(score, best, NEARBY)]
    is_confirmed = any(_within(score, best, CLOSE) for score in near)
    is_spent = len(search.thorough) >= MAX_THOROUGH
    if is_confirmed and (curve.error < KNOWN or is_spent):
        return None
    return _level(best * OFFSETS[len(near) % len(OFFSETS)], question), question.thorough


def _next_users(search: Search, curve: Curve) -> tuple[float, int] | None:
    """As `next_level`, where levels are whole."""
    question = search.question
    likeliest, _ = curve.advice(question.attainment, search.levels(curve))
    seen = [Looked(round(level_of(score.load)), question.is_thorough(score)) for score in search.probes]
    following = next_users(seen, curve, round(likeliest), question.growth)
    if following is None:
        return None
    return float(following.users), question.thorough if following.is_thorough else question.quick


def _at_the_least(search: Search, curve: Curve) -> tuple[float, int] | None:
    """The least level worth having is given up only when it was measured thoroughly, or clearly misses the SLO."""
    question = search.question
    there = [score for score in search.probes if level_of(score.load) <= question.least]
    if any(score in search.thorough for score in there):
        return None
    if there and curve.chance_above(question.least) < HARDLY:
        return None
    return _level(question.least, question), question.thorough if there else question.quick


def _is_bracketed(search: Search, curve: Curve) -> bool:
    """Whether the best level is known roughly, or lies between two probes that are not far from each other."""
    levels, best = [level_of(score.load) for score in search.probes], curve.best_level
    below, above = [level for level in levels if level <= best], [level for level in levels if level > best]
    return curve.error < BRACKETED or (bool(below and above) and min(above) < max(below) * NARROW)


def _is_hopeless(search: Search) -> bool:
    """Whether even the first level, whose whole load would not beat the incumbent, clearly misses the SLO."""
    question, first = search.question, search.probes[0]
    if question.beat_rps <= 0 or len(search.probes) > 1 or first.offered_rps > question.beat_rps * CLOSE:
        return False
    return attainment_upper(first) < question.attainment


def _is_surely_worse(search: Search) -> bool:
    """Whether the server hardly beats the incumbent at any load, as far as its best level is bracketed."""
    curve = search.curve()
    if not search.holds_somewhere or curve.goodput_at_most_rps >= search.question.beat_rps:
        return False
    return _is_bracketed(search, curve)


def attainment_upper(score: Score) -> float:
    """A one-sided 95 % upper bound on attainment, from batch means (requests in a queue are not independent)."""
    if len(score.batch_attainment) < 2:
        return score.attainment if score.stopped else 1.0
    spread = float(np.std(score.batch_attainment, ddof=1)) / len(score.batch_attainment) ** 0.5
    return float(score.attainment + T9_ONE_SIDED * spread)


def _answer(ended: Literal["found", "hopeless"], search: Search) -> Answer:
    curve, probes = search.curve(), tuple(search.probes)
    whole = [score for score in probes if score.stopped is None]
    if not whole or not search.holds_somewhere or _is_too_much(search, curve):
        closest = max(probes, key=lambda score: score.attainment)
        return Answer("hopeless" if ended == "hopeless" else "misses-slo", 0.0, closest, None, probes)
    # What no probe came near is not promised.
    reach = ABOVE * max(level_of(score.load) for score in probes)
    # Nobody runs a server that was given up: the sampler is to know it as it likeliest is.
    given_up = (min(curve.best_level, reach), curve.goodput_rps_within(reach))
    level, goodput_rps = (
        curve.advice(search.question.attainment, search.levels(curve)) if ended == "found" else given_up
    )
    around = level if search.question.in_users else curve.best_level
    best = min(_presentable(whole, search, around), key=lambda score: abs(np.log(level_of(score.load) / around)))
    return Answer(ended, goodput_rps, best, level, probes)


def _is_too_much(search: Search, curve: Curve) -> bool:
    """Whether even the least level misses the SLO; of one user his own requests say it, whatever a curve does."""
    least = search.question.least
    alone = [score for score in search.probes if level_of(score.load) <= least and search.question.in_users]
    counted, good = sum(score.counted for score in alone), sum(score.good for score in alone)
    return curve.best_level < least and (not alone or good < search.question.attainment * counted)


def _presentable(whole: list[Score], search: Search, level: float) -> list[Score]:
    """The probes that may stand for `level`: near it, thorough, with the SLO held, as far as there are any."""
    for wanted in (
        lambda score: _within(score, level, NEARBY),
        lambda score: score in search.thorough,
        lambda score: score.attainment >= search.question.attainment,
    ):
        whole = [score for score in whole if wanted(score)] or whole
    return whole


def _within(score: Score, level: float, factor: float) -> bool:
    return level / factor < level_of(score.load) < level * factor


def _load(level: float, question: Question) -> Load:
    return ClosedLoop(max(1, round(level))) if question.in_users else OpenLoop(level)


def _level(level: float, question: Question) -> float:
    return _rounded(max(level, question.least), question)


def _rounded(level: float, question: Question) -> float:
    """Three significant digits, so that commands and tables can say the level exactly; whole users."""
    return float(max(1, round(level))) if question.in_users else float(f"{level:.3g}")
