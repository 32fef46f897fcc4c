"""Plan: all that a study was asked to do, resolved and checked before a GPU is touched. A frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tuner.config.calibration import Calibration
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.slo import Slo
from tuner.config.workload import Workload

Simulation = Literal["virtual", "served"]


@dataclass(frozen=True)
class Box:
    """The machine a study runs on: `gpus` are device indices; on a CPU box they stand for one slot each.

    `idle_gib`: what was in use on each real GPU when the plan was made; what servers leave behind is told by it.
    """

    gpu: Gpu
    gpus: tuple[int, ...]
    simulation: Simulation | None
    idle_gib: Mapping[int, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """As a user says it: `8 × H100`."""
        return f"{len(self.gpus)} × {self.gpu.title}"


@dataclass(frozen=True)
class Plan:
    """What a study does. `asked_knobs` are the `--knob`s: knob name → `256..8192`, `a,b` or one value.

    `trials` and `budget_s` bound the search (either may be None, not both); `budget_s` counts on the target's clock.
    `extra_flags` go to the engine as they are (`--set`). `executables` says where an engine is found if not on
    PATH, `images` which engines run out of a container image, `port` where servers listen if not on any free one; a
    server that has not started within `start_timeout_s` (None: its engine's) hangs. `typed` is the command line, if
    there was one; `versions` are the installed engines'. `calibrations` are those of the simulated engines, or of the
    simulations that a real study is compared with; an engine without one has what is shipped.
    """

    model: Model
    slo: Slo
    workload: Workload
    engines: tuple[EngineSpec, ...]
    box: Box
    out: Path
    seed: int = 0
    asked_knobs: Mapping[str, str] = field(default_factory=dict)
    trials: int | None = None
    budget_s: float | None = None
    sampler: str = "tpe"
    storage: str | None = None
    extra_flags: tuple[str, ...] = ()
    executables: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    start_timeout_s: float | None = None
    typed: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)

    @property
    def study(self) -> str:
        """The study's name: its folder's."""
        return self.out.name
