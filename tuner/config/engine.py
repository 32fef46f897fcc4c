"""Engine: its knobs as data. A knob says its flag, range or choices, default, condition, and why it matters."""

from typing import Literal

from pydantic import Field, model_validator

from tuner.config.gpu import Gpu
from tuner.config.strict import Strict

KnobValue = bool | int | float | str


class DefaultCase(Strict):
    """The engine's own default on one class of hardware; the first case that holds counts."""

    value: KnobValue
    cpu: bool | None = None
    gpus: list[str] | None = None
    min_memory_gib: float | None = None

    def holds(self, gpu: Gpu) -> bool:
        """Whether this case is about `gpu`."""
        if self.cpu is not None and self.cpu != gpu.is_cpu:
            return False
        if self.gpus is not None and gpu.name not in self.gpus:
            return False
        return self.min_memory_gib is None or gpu.memory_gib >= self.min_memory_gib


class Knob(Strict):
    """One thing to turn. Exactly one of `range` (numbers) and `choices` (named values, each with its flags) is given.

    A `linear` range moves in steps of `step`; a `log2` range has `step` points per doubling. `limits` are what the
    engine accepts; `--knob` may widen the range as far as them. `needs`: what the study must have for the knob to
    exist (`gpu`: real or simulated; `real_text`: a workload of real prompts, or a simulation; `draft`: a trained
    draft model). `choice_needs` says the same of single choices, whose flags may hold `<draft.method>` and
    `<draft.path>`, replaced by the model's draft. `when` names knobs and the values under which this one exists; a
    knob that is not searched counts with its default.
    """

    why: str = Field(min_length=20)
    flag: str | None = None
    range: tuple[float, float] | None = None
    scale: Literal["linear", "log2"] = "linear"
    step: float = Field(default=1, gt=0)
    limits: tuple[float, float] | None = None
    choices: dict[str, list[str]] | None = None
    choice_needs: dict[str, list[str]] = {}
    default: KnobValue | Literal["smallest-that-fits"] | list[DefaultCase]
    when: dict[str, list[KnobValue]] = {}
    needs: list[Literal["gpu", "real_text", "draft"]] = []
    changes_answers: bool = False
    only_if_asked: bool = False
    since: str | None = None
    until: str | None = None

    @model_validator(mode="after")
    def _range_or_choices(self) -> "Knob":
        if (self.range is None) == (self.choices is None):
            raise ValueError("give either range or choices")
        if self.range and not self.flag:
            raise ValueError("a range needs the flag that takes its value")
        if self.range and self.range[0] > self.range[1]:
            raise ValueError(f"range: {self.range[0]:g} is above {self.range[1]:g}")
        return self

    def default_on(self, gpu: Gpu) -> KnobValue:
        """The engine's own default on `gpu`."""
        if isinstance(self.default, list):
            return next(case.value for case in self.default if case.holds(gpu))
        return self.default


class EngineSpec(Strict):
    """An engine as data. Its processes (executable, health path, log patterns) are described in `launchers`."""

    name: str = ""
    title: str
    source: str
    tuned_versions: str
    constraints: list[Literal["token-budget-covers-batch"]] = []
    knobs: dict[str, Knob]
