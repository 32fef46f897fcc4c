"""Study: asks Optuna for configurations, has them measured, tells what came of it, has finalists confirmed."""

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from launchers.vacancy import remains
from tuner import record
from tuner.conclude import conclude
from tuner.config.plan import Plan
from tuner.configuration import Configuration
from tuner.confirm import Confirmation, best_of, confirm
from tuner.errors import BoxUnusable, FailureKind, Interrupted
from tuner.evaluate import Evaluator, evaluator
from tuner.events import Listener, Note, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from tuner.finalruns import FinalistRun
from tuner.outcome import Outcome
from tuner.pause import ADVICE, check_room, check_something_starts, paused, paused_by
from tuner.predict import compared
from tuner.search import parameters, sampler, suggest, tell
from tuner.seeds import Purpose, derive
from tuner.space import Space, spaces_of
from tuner.storage import open_study, reached, refuse_lost_trials, refuse_taken_name
from tuner.summary import Session, Summary
from tuner.trial import TrialOrder

# Trials asked for together in virtual time. Fixed, so that a study does not depend on the number of workers.
BATCH = 8
# The share of a time budget that the search may use; the rest is for the finalists.
SEARCH_SHARE = 0.7
# So many trials in a row that were spoilt by whomever, and the study pauses.
SPOILT_IN_A_ROW = 3


@dataclass
class Progress:
    """What is known so far: finished trials by number, and the finalists' windows."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    runs: list[FinalistRun] = field(default_factory=list)

    @property
    def best(self) -> Outcome | None:
        """The measured trial of highest goodput; the earlier one of two equals."""
        competing = [outcome for outcome in self.outcomes.values() if outcome.competes]
        return best_of(competing) if competing else None

    @property
    def best_rps_per_gpu(self) -> float:
        """Its goodput; 0 where nothing has held the SLO."""
        return self.best.value_rps_per_gpu if self.best else 0.0

    @property
    def default(self) -> Outcome | None:
        """The best of the engines' defaults."""
        defaults = [outcome for outcome in self.outcomes.values() if outcome.configuration.is_default]
        return best_of(defaults) if defaults else None

    def spent_s(self) -> float:
        """Seconds on the target's clock, trials one after the other."""
        return sum(outcome.cost.total_s for outcome in self.outcomes.values())


@dataclass(frozen=True)
class StudyOptions:
    """How a study is run, as opposed to what it does: `workers` processes where time is virtual.

    Once `enough` is set no other trial is begun; the finalists are measured, and the study concludes as ever.
    """

    workers: int = 1
    resume: bool = False
    seeds: int = 5
    enough: threading.Event = field(default_factory=threading.Event)


def run_study(plan: Plan, options: StudyOptions, listener: Listener) -> Summary:
    """The whole study. Interrupted (KeyboardInterrupt), it concludes from what it has and says so.

    Raises UserError if the folder, the storage or the box cannot be used; StudyPaused when it has concluded from what
    it has because of the box.
    """
    if not options.resume:
        refuse_taken_name(plan)
    record.prepare(plan.out, resume=options.resume)
    with record.locked(plan.out):
        return _run(plan, options, listener)


def _run(plan: Plan, options: StudyOptions, listener: Listener) -> Summary:
    started_s = time.perf_counter()
    if options.resume:
        record.check_same_plan(plan)
    else:
        # Before there is a database: killed from here on, the study can be resumed.
        record.write_plan(plan)
    progress = Progress({one.trial: one for one in record.read_outcomes(plan.out)}, record.read_runs(plan.out))
    refuse_lost_trials(plan, progress.outcomes)
    study = open_study(plan)
    listener(StudyStarted(plan, len(progress.outcomes)))
    ending = Ending(started_s)
    try:
        with evaluator(plan, options.workers) as evaluate, reached(plan):
            _search(Search(plan, study, spaces_of(plan), evaluate, options.enough), progress, listener)
            confirm(Confirmation(plan, progress.outcomes, progress.runs, options.seeds), evaluate, listener)
    except Interrupted as stop:
        ending = Ending(started_s, True, stop.startup_gpu_s, stop.measuring_gpu_s)
    except KeyboardInterrupt:
        ending = Ending(started_s, True)
    except BoxUnusable as unusable:
        # On a full disk, nothing can be concluded either.
        with suppress(BoxUnusable):
            _finish(plan, progress, Ending(started_s, True), listener)
        raise paused(unusable, plan.out) from unusable
    return _finish(plan, progress, ending, listener)


@dataclass(frozen=True)
class Ending:
    """How a session ended: begun at `started_s` on `perf_counter`, and what a server that was cut off had cost."""

    started_s: float
    is_cut: bool = False
    cut_startup_gpu_s: float = 0.0
    cut_measuring_gpu_s: float = 0.0


@dataclass(frozen=True)
class Search:
    """What a search works with."""

    plan: Plan
    study: optuna.Study
    spaces: dict[str, Space]
    evaluate: Evaluator
    enough: threading.Event


def _search(search: Search, progress: Progress, listener: Listener) -> None:
    plan, study = search.plan, search.study
    for space in search.spaces.values():
        study.enqueue_trial(parameters(space.default, space), skip_if_exists=True)
    spoilt = 0
    while batch := _next_batch(search, progress):
        check_room(plan.out)
        trials = {order.trial: trial for order, trial in batch}
        for order, _ in batch:
            listener(TrialStarted(order.trial, order.configuration))
        for measured in search.evaluate.trials([order for order, _ in batch], listener):
            outcome = _judged(study, measured)
            record.write_outcome(plan.out, outcome)
            tell(study, trials[outcome.trial], outcome, plan.slo.attainment)
            progress.outcomes[outcome.trial] = outcome
            listener(TrialEnded(outcome, progress.best, progress.default, len(progress.outcomes)))
            spoilt = spoilt + 1 if outcome.state == "failed" else 0
            _try_again_or_pause(search, outcome, spoilt)
            check_something_starts(list(progress.outcomes.values()), plan.out)


def _next_batch(search: Search, progress: Progress) -> list[tuple[TrialOrder, optuna.Trial]]:
    """The next trials to measure: those a killed tuner left behind, else new ones; [] when the search is over."""
    plan, study, spaces = search.plan, search.study, search.spaces
    left_behind = list(_left_behind(search, progress))
    if left_behind:
        return left_behind + _rest_of_batch(search, left_behind[0][0].incumbent_rps_per_gpu)
    room = _room(search)
    if plan.budget_s is not None and progress.spent_s() >= SEARCH_SHARE * plan.budget_s:
        room = 0
    if search.enough.is_set():
        room = 0
    defaults, done = len(spaces), _done(study)
    size = defaults if done < defaults else BATCH if plan.box.simulation == "virtual" else 1
    return [_ask(search, progress.best_rps_per_gpu) for _ in range(min(size, room))]


def _done(study: optuna.Study) -> int:
    """Trials that count. One that the box spoilt does not: it said nothing."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _room(search: Search) -> int:
    """How many more trials may end: as many as were asked for, or as there are configurations."""
    everything = sum(space.size for space in search.spaces.values())
    return min(search.plan.trials or everything, everything) - _done(search.study)


def _ask(
    search: Search, incumbent_rps_per_gpu: float, half_asked: FrozenTrial | None = None
) -> tuple[TrialOrder, optuna.Trial]:
    """One new trial, or the one that a tuner was killed over while it asked for it.

    The sampler is seeded by the trial's number: a resumed study goes on as it would have.
    """
    plan, study, spaces = search.plan, search.study, search.spaces
    number = half_asked.number if half_asked else len(study.get_trials(deepcopy=False))
    study.sampler = sampler(plan.sampler, spaces, derive(plan.seed, Purpose.SAMPLER, number))
    trial = optuna.trial.Trial(study, half_asked._trial_id) if half_asked else study.ask()
    found = suggest(trial, spaces)
    trial.set_user_attr("incumbent_rps_per_gpu", incumbent_rps_per_gpu)
    trial.set_user_attr("is_default", found.is_default)
    trial.set_user_attr("configuration", {"engine": found.engine, "knobs": dict(found.knobs)})
    return _order(plan, trial.number, found, incumbent_rps_per_gpu), trial


def _left_behind(search: Search, progress: Progress) -> Iterator[tuple[TrialOrder, optuna.Trial]]:
    """Trials that were under way when a tuner died: told from their outcome where it was written, else measured."""
    plan, study = search.plan, search.study
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        stored = frozen.user_attrs.get("configuration")
        if stored is None:
            # Nothing of its batch has been measured yet, so that the best so far is what it was.
            yield _ask(search, progress.best_rps_per_gpu, frozen)
            continue
        trial = optuna.trial.Trial(study, frozen._trial_id)
        if frozen.number in progress.outcomes:
            tell(study, trial, progress.outcomes[frozen.number], plan.slo.attainment)
        else:
            found = Configuration(stored["engine"], stored["knobs"], frozen.user_attrs["is_default"])
            yield _order(plan, frozen.number, found, frozen.user_attrs["incumbent_rps_per_gpu"]), trial


def _rest_of_batch(search: Search, incumbent_rps_per_gpu: float) -> list[tuple[TrialOrder, optuna.Trial]]:
    """What a tuner that was killed while it asked for a batch had not asked for yet."""
    if search.plan.box.simulation != "virtual":
        return []
    states = [trial.state for trial in search.study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    behind_defaults = len(states) - len(search.spaces)
    missing = -behind_defaults % BATCH if behind_defaults > 0 else -behind_defaults
    room = _room(search) - states.count(TrialState.RUNNING)
    return [_ask(search, incumbent_rps_per_gpu) for _ in range(min(missing, room))]


def _order(plan: Plan, trial: int, found: Configuration, incumbent_rps_per_gpu: float) -> TrialOrder:
    return TrialOrder(plan, trial, found, plan.box.gpus[: found.gpus], incumbent_rps_per_gpu)


def _judged(study: optuna.Study, outcome: Outcome) -> Outcome:
    """A server that is killed twice under one configuration, while others live, takes too much of the machine."""
    is_killed = outcome.failure is not None and outcome.failure.kind is FailureKind.KILLED
    return replace(outcome, state="infeasible") if is_killed and _is_second_try(study, outcome.trial) else outcome


def _is_second_try(study: optuna.Study, trial: int) -> bool:
    return bool(study.get_trials(deepcopy=False)[trial].user_attrs.get("second_try"))


def _try_again_or_pause(search: Search, outcome: Outcome, spoilt: int) -> None:
    """A trial that was spoilt says nothing: its configuration is tried once more, and next.

    Raises StudyPaused when the box has spoilt that too, or the client so many trials in a row. What the box spoilt
    stays queued then: it is the first thing that a resumed study tries.
    """
    if outcome.state != "failed" or outcome.failure is None:
        return
    plan, study = search.plan, search.study
    is_second, by_client = _is_second_try(study, outcome.trial), outcome.failure.kind == "void"
    if not is_second or not by_client:
        params = study.get_trials(deepcopy=False)[outcome.trial].params
        study.enqueue_trial(params, user_attrs={"second_try": not is_second})
    if spoilt >= SPOILT_IN_A_ROW or (is_second and not by_client):
        raise paused_by(outcome.failure, spoilt, plan.out)


def _finish(plan: Plan, progress: Progress, ending: Ending, listener: Listener) -> Summary:
    wall_s = time.perf_counter() - ending.started_s
    record.append_session(plan.out, Session(wall_s, ending.cut_startup_gpu_s, ending.cut_measuring_gpu_s))
    sessions = record.read_sessions(plan.out)
    summary = conclude(plan, progress.outcomes, progress.runs, sessions, interrupted=ending.is_cut)
    record.write_summary(plan.out, summary)
    if plan.box.simulation != "virtual" and not ending.is_cut:
        summary = _compared(plan, summary, progress, listener)
        record.write_summary(plan.out, summary)
    record.write_trials_csv(plan.out, [progress.outcomes[number] for number in sorted(progress.outcomes)])
    for left in remains():
        listener(Note(f"of a server there is still {left}: {ADVICE[FailureKind.NOT_GONE]}"))
    listener(StudyEnded(summary))
    return summary


def _compared(plan: Plan, summary: Summary, progress: Progress, listener: Listener) -> Summary:
    """The summary beside the simulation's; interrupted, without."""
    listener(Note("comparing what was measured with the simulation, and calibrating it"))
    try:
        return compared(plan, summary, progress.outcomes)
    except KeyboardInterrupt:
        return summary
