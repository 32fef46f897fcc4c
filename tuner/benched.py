"""Benched: what the finished probes of a bench say of its server. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tuner.benchorder import Bench
from tuner.configuration import Configuration
from tuner.curve import level_of
from tuner.finished import Finished, watch_lines
from tuner.goodput import LEAST_ATTAINMENT, NEARBY, Answer, at_one_load, worth
from tuner.latencies import Percentiles
from tuner.outcome import Cost, Outcome
from tuner.score import Score
from tuner.target import Load
from tuner.trial import measured, question_of

CutBy = Literal["user", "server", "client"]
"""Who ended a bench before its time: Ctrl-C (or TERM); a server that died; a client that was too slow for it."""


@dataclass(frozen=True)
class Cut:
    """A bench that ended before its time: by whom, why, and at which load; None: before any was offered."""

    by: CutBy
    why: str
    load: Load | None = None


@dataclass(frozen=True)
class Benched:
    """What was found. `outcome` is like that of a trial, every probe at a load among its probes.

    `best` is the probe that stands for the server, and whose goodput is the server's: of a search the one of most
    goodput that holds the SLO and lies where the curve does; where none holds, the closest. `fitted` is the level
    to recommend by the curve, `edge` the highest level that holds, by it or by `best`: both None where no load
    above `best` missed the SLO, so that nobody knows, and where no load was searched or holds.
    """

    outcome: Outcome
    best: Score | None = None
    edge: float | None = None
    fitted: float | None = None
    probes: tuple[Finished, ...] = ()
    cut: Cut | None = None

    @property
    def watch(self) -> tuple[str, ...]:
        """What a reader should know of its probes."""
        return watch_lines(self.probes)

    def own_itl_s(self, score: Score) -> Percentiles | None:
        """Of the probe with this score."""
        return next((probe.own_itl_s for probe in self.probes if probe.score == score), None)


def benched(order: Bench, engine: str, answer: Answer, probes: Sequence[Finished]) -> Benched:
    """What `answer`, found by `probes`, says."""
    outcome = measured(_blank(order, engine), answer, Cost(), order.slo.limits)
    found = Benched(outcome, answer.best, probes=tuple(probes))
    if not outcome.holds_slo or answer.edge is None:
        return found
    best = answer.best if order.is_ramp else _standing(order, answer)
    assert best is not None, "where the SLO is held, a probe held it"
    found = replace(found, best=best)
    if not _is_missed_above(best, answer.probes, order.slo.attainment):
        return found
    return replace(found, edge=max(answer.edge, level_of(best.load)), fitted=answer.edge)


def concluded(order: Bench, engine: str, probes: Sequence[Finished]) -> Benched:
    """What these probes, in order, say of the server; no best where that is nothing. A ramp is whole, or nothing."""
    at_loads = [probe.score for probe in probes if probe.stage not in {"idle", "ramp"}]
    if at_loads and not order.is_search:
        return benched(order, engine, at_one_load(at_loads[-1], order.slo.attainment), probes)
    if at_loads:
        return benched(order, engine, worth(at_loads, question_of(order.slo, order.workload, order.gpus)), probes)
    if probes and order.load is None and cannot_hold(order, probes[-1].score):
        return benched(order, engine, missed(probes[-1].score), probes)
    return Benched(_blank(order, engine), probes=tuple(probes))


def cannot_hold(order: Bench, idle: Score) -> bool:
    """Whether so many requests miss the SLO although they are alone that no load need be tried."""
    return idle.attainment < min(order.slo.attainment, LEAST_ATTAINMENT)


def missed(idle: Score) -> Answer:
    """The answer where lonely requests miss the SLO."""
    return Answer("misses-slo", 0.0, idle, None, (idle,))


def good_rps(score: Score) -> float:
    """Good requests per second to expect at its load, by its share of good ones."""
    return score.attainment * score.offered_rps


def came_rps(score: Score) -> float | None:
    """Requests per second that were due in its window, of which `goodput_rps` were good; None where none was."""
    return score.goodput_rps / score.attainment if score.attainment else None


def _standing(order: Bench, answer: Answer) -> Score:
    """The whole probe of most goodput that holds the SLO: near the level that the curve recommends and thorough, as
    far as there are any, and not above it, for a lucky window is no reason to promise more."""
    assert answer.edge is not None
    question, edge = question_of(order.slo, order.workload, order.gpus), answer.edge
    holding = [one for one in answer.probes if one.attainment >= question.attainment]
    held = [one for one in holding if one.stopped is None] or holding
    held = [one for one in held if level_of(one.load) < NEARBY * edge] or held
    held = [one for one in held if level_of(one.load) > edge / NEARBY] or held
    if level_of(held[0].load) > edge / NEARBY:
        held = [one for one in held if question.is_thorough(one)] or held
    return max(held, key=good_rps)


def _is_missed_above(best: Score, probes: Sequence[Score], wanted: float) -> bool:
    """Whether a load above that of `best` misses the SLO, or has less goodput where any share of requests will do."""
    above = [one for one in probes if level_of(one.load) > level_of(best.load)]
    return any(one.attainment < wanted or (wanted <= 0 and good_rps(one) < good_rps(best)) for one in above)


def _blank(order: Bench, engine: str) -> Outcome:
    return Outcome(0, Configuration(engine, {"tp": order.gpus}), (), "measured")
