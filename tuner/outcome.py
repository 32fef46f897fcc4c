"""Outcome: one trial, whole. What the study stores, and what reports are made of."""

from dataclasses import dataclass
from typing import Literal

from tuner.configuration import Configuration
from tuner.engineview import EngineFacts
from tuner.errors import FailureKind
from tuner.score import Score

TrialState = Literal["measured", "pruned", "infeasible", "failed"]
"""measured: has a value. pruned: stopped once it could hardly win; its value is rough. infeasible: the
configuration does not start, or dies. failed: the box or the client spoilt it; says nothing about it."""

CapacityBy = Literal["queue_time", "ttft"]


@dataclass(frozen=True)
class Failure:
    """Why there is no value.

    `evidence` is the line of the server's log that says it, `before` the last thing it had said until then, `log`
    where to read on.
    """

    kind: FailureKind | Literal["void"]
    message: str
    evidence: str = ""
    log: str | None = None
    before: str = ""


@dataclass(frozen=True)
class Cost:
    """What a trial cost on the target's clock, seconds; times its GPUs it is GPU-seconds."""

    startup_s: float = 0.0
    measuring_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds that the trial had its GPUs."""
        return self.startup_s + self.measuring_s


@dataclass(frozen=True)
class Outcome:
    """One trial. `value_rps_per_gpu` is the best goodput at a load that holds the SLO, 0 where none does.

    `best` is the probe that gave it, or where no load holds the SLO the one of highest attainment. `capacity_rps`
    is G3 (the highest rate offered that it kept up with), of the server; `capacity_by` says what showed the queue:
    the engine's own queue times, or TTFT in their stead; `capacity_is_least` that it may be far higher. `facts` is
    what the server said of itself, once it was ready. `needed_scale`: the factor on every limit at which `best` would
    have held the SLO; None where it did, or none would.
    """

    trial: int
    configuration: Configuration
    command: tuple[str, ...]
    state: TrialState
    probes: tuple[Score, ...] = ()
    value_rps_per_gpu: float = 0.0
    best: Score | None = None
    capacity_rps: float | None = None
    capacity_by: CapacityBy | None = None
    capacity_is_least: bool = True
    failure: Failure | None = None
    cost: Cost = Cost()
    facts: EngineFacts | None = None
    needed_scale: float | None = None

    @property
    def holds_slo(self) -> bool:
        """Whether some load met the SLO."""
        return self.value_rps_per_gpu > 0

    @property
    def competes(self) -> bool:
        """Whether it was measured to the end and may be a finalist."""
        return self.state == "measured" and self.holds_slo
