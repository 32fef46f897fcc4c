"""Events: what a study tells whoever watches it (a terminal, a log), while it runs. Frozen values."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuner.config.plan import Plan
from tuner.configuration import Configuration
from tuner.outcome import Outcome
from tuner.score import Score
from tuner.summary import Summary
from tuner.target import Load

Stage = Literal["starting", "warming", "probing", "stopping"]


@dataclass(frozen=True)
class StudyStarted:
    """The first event. `resumed` is the number of finished trials found in the study's folder."""

    plan: Plan
    resumed: int


@dataclass(frozen=True)
class TrialStarted:
    """A trial begins; several may run side by side."""

    trial: int
    configuration: Configuration


@dataclass(frozen=True)
class StageEntered:
    """A trial entered a stage; `load` where it is probing."""

    trial: int
    stage: Stage
    load: Load | None = None


@dataclass(frozen=True)
class ProbeProgress:
    """A probe under way: `done_frac` of its window (0–1) and the score so far."""

    trial: int
    load: Load
    done_frac: float
    score: Score


@dataclass(frozen=True)
class TrialEnded:
    """A trial is over. `best` is the best so far, this one included; `default` the best of the engines' defaults."""

    outcome: Outcome
    best: Outcome | None
    default: Outcome | None
    done: int


@dataclass(frozen=True)
class ConfirmProgress:
    """The finalists are being measured again: `done` of `total` runs. `what` names the one now measured."""

    done: int
    total: int
    what: str


@dataclass(frozen=True)
class Note:
    """Something the user should know: a dropped knob, a calibration, a server log worth reading."""

    text: str
    log: Path | None = None


@dataclass(frozen=True)
class StudyEnded:
    """The last event."""

    summary: Summary


Event = StudyStarted | TrialStarted | StageEntered | ProbeProgress | TrialEnded | ConfirmProgress | Note | StudyEnded
Listener = Callable[[Event], None]
