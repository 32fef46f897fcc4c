"""Confirm: has the default and the best challenger measured again on fresh seeds, taking turns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tuner import record
from tuner.config.plan import Plan
from tuner.curve import level_of
from tuner.errors import MeasurementVoid, ServerFailed
from tuner.evaluate import Evaluator, plan_visits
from tuner.events import ConfirmProgress, Listener, Note
from tuner.finalists import Finalist, next_cells, usual_variance, value_of
from tuner.finalruns import FinalistRun
from tuner.finalvalue import ENOUGH_SEEDS, Value
from tuner.horizon import needed_requests
from tuner.outcome import Outcome
from tuner.pause import paused_by
from tuner.target import OpenLoop
from tuner.trial import TrialOrder, failure_of


@dataclass(frozen=True)
class Confirmation:
    """What is confirmed: finished trials by number, the windows measured so far (added to), and how many seeds."""

    plan: Plan
    outcomes: Mapping[int, Outcome]
    runs: list[FinalistRun]
    seeds: int


def confirm(work: Confirmation, evaluate: Evaluator, listener: Listener) -> None:
    """Measure the finalists until their edges are bracketed. A server that fails, or a client that is late
    twice, ends it with a note: the verdict then rests on what there is.

    What the box spoils is tried once more, else StudyPaused is raised.
    """
    spoilt, known = 0, len(work.runs)
    while True:
        try:
            _measure_finalists(work, evaluate, listener)
            return
        except ServerFailed as failed:
            listener(Note(f"a finalist could not be measured again: {failed}", failed.log))
            if not failed.kind.is_box_fault:
                return
            spoilt = spoilt + 1 if len(work.runs) == known else 1
            known = len(work.runs)
            if spoilt > 1:
                raise paused_by(failure_of(failed), spoilt, work.plan.out) from failed
        except MeasurementVoid as void:
            listener(Note(f"a finalist could not be measured again: {void}"))
            return


def _measure_finalists(work: Confirmation, evaluate: Evaluator, listener: Listener) -> None:
    plan = work.plan
    chosen = finalists(plan, work.outcomes)
    orders = {
        one.trial: TrialOrder(plan, one.trial, work.outcomes[one.trial].configuration, plan.box.gpus[: one.gpus])
        for one in chosen
    }
    while cells := [cell for one in chosen for cell in next_cells(one, work.runs, work.seeds, plan.slo.attainment)]:
        if plan.budget_s is not None and _spent_s(work) >= plan.budget_s:
            listener(Note(f"the budget is spent: {len(cells)} more windows would have narrowed the verdict"))
            return
        total = len(work.runs) + len(cells)
        for run in evaluate.visits(plan_visits(cells, orders), listener):
            record.append_run(plan.out, run)
            work.runs.append(run)
            listener(ConfirmProgress(len(work.runs), total, f"t{run.trial}"))


def finalists(plan: Plan, outcomes: Mapping[int, Outcome]) -> list[Finalist]:
    """The best default and the best other configuration.

    The other one must have held the SLO. Beside it the default is measured again even if it did not: at the lowest
    load that its search tried, so that nobody has to take one seed's word for it.
    """
    others = [one for one in outcomes.values() if not one.configuration.is_default and one.competes]
    defaults = [one for one in outcomes.values() if one.configuration.is_default and one.competes]
    if defaults or not others:
        return [_finalist(plan, best_of(group)) for group in (defaults, others) if group]
    return [*_failed_default(plan, outcomes), _finalist(plan, best_of(others))]


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of highest goodput; the earlier one of two equals."""
    return max(outcomes, key=lambda one: (one.value_rps_per_gpu, -one.trial))


def values_of(plan: Plan, outcomes: Mapping[int, Outcome], runs: Sequence[FinalistRun]) -> dict[int, Value]:
    """What the fresh runs say of every finalist that has some, by trial."""
    measured = {run.trial for run in runs}
    return {
        one.trial: value_of(one, runs, plan.slo.attainment)
        for one in finalists(plan, outcomes)
        if one.trial in measured
    }


def _spent_s(work: Confirmation) -> float:
    """Seconds on the target's clock, search and confirmation together."""
    searching = sum(one.cost.total_s for one in work.outcomes.values())
    return searching + sum(run.startup_s + run.measuring_s for run in work.runs)


def _finalist(plan: Plan, outcome: Outcome) -> Finalist:
    assert outcome.best, "a trial that holds the SLO has a best probe"
    level, gpus = level_of(outcome.best.load), outcome.configuration.gpus
    counted, usual = needed_requests(plan.slo, outcome.best.load), usual_variance(plan.workload)
    match plan.workload.arrivals.kind:
        case "closed":
            turn_s = level / outcome.best.request_rps
            return Finalist(outcome.trial, level, gpus, "users", counted=counted, usual_variance=usual, turn_s=turn_s)
        case "at_once":
            return Finalist(outcome.trial, level, gpus, steps="none")
        case "trace" if plan.workload.arrivals.speed:
            return Finalist(outcome.trial, level, gpus, steps="none", counted=counted)
        case _:
            return Finalist(outcome.trial, level, gpus, counted=counted, usual_variance=usual)


def _failed_default(plan: Plan, outcomes: Mapping[int, Outcome]) -> list[Finalist]:
    """A default that was measured and held the SLO nowhere, with the lowest open load it was measured at.

    At a load so low requests take long to come: the seeds together count as many as decide, not each of them.
    """
    lowest = [
        (probe.load.rate_rps, one)
        for one in outcomes.values()
        if one.configuration.is_default and one.state == "measured"
        for probe in one.probes
        if isinstance(probe.load, OpenLoop)
    ]
    if not lowest:
        return []
    rate_rps, default = min(lowest, key=lambda pair: pair[0])
    counted = math.ceil(plan.slo.deciding_requests / ENOUGH_SEEDS)
    steps: Literal["rate", "none"] = "none" if plan.workload.arrivals.speed else "rate"
    usual = usual_variance(plan.workload)
    return [Finalist(default.trial, rate_rps, default.configuration.gpus, steps, rate_rps, counted, usual)]
