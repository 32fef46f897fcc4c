"""Trial: one configuration, measured by as many probes as it deserves. Here failures become outcomes."""

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from launchers.command import command_of
from launchers.open import LOG_NAME, open_target
from tuner.answers import check_answers
from tuner.capacity import capacity
from tuner.config.plan import Plan
from tuner.config.slo import Limits, Slo
from tuner.config.workload import Workload
from tuner.configuration import Configuration
from tuner.errors import Interrupted, MeasurementVoid, ServerFailed
from tuner.events import Listener, Note, ProbeProgress, StageEntered
from tuner.goodput import LEAST_ATTAINMENT, Answer, Question, at_one_load, find_goodput
from tuner.horizon import MOST_WINDOWS, needed_requests
from tuner.idle import missed_when_idle
from tuner.mishaps import mishaps, silence
from tuner.outcome import Cost, Failure, Outcome, TrialState
from tuner.probe import Prober
from tuner.ramp import best_step
from tuner.rawlog import write_metrics, write_requests
from tuner.record import trial_folder
from tuner.requestlog import RequestLog
from tuner.score import Score, answers_of, score
from tuner.seeds import Purpose, derive
from tuner.stretch import needed_scale
from tuner.taken import as_taken
from tuner.target import ClosedLoop, Load, OpenLoop, Target

FIRST_GROWTH, LATER_GROWTH = 4.0, 1.3
# A thorough probe of the search is to see so many misses where the SLO just holds.
MISSES_TO_SEE, LEAST_THOROUGH, MOST_THOROUGH = 20, 560, 2000
# At a free peak an error of attainment is one of goodput.
PEAK_THOROUGH = 1200
LEAST_QUICK, MOST_QUICK = 100, 200
OFFLINE_REQUESTS = 1000
# In virtual time: an engine reads its weights before it finds out that memory is short. An assumption.
FAILED_START_S = 30.0


@dataclass(frozen=True)
class TrialOrder:
    """What to measure and on which GPUs. `incumbent_rps_per_gpu`: the best goodput so far, 0 where there is none."""

    plan: Plan
    trial: int
    configuration: Configuration
    gpus: tuple[int, ...]
    incumbent_rps_per_gpu: float = 0.0


def run_trial(order: TrialOrder, listener: Listener) -> Outcome:
    """Start a server, search its load, stop it. Returns an outcome whatever becomes of the server.

    Raises only what ends the study: KeyboardInterrupt, and UserError.
    """
    plan = order.plan
    blank = Outcome(order.trial, order.configuration, command_of(plan, order.configuration), "failed")
    probers: list[Prober] = []
    startup_s, started_s = 0.0, time.perf_counter()
    listener(StageEntered(order.trial, "starting"))
    try:
        with open_for(order) as target:
            startup_s = target.clock_s()
            blank = _as_taken(blank, plan, target, listener)
            probers.append(prober_for(order, target, listener))
            answer = search_load(order, probers[0], listener)
            cost = Cost(startup_s, target.clock_s() - startup_s)
            listener(StageEntered(order.trial, "stopping"))
        _tell_mishaps(order, probers[0], listener)
        found = measured(blank, answer, cost, plan.slo.limits)
        return replace(found, needed_scale=_needed_scale(found, probers[0], plan.slo))
    except ServerFailed as failed:
        probes = tuple(one.score for prober in probers for one in prober.recorded)
        cost = _cost_until_now(order, probers, startup_s, started_s)
        state: TrialState = "failed" if failed.kind.is_box_fault else "infeasible"
        return replace(blank, state=state, failure=failure_of(failed), probes=probes, cost=cost)
    except MeasurementVoid as void:
        cost = _cost_until_now(order, probers, startup_s, started_s)
        return replace(blank, failure=Failure("void", str(void)), cost=cost)
    except KeyboardInterrupt as stop:
        cost, gpus = _cost_until_now(order, probers, startup_s, started_s), order.configuration.gpus
        raise Interrupted(cost.startup_s * gpus, cost.measuring_s * gpus) from stop
    finally:
        for prober in probers:
            _keep(order, prober, listener)


def failure_of(failed: ServerFailed) -> Failure:
    """The failure of a server, as it is stored."""
    log = str(failed.log) if failed.log else None
    return Failure(failed.kind, failed.message, failed.fault.evidence, log, failed.fault.before)


def _keep(order: TrialOrder, prober: Prober, listener: Listener) -> None:
    """Write the raw timings. Without room for them the outcome, which is small, may still find some."""
    folder = trial_folder(order.plan.out, order.trial)
    try:
        write_requests(
            folder / "requests.parquet", prober.recorded, with_chunks=order.plan.box.simulation != "virtual"
        )
        write_metrics(folder / "metrics.parquet", prober.recorded)
    except OSError as error:
        listener(Note(f"t{order.trial}: its raw timings could not be kept in {folder}: {error.strerror or error}"))


def _as_taken(blank: Outcome, plan: Plan, target: Target, listener: Listener) -> Outcome:
    """`blank` with what the server says of itself: an engine's default is what it does, not what its file says."""
    spec = next(spec for spec in plan.engines if spec.name == blank.configuration.engine)
    facts = target.facts()
    taken = as_taken(spec, blank.configuration, plan.box.gpu, facts)
    for note in taken.notes:
        listener(Note(f"t{blank.trial}: {note}"))
    return replace(blank, configuration=taken.configuration, facts=facts)


def open_for(order: TrialOrder) -> AbstractContextManager[Target]:
    """The server of this trial, started; its log and raw timings go to the trial's folder."""
    return open_target(order.plan, order.configuration, order.gpus, trial_folder(order.plan.out, order.trial))


def prober_for(order: TrialOrder, target: Target, listener: Listener) -> Prober:
    """Measures `target` under the study's workload and SLO, telling `listener` how it goes."""
    plan = order.plan

    def watcher(load: Load, done_frac: float, log: RequestLog) -> None:
        listener(ProbeProgress(order.trial, load, done_frac, score(log, load, plan.slo.limits)))

    watched = watcher if plan.box.simulation != "virtual" else None
    return Prober(target, plan.workload, plan.slo, derive(plan.seed, Purpose.SEARCH), watcher=watched)


def _tell_mishaps(order: TrialOrder, prober: Prober, listener: Listener) -> None:
    said = [f"t{order.trial}: {mishap.text}" for mishap in mishaps(prober.recorded)]
    # Once for each engine: its default is measured before anything else.
    if order.configuration.is_default and order.plan.box.simulation != "virtual":
        said += [mishap.text for mishap in silence(order.configuration.engine, prober.recorded)]
    for text in said:
        listener(Note(text))


def _needed_scale(found: Outcome, prober: Prober, slo: Slo) -> float | None:
    """By the answers of its best probe, where it does not hold the SLO; a step of a ramp has none of its own."""
    log = next((one.log for one in prober.recorded if one.score == found.best), None)
    if found.holds_slo or found.best is None or log is None:
        return None
    return needed_scale(answers_of(log, found.best.load), slo)


def _cost_until_now(order: TrialOrder, probers: Sequence[Prober], startup_s: float, started_s: float) -> Cost:
    """What a trial had cost when it failed: on the target's clock, on ours if there was no target yet."""
    if probers:
        return Cost(startup_s, probers[0].target.clock_s() - startup_s)
    if order.plan.box.simulation == "virtual":
        return Cost(startup_s=FAILED_START_S)
    return Cost(startup_s=time.perf_counter() - started_s)


def search_load(order: TrialOrder, prober: Prober, listener: Listener) -> Answer:
    """What the server of this trial is worth, by the way its workload offers load."""
    attainment = order.plan.slo.attainment
    if order.plan.workload.arrivals.kind == "at_once":
        offline = prober.all_at_once(OFFLINE_REQUESTS)
        _check_answers(order, prober)
        return at_one_load(offline, attainment)
    if order.incumbent_rps_per_gpu <= 0 or order.plan.workload.arrivals.kind == "closed":
        listener(StageEntered(order.trial, "warming"))
        idle = prober.idle()
        _check_answers(order, prober)
        if idle.attainment < attainment:
            missed = missed_when_idle(prober.recorded[-1], order.plan.slo.limits)
            listener(Note(f"t{order.trial}: {missed}"))
        if idle.attainment < min(attainment, LEAST_ATTAINMENT):
            return Answer("misses-slo", 0.0, idle, None, (idle,))

    def probe(load: Load, counted: int) -> Score:
        listener(StageEntered(order.trial, "probing", load))
        found = prober.measure(load, counted)
        _check_answers(order, prober)
        return found

    match load := given_load(order.plan.workload):
        case ClosedLoop():
            listener(StageEntered(order.trial, "probing", load))
            steps = prober.ramp(load)
            _check_answers(order, prober)
            return best_step(steps, attainment)
        case OpenLoop():
            return at_one_load(probe(load, order.plan.slo.deciding_requests), attainment)
    incumbent = order.incumbent_rps_per_gpu
    gpus = order.configuration.gpus
    return find_goodput(question_of(order.plan.slo, order.plan.workload, gpus, prober.idle_e2e_s, incumbent), probe)


def _check_answers(order: TrialOrder, prober: Prober) -> None:
    """Raise ServerFailed where the last probe had no answer as it should be."""
    check_answers(prober.recorded[-1].log, trial_folder(order.plan.out, order.trial) / LOG_NAME)


def given_load(workload: Workload) -> Load | None:
    """The load that the workload says to offer: a ramp, or its trace at a given speed; None: it is to be searched."""
    arrivals = workload.arrivals
    if arrivals.ramp:
        return ClosedLoop(arrivals.ramp.users, arrivals.ramp.every_s)
    if arrivals.speed and workload.trace_rate_rps:
        return OpenLoop(arrivals.speed * workload.trace_rate_rps)
    return None


def question_of(
    slo: Slo, workload: Workload, gpus: int, idle_e2e_s: float = math.inf, incumbent_rps_per_gpu: float = 0.0
) -> Question:
    """What is asked of a server of `gpus`.

    To begin where the incumbent's goodput would have to be beaten, else at what one lonely request's time allows.
    """
    thorough = _thorough(slo)
    if workload.arrivals.kind == "closed":
        return Question(
            slo.attainment,
            thorough,
            start=1.0,
            least=1.0,
            # As many as come in the SLO's window.
            quick=0,
            growth=FIRST_GROWTH,
            in_users=True,
            deciding=needed_requests(slo, ClosedLoop(1)),
            whole_s=slo.window_s,
            longest_s=MOST_WINDOWS * slo.window_s,
        )
    least, hint = slo.min_rate_rps_per_gpu * gpus, incumbent_rps_per_gpu * gpus
    start, growth = (hint, LATER_GROWTH) if hint > 0 else (2.0 / idle_e2e_s, FIRST_GROWTH)
    return Question(
        slo.attainment,
        thorough,
        start=max(start, least),
        least=least,
        quick=min(max(LEAST_QUICK, thorough // 5), MOST_QUICK),
        growth=growth,
        beat_rps=hint,
        deciding=slo.deciding_requests,
        whole_s=slo.window_s,
    )


def _thorough(slo: Slo) -> int:
    """The requests that a thorough probe counts."""
    if slo.attainment <= 0:
        return PEAK_THOROUGH
    return min(max(LEAST_THOROUGH, round(MISSES_TO_SEE / (1 - slo.attainment))), MOST_THOROUGH)


def measured(blank: Outcome, answer: Answer, cost: Cost, limits: Limits) -> Outcome:
    """`blank` with what a search of its load found."""
    kept_up = capacity(answer.probes, limits)
    return replace(
        blank,
        state="pruned" if answer.ended == "hopeless" else "measured",
        probes=answer.probes,
        value_rps_per_gpu=answer.goodput_rps / blank.configuration.gpus,
        best=answer.best,
        capacity_rps=kept_up.rate_rps if kept_up else None,
        capacity_by=kept_up.by if kept_up else None,
        capacity_is_least=kept_up is None or kept_up.is_least,
        cost=cost,
    )
