"""Engine: its knobs as data. A knob says its flag, range or choices, default, condition, and why it matters."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tuner.config.gpu import Gpu
from tuner.config.strict import Strict

KnobValue = bool | int | float | str

Need = Literal["gpu", "real_text", "draft", "experts"]
Constraint = Literal[
    "token-budget-covers-batch", "token-budget-covers-context", "long-prefill-below-budget", "weights-fit"
]

VERSION = r"^\d+(\.\d+)*$"
SMALLEST_THAT_FITS = "smallest-that-fits"
"""The default of a knob that counts GPUs: as many as the model's weights need."""


class DefaultCase(Strict):
    """The engine's own default on one class of hardware; the first case that holds counts.

    `gpus` are names of GPU files; conditions that are not given always hold.
    """

    value: KnobValue
    cpu: bool | None = None
    gpus: list[str] | None = None
    min_memory_gib: float | None = None

    @property
    def is_conditional(self) -> bool:
        """Whether there is hardware that this case is not about."""
        return not (self.cpu is None and self.gpus is None and self.min_memory_gib is None)

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
    draft model; `experts`: a mixture of them). `choice_needs` says the same of single choices, whose flags may hold
    `<draft.method>` and `<draft.path>`, replaced by the model's draft. `when` names knobs further up and the values
    under which this one exists; a knob that is not searched counts with its default. `default` is one value, or cases
    by hardware, the last without a condition. `since` and `until` are the first and the last version that has the
    knob; flags that the installed engine's help does not name are left out anyway.
    """

    why: str = Field(min_length=20)
    flag: str | None = Field(default=None, pattern="^--")
    range: tuple[float, float] | None = None
    scale: Literal["linear", "log2"] = "linear"
    step: float = Field(default=1, gt=0)
    limits: tuple[float, float] | None = None
    choices: dict[str, list[str]] | None = Field(default=None, min_length=2)
    choice_needs: dict[str, list[Need]] = {}
    default: list[DefaultCase]
    when: dict[str, list[KnobValue]] = {}
    needs: list[Need] = []
    changes_answers: bool = False
    only_if_asked: bool = False
    since: str | None = Field(default=None, pattern=VERSION)
    until: str | None = Field(default=None, pattern=VERSION)

    @field_validator("default", mode="before")
    @classmethod
    def _one_value_is_one_case(cls, default: Any) -> Any:
        return default if isinstance(default, list) else [{"value": default}]

    @model_validator(mode="after")
    def _range_or_choices(self) -> "Knob":
        if (self.range is None) == (self.choices is None):
            raise ValueError("give either range or choices")
        if self.range is not None:
            self._check_range(self.range)
        if self.choices is not None:
            self._check_choices(self.choices)
        return self

    @model_validator(mode="after")
    def _defaults_are_possible(self) -> "Knob":
        if not self.default or self.default[-1].is_conditional:
            raise ValueError("the last case of default must hold everywhere: give it a value and no condition")
        for value in (case.value for case in self.default):
            if value != SMALLEST_THAT_FITS and not self.accepts(value):
                raise ValueError(f"the default {value!r} is not among {self._accepted()}")
        return self

    def accepts(self, value: KnobValue) -> bool:
        """Whether the engine takes `value`: one of the choices, or a number within `limits`."""
        if self.choices is not None:
            return isinstance(value, str) and value in self.choices
        low, high = self.bounds
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    def exists_in(self, version: str) -> bool:
        """Whether the engine of this version (`0.5.23`, `0.32.0+cpu`; unreadable: any) has the knob."""
        here = _numbers(version)
        if not here:
            return True
        return (self.since is None or here >= _numbers(self.since)) and (
            self.until is None or here[: len(_numbers(self.until))] <= _numbers(self.until)
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag that some value of it needs."""
        words = [self.flag or "", *(word for flags in (self.choices or {}).values() for word in flags)]
        return tuple(dict.fromkeys(word for word in words if word.startswith("--")))

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest number the engine accepts; for a knob with a range."""
        bounds = self.limits or self.range
        assert bounds is not None
        return bounds

    def default_on(self, gpu: Gpu) -> KnobValue:
        """The engine's own default on `gpu`."""
        return next(case.value for case in self.default if case.holds(gpu))

    def _accepted(self) -> str:
        if self.choices is not None:
            listed = ", ".join(f"'{choice}'" for choice in self.choices)
            return f"the choices {listed} (write on and off in quotes)"
        low, high = self.bounds
        return f"{low:g} to {high:g}"

    def _check_range(self, range_: tuple[float, float]) -> None:
        if self.flag is None:
            raise ValueError("a range needs the flag that takes its value")
        low, high = range_
        if low > high:
            raise ValueError(f"range: {low:g} is above {high:g}")
        if self.scale == "log2" and low <= 0:
            raise ValueError(f"range: a log2 scale begins above 0, not at {low:g}")
        least, greatest = self.bounds
        if low < least or high > greatest:
            raise ValueError(f"range: {low:g} to {high:g} is outside the limits, {least:g} to {greatest:g}")

    def _check_choices(self, choices: dict[str, list[str]]) -> None:
        if self.flag is not None or self.limits is not None:
            raise ValueError("choices spell out their flags: leave out flag and limits")
        unknown = [choice for choice in self.choice_needs if choice not in choices]
        if unknown:
            raise ValueError(f"choice_needs: '{unknown[0]}' is not among {self._accepted()}")


class EngineSpec(Strict):
    """An engine as data. Its processes (executable, health path, log patterns) are described in `launchers`.

    `constraints` name arithmetic between knobs that the engine demands: `token-budget-covers-batch` (a token budget
    below the batch size is refused), `token-budget-covers-context` (so is, without chunked prefill, one below the
    longest request), `long-prefill-below-budget` (above it, the threshold says nothing; above the longest request it
    is refused), `weights-fit` (into the share of GPU memory that the server may take). `hardware`: whether somebody
    has run it, or read about it.
    """

    name: str = ""
    title: str
    source: str
    tuned_versions: str
    hardware: Literal["run", "not-run"] = "run"
    constraints: list[Constraint] = []
    knobs: dict[str, Knob]

    def keeping(self, knobs: Mapping[str, Knob]) -> "EngineSpec":
        """This engine with no other knobs than `knobs`, which are some of its own, in its order.

        A condition on one that is gone is judged by that one's default; what it rules out is gone too.
        """
        kept: dict[str, Knob] = {}
        for name, knob in knobs.items():
            gone = [other for other in knob.when if other not in kept]
            if all(case.value in knob.when[other] for other in gone for case in self.knobs[other].default):
                left = {other: values for other, values in knob.when.items() if other in kept}
                kept[name] = knob.model_copy(update={"when": left})
        return self.model_copy(update={"knobs": kept})

    @model_validator(mode="after")
    def _conditions_are_about_knobs_above(self) -> "EngineSpec":
        above: dict[str, Knob] = {}
        for name, knob in self.knobs.items():
            for other, values in knob.when.items():
                if other not in above:
                    raise ValueError(f"knobs.{name}.when: no knob '{other}' further up; there is: {', '.join(above)}")
                wrong = [value for value in values if not above[other].accepts(value)]
                if wrong:
                    raise ValueError(
                        f"knobs.{name}.when.{other}: {wrong[0]!r} is not among {above[other]._accepted()}"
                    )
            above[name] = knob
        return self


def _numbers(version: str) -> tuple[int, ...]:
    """`0.32.0+cpu` → (0, 32, 0); () where it does not begin with a number. Pure."""
    leading = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in leading[0].split(".")) if leading else ()
