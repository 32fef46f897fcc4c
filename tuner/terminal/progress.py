"""Progress: all that a view knows of a running study, one frozen value, moved on by each event. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tuner.config.plan import Plan
from tuner.configuration import Configuration
from tuner.events import (
    ConfirmProgress,
    Event,
    Note,
    ProbeProgress,
    Stage,
    StageEntered,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialStarted,
)
from tuner.outcome import Outcome, TrialState
from tuner.score import Score
from tuner.target import Load
from tuner.wording.naming import Naming, naming_of


@dataclass(frozen=True)
class Running:
    """A trial under way. `since_s`: when it began, seconds after the study did. `score`: of the probe so far."""

    trial: int
    configuration: Configuration
    since_s: float
    stage: Stage | None = None
    load: Load | None = None
    done_frac: float = 0.0
    score: Score | None = None


@dataclass(frozen=True)
class Progress:
    """`done` counts ended trials, resumed ones included; `ended` holds those whose end was seen."""

    plan: Plan
    naming: Naming
    resumed: int = 0
    done: int = 0
    running: Mapping[int, Running] = field(default_factory=dict)
    ended: tuple[Outcome, ...] = ()
    best: Outcome | None = None
    default: Outcome | None = None
    confirming: ConfirmProgress | None = None

    def count(self, state: TrialState) -> int:
        """How many of the trials seen ended in `state`."""
        return sum(outcome.state == state for outcome in self.ended)

    @property
    def spent_s(self) -> float:
        """Seconds that the ended trials took, one after the other, on the target's clock."""
        return sum(outcome.cost.total_s for outcome in self.ended)


def beginning(plan: Plan) -> Progress:
    """Before the first event."""
    return Progress(plan, naming_of(plan))


def advanced(progress: Progress, event: Event, now_s: float) -> Progress:
    """`progress` after `event`, which came `now_s` seconds after the study began."""
    match event:
        case StudyStarted(_, resumed):
            return replace(progress, resumed=resumed, done=resumed)
        case TrialStarted(trial, configuration):
            naming = progress.naming.knowing(configuration)
            begun = Running(trial, configuration, now_s)
            return replace(progress, naming=naming, running={**progress.running, trial: begun})
        case StageEntered() | ProbeProgress():
            return _moved(progress, event)
        case TrialEnded(outcome, best, default, done):
            left = {trial: running for trial, running in progress.running.items() if trial != outcome.trial}
            ended = (*progress.ended, outcome)
            return replace(progress, running=left, ended=ended, best=best, default=default, done=done)
        case ConfirmProgress():
            return replace(progress, confirming=event)
        case Note() | StudyEnded():
            return progress


def _moved(progress: Progress, event: StageEntered | ProbeProgress) -> Progress:
    running = progress.running.get(event.trial)
    if running is None:
        return progress
    match event:
        case StageEntered(_, stage, load):
            moved = replace(running, stage=stage, load=load, done_frac=0.0, score=None)
        case ProbeProgress(_, load, done_frac, score):
            moved = replace(running, stage="probing", load=load, done_frac=done_frac, score=score)
    return replace(progress, running={**progress.running, event.trial: moved})
