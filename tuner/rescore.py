"""Rescore: a study's raw timings under another SLO, without a server.

Every probe is judged anew by the rules of `score`, and every trial, finalist and verdict by those of a study. What
the study never looked at stays unknown, and is said: a probe that was stopped early counts only where the new SLO
would have stopped it by then too, and a load that nobody offered is not invented. A probe that ran on counts whole,
even where the new SLO would have stopped it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pyarrow import ArrowException

from tuner import record
from tuner.conclude import conclude, fresh_point
from tuner.config.plan import Plan
from tuner.config.slo import Slo
from tuner.confirm import finalists, values_of
from tuner.curve import level_of
from tuner.errors import ConfigError
from tuner.finalruns import FinalistRun
from tuner.finalvalue import ENOUGH_SEEDS
from tuner.goodput import (
    LEAST_ATTAINMENT,
    MAX_PROBES,
    NEARBY,
    Answer,
    Search,
    at_one_load,
    next_level,
    worth,
)
from tuner.outcome import Outcome
from tuner.probe import tolerated
from tuner.rawlog import RawProbe, read_probes
from tuner.requestlog import Status
from tuner.score import Score, bad_answers, scored_again
from tuner.stretch import needed_scale
from tuner.summary import Point, Session, Summary
from tuner.target import ClosedLoop, OpenLoop
from tuner.trial import measured, question_of

# Windows for a smaller share of the requests that the new attainment needs do not say whether it holds.
ENOUGH = 0.8


@dataclass(frozen=True)
class Scope:
    """What a re-scoring rests on. `was`: the SLO the study was measured for.

    `probes` of the search were used, on `loads_per_gpu` (lowest, highest; None where there was none); `unusable` ones
    were stopped before they showed what the new SLO asks. `windows` of finalists were used. `open_ended`: trials
    that may be worth more under the new SLO than the best, at loads that the study did not offer.
    """

    was: Slo
    probes: int
    unusable: int
    windows: int
    loads_per_gpu: tuple[float, float] | None
    open_ended: tuple[int, ...]


@dataclass(frozen=True)
class Rescored:
    """A study as its raw timings would have it under another SLO. `plan` has that SLO; `runs` are the finalists'."""

    plan: Plan
    outcomes: tuple[Outcome, ...]
    runs: tuple[FinalistRun, ...]
    summary: Summary
    scope: Scope


def rescore(study: Path, slo: Slo) -> Rescored:
    """The study in the folder `study` under `slo`; reads only. Raises ConfigError where its files do not suffice."""
    before, told = record.read_plan(study), record.read_summary(study)
    if before.workload.arrivals.ramp:
        raise ConfigError(f"{study}: its users joined one by one, and such a ramp cannot be scored again")
    plan = replace(before, slo=slo, typed=())
    trials = [_trial(plan, outcome) for outcome in record.read_outcomes(study)]
    outcomes = {trial.outcome.trial: trial.outcome for trial in trials}
    runs = long_enough([_run(study, run, slo) for run in record.read_runs(study)], outcomes, slo)
    sessions = record.read_sessions(study) or [Session(told.cost.wall_s)]
    summary = conclude(plan, outcomes, runs, sessions, interrupted=False)
    summary = replace(summary, default=summary.default or _default_at_least(plan, outcomes, runs))
    open_ended = _open_ended(plan, trials, summary)
    loads = [
        level_of(probe.load) / trial.outcome.configuration.gpus for trial in trials for probe in trial.outcome.probes
    ]
    scope = Scope(
        was=before.slo,
        probes=len(loads),
        unusable=sum(trial.unusable for trial in trials),
        windows=len(runs),
        loads_per_gpu=(min(loads), max(loads)) if loads else None,
        open_ended=open_ended,
    )
    summary = _honest(summary, plan, outcomes, runs, open_ended)
    return Rescored(plan, tuple(outcomes.values()), tuple(runs), summary, scope)


def rescored_from(folder: Path) -> str | None:
    """The folder that a stored re-scoring, of a study or of a bench, was made from; None where it is none."""
    path = folder / "summary.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: it cannot be read: {error}") from error
    return str(told["rescored"]["dir"]) if "rescored" in told else None


@dataclass(frozen=True)
class _Trial:
    """`at_most_rps_per_gpu`: what the trial could be worth at loads that were not offered, inf where nothing bounds
    it. None where it is known: it was measured to its edge, or says nothing."""

    outcome: Outcome
    unusable: int
    at_most_rps_per_gpu: float | None


def _trial(plan: Plan, outcome: Outcome) -> _Trial:
    if not outcome.probes:
        return _Trial(outcome, 0, None)
    raw = _paired(plan.out, outcome)
    usable = [(found, one) for found, one in zip(outcome.probes, raw, strict=True) if is_usable(one, plan.slo)]
    scores = [scored_again(found, one.answers, plan.slo.limits) for found, one in usable]
    unusable = len(raw) - len(usable)
    if outcome.state not in {"measured", "pruned"}:
        return _Trial(replace(outcome, probes=tuple(scores)), unusable, None)
    if not scores:
        unknown = replace(outcome, state="pruned", probes=(), value_rps_per_gpu=0.0, best=None, capacity_rps=None)
        return _Trial(unknown, unusable, math.inf)
    found = measured(outcome, _answer(plan, outcome, scores), outcome.cost, plan.slo.limits)
    best = next((one for score, (_, one) in zip(scores, usable, strict=True) if score == found.best), None)
    is_short = best is not None and not found.holds_slo
    found = replace(found, needed_scale=needed_scale(best.answers, plan.slo) if best and is_short else None)
    return _Trial(replace(found, state=outcome.state), unusable, _at_most(plan, found, scores))


def is_usable(probe: RawProbe, slo: Slo) -> bool:
    """Whether a stored probe says what one under `slo` would: it ran on, or would have been stopped too."""
    if probe.is_whole:
        return True
    if not isinstance(probe.load, OpenLoop) or slo.attainment <= 0:
        return False
    ended = probe.counted & (probe.status != Status.UNFOLLOWED)
    bad = int((bad_answers(probe.answers, slo.limits) & ended).sum())
    return bad > tolerated(slo, probe.load.rate_rps * probe.planned_s)


def _paired(study: Path, outcome: Outcome) -> list[RawProbe]:
    """The stored probes that an outcome's scores are of: those of its search, or all where the idle one was all."""
    path = record.trial_folder(study, outcome.trial) / "requests.parquet"
    stored = stored_probes(path)
    searched = [one for one in stored if one.stage == "search"]
    for candidates in (searched, stored):
        if [one.load for one in candidates] == [found.load for found in outcome.probes]:
            return candidates
    raise ConfigError(f"{path}: it holds other probes than outcome.json beside it")


def stored_probes(path: Path) -> list[RawProbe]:
    """The probes in a file of raw timings. Raises ConfigError."""
    try:
        return read_probes(path)
    except (OSError, ArrowException) as error:
        raise ConfigError(f"{path}: the raw timings cannot be read: {error}") from error


def _answer(plan: Plan, outcome: Outcome, scores: list[Score]) -> Answer:
    """What a server is worth, as `trial` would say of these probes."""
    slo, kind, only = plan.slo, plan.workload.arrivals.kind, scores[0]
    if _is_idle(plan, scores):
        return Answer("misses-slo", 0.0, only, None, (only,))
    if kind == "at_once" or plan.workload.arrivals.speed:
        return at_one_load(only, slo.attainment)
    question = question_of(slo, plan.workload, outcome.configuration.gpus)
    return worth(scores, question, given_up=outcome.state == "pruned")


def _is_idle(plan: Plan, scores: Sequence[Score]) -> bool:
    """Whether one lonely request at a time was all that was measured."""
    return plan.workload.arrivals.kind not in {"closed", "at_once"} and isinstance(scores[0].load, ClosedLoop)


def _at_most(plan: Plan, outcome: Outcome, scores: list[Score]) -> float | None:
    """Goodput per GPU that the server hardly exceeds at any load, by its probes. None where a search would end."""
    kind, gpus = plan.workload.arrivals.kind, outcome.configuration.gpus
    if kind == "at_once":
        return None
    if _is_idle(plan, scores):
        misses = scores[0].attainment < min(plan.slo.attainment, LEAST_ATTAINMENT)
        return None if misses else math.inf
    search = Search(question_of(plan.slo, plan.workload, gpus), scores)
    if plan.workload.arrivals.speed or len(scores) >= MAX_PROBES or next_level(search) is None:
        return None
    return search.curve().goodput_at_most_rps / gpus


def _run(study: Path, run: FinalistRun, slo: Slo) -> tuple[FinalistRun, float]:
    """A finalist's window under `slo`, and how many requests it was expected to hold."""
    path = record.trial_folder(study, run.trial) / "confirm" / f"seed{run.replicate}-load{run.rate:g}.parquet"
    raw = next((one for one in stored_probes(path) if one.load == run.score.load and one.stage == "confirm"), None)
    if raw is None:
        raise ConfigError(f"{path}: it does not hold the window that finalists.jsonl speaks of")
    expected = raw.load.rate_rps * raw.planned_s if isinstance(raw.load, OpenLoop) else math.inf
    return replace(run, score=scored_again(run.score, raw.answers, slo.limits)), expected


def long_enough(
    windows: Sequence[tuple[FinalistRun, float]], outcomes: Mapping[int, Outcome], slo: Slo
) -> list[FinalistRun]:
    """The windows of levels whose windows are to hold as many requests as the attainment needs: each, or a failed
    default's seeds together. Each comes with how many it was expected to hold, inf where users decide that.

    Levels are kept whole, by what was expected of them: seeds kept by what happened to come would be kept by luck.
    """
    shortest: dict[tuple[int, float], float] = {}
    for run, expected in windows:
        level = (run.trial, run.rate)
        shortest[level] = min(expected, shortest.get(level, math.inf))

    def needed(run: FinalistRun) -> float:
        return ENOUGH * slo.deciding_requests / (1 if outcomes[run.trial].competes else ENOUGH_SEEDS)

    return [run for run, _ in windows if shortest[run.trial, run.rate] >= needed(run)]


def _open_ended(plan: Plan, trials: Sequence[_Trial], summary: Summary) -> tuple[int, ...]:
    """Trials that could be worth clearly more than the best, or than the least worth having where there is none.

    A finalist whose fresh windows found its edge is known, whatever its search left open.
    """
    points = [point for point in (summary.best, summary.default) if point]
    leads = {point.trial for point in points if point.ci95}
    searched = [trial.outcome.value_rps_per_gpu for trial in trials if trial.outcome.competes]
    known = [plan.slo.min_rate_rps_per_gpu, *searched, *(point.goodput_rps_per_gpu for point in points)]
    return tuple(
        trial.outcome.trial
        for trial in trials
        if trial.at_most_rps_per_gpu is not None and trial.outcome.trial not in leads
        if trial.at_most_rps_per_gpu > NEARBY * max(known)
    )


def _honest(
    summary: Summary,
    plan: Plan,
    outcomes: Mapping[int, Outcome],
    runs: Sequence[FinalistRun],
    open_ended: Sequence[int],
) -> Summary:
    """The summary without what the measured loads cannot carry."""
    if why := _why_unconfirmed(plan, outcomes, runs):
        return replace(summary, verdict="inconclusive", how_sure="low", why=why, gain=None)
    if not open_ended:
        return summary
    names = _names(open_ended)
    if summary.verdict == "deploy":
        why = f"{summary.why}; {names} may be better still, at loads that were not measured"
        return replace(summary, how_sure="medium" if summary.how_sure == "high" else summary.how_sure, why=why)
    if summary.verdict in {"keep-default", "nothing-meets-slo"}:
        why = f"not bracketed: the measured loads do not reach the edge of {names}"
        return replace(summary, verdict="inconclusive", how_sure="low", why=why)
    return summary


def _default_at_least(plan: Plan, outcomes: Mapping[int, Outcome], runs: Sequence[FinalistRun]) -> Point | None:
    """A default whose fresh windows hold the new SLO at every load they have, though its search held it nowhere."""
    held = [
        fresh_point(outcomes[trial], value, runs)
        for trial, value in values_of(plan, outcomes, runs).items()
        if value.holds and not value.is_settled and outcomes[trial].configuration.is_default
    ]
    return replace(held[0], ci95=None) if held else None


def _why_unconfirmed(plan: Plan, outcomes: Mapping[int, Outcome], runs: Sequence[FinalistRun]) -> str | None:
    """Which finalist's fresh windows do not say what it is worth; None where they all do."""
    values = values_of(plan, outcomes, runs)
    for one in finalists(plan, outcomes):
        if one.trial not in values and outcomes[one.trial].competes:
            return f"{_names([one.trial])} has no fresh windows that could confirm it under this SLO"
        if one.trial in values and not values[one.trial].is_settled:
            return f"not bracketed: the measured loads of {_names([one.trial])} do not reach its edge"
    return None


def _names(trials: Sequence[int]) -> str:
    shown = [f"t{trial}" for trial in trials[:4]]
    more = f" and {len(trials) - 4} others" if len(trials) > 4 else ""
    return ", ".join(shown) + more
