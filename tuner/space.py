"""Space: which knobs a study may turn, and what is a possible configuration. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from tuner.config.engine import SMALLEST_THAT_FITS, EngineSpec, Knob, KnobValue
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.plan import Plan
from tuner.config.strict import suggestion
from tuner.configuration import Configuration
from tuner.constraints import CONSTRAINTS, Bounds, fit_box
from tuner.errors import ConfigError

GIB = 2**30
COUNTED_ONE_BY_ONE = 4096
# Room beside the weights without which no engine starts: activations, CUDA graphs and a little KV cache.
LEAST_SPARE_GIB = 4.0


@dataclass(frozen=True)
class Circumstances:
    """What decides which knobs exist: the model, the device, how many of it, and whether prompts are real text;
    `longest` is the longest request in tokens, where a workload limits it."""

    model: Model
    gpu: Gpu
    gpus: int
    simulated: bool
    real_text: bool
    longest: int | None = None

    @property
    def bounds(self) -> Bounds:
        """What configurations have to fit into."""
        longest = self.longest or self.model.architecture.max_context
        if self.gpu.is_cpu:
            return Bounds(self.gpus, longest)
        return Bounds(self.gpus, longest, _weights_gib(self.model), self.gpu.memory_gib)


@dataclass(frozen=True)
class Space:
    """The searched knobs of one engine: `values` holds what each may take, in order.

    A knob that may take a single value is fixed: it is in `values` too. `engine_defaults` is what the engine does
    with every knob of its file if nothing is said; `bounds` is what they all have to fit into.
    """

    engine: EngineSpec
    values: Mapping[str, tuple[KnobValue, ...]]
    engine_defaults: Mapping[str, KnobValue]
    bounds: Bounds

    @property
    def default(self) -> Configuration:
        """The engine's own defaults; a knob the user fixed is a given, so it holds here too."""
        knobs = {
            name: allowed[0] if len(allowed) == 1 else self.engine_defaults[name]
            for name, allowed in self.values.items()
        }
        return Configuration(self.engine.name, _applicable(self, knobs), is_default=True)

    @cached_property
    def size(self) -> int:
        """How many configurations there are, the default included; of a large space an upper bound."""
        combinations = math.prod(len(values) for values in self.values.values())
        if combinations > COUNTED_ONE_BY_ONE:
            return combinations + 1
        chosen = (dict(zip(self.values, values, strict=True)) for values in product(*self.values.values()))
        possible = {tuple(configuration(self, repaired(one, self)).knobs.items()) for one in chosen}
        return len(possible | {tuple(self.default.knobs.items())})


def space(engine: EngineSpec, asked: Mapping[str, str], here: Circumstances) -> Space:
    """The space of `engine` under `here`, narrowed by `asked` (knob name → `256..8192`, `a,b` or one value).

    Knobs the engine does not have are passed over. Raises ConfigError for an empty range, or one outside what the
    engine accepts.
    """
    values = {
        name: _values(engine, name, asked.get(name), here)
        for name, knob in engine.knobs.items()
        if name in asked or _is_searched(knob, here)
    }
    values = {name: allowed for name, allowed in values.items() if allowed}
    return Space(engine, values, _engine_defaults(engine, here), here.bounds)


def spaces_of(plan: Plan) -> dict[str, Space]:
    """The space of every engine of `plan`. A knob asked for must be known to one of them; raises ConfigError."""
    here = Circumstances(
        model=plan.model,
        gpu=plan.box.gpu,
        gpus=len(plan.box.gpus),
        simulated=plan.box.simulation is not None,
        real_text=plan.workload.real_text,
        longest=plan.workload.max_model_len,
    )
    known = {name for engine in plan.engines for name in engine.knobs}
    for name in plan.asked_knobs:
        if name not in known:
            engines = " and ".join(engine.title for engine in plan.engines)
            hint = suggestion(name, known)
            raise ConfigError(f"--knob {name}: no such knob of {engines}{hint}; there is: {', '.join(sorted(known))}")
    return {engine.name: space(engine, plan.asked_knobs, here) for engine in plan.engines}


def configuration(space: Space, chosen: Mapping[str, KnobValue]) -> Configuration:
    """The configuration that `chosen` means: fixed knobs added, those whose condition does not hold left out."""
    complete = {name: allowed[0] for name, allowed in space.values.items() if len(allowed) == 1} | dict(chosen)
    return Configuration(space.engine.name, _applicable(space, complete))


def repaired(chosen: Mapping[str, KnobValue], space: Space) -> dict[str, KnobValue]:
    """`chosen` moved to the nearest allowed values and inside the arithmetic the engines demand."""
    fixed = {name: allowed[0] for name, allowed in space.values.items() if len(allowed) == 1}
    moved = fixed | {name: _nearest(value, space.values[name]) for name, value in chosen.items()}
    for constraint, keep in CONSTRAINTS.items():
        if constraint in space.engine.constraints:
            keep(moved, space.values, space.bounds)
    fit_box(moved, space.values, space.bounds)
    return {name: moved[name] for name in chosen}


def grid(knob: Knob) -> tuple[KnobValue, ...]:
    """Every value of `knob` in its search range, ascending; or its choices in the file's order."""
    if knob.choices is not None:
        return tuple(knob.choices)
    assert knob.range is not None
    low, high = knob.range
    points = _log2_points(low, high, knob.step) if knob.scale == "log2" else _linear_points(low, high, knob.step)
    if all(float(point).is_integer() for point in (*points, knob.step)):
        return tuple(int(point) for point in points)
    return tuple(points)


def smallest_tp(model: Model, gpu: Gpu, gpus: int) -> int:
    """The least number of GPUs (a power of two) whose memory holds the weights and that can share the heads.

    Raises ConfigError if the box is too small.
    """
    weights_gib = _weights_gib(model)
    for tp in (1, 2, 4, 8):
        if (
            tp <= gpus
            and model.architecture.divides(tp)
            and weights_gib / tp + LEAST_SPARE_GIB <= 0.9 * gpu.memory_gib
        ):
            return tp
    raise ConfigError(
        f"{model.title}: its weights ({weights_gib:.0f} GiB) do not fit on {gpus} × {gpu.title} "
        f"({gpu.memory_gib:.0f} GiB each); give more --gpus, a larger --gpu, or a smaller model"
    )


def _weights_gib(model: Model) -> float:
    return model.architecture.parameters * model.architecture.weight_bytes / GIB


def _is_searched(knob: Knob, here: Circumstances) -> bool:
    return not knob.only_if_asked and not knob.changes_answers and _needs_met(knob.needs, here)


def _needs_met(needs: Sequence[str], here: Circumstances) -> bool:
    met = {
        "gpu": not here.gpu.is_cpu,
        "real_text": here.simulated or here.real_text,
        "draft": here.model.draft is not None,
        # Dense models only are known so far (`tuner.config.model`), and engines refuse to deal out experts of those.
        "experts": False,
    }
    return all(met[need] for need in needs)


def _values(engine: EngineSpec, name: str, asked: str | None, here: Circumstances) -> tuple[KnobValue, ...]:
    knob = engine.knobs[name]
    allowed = grid(knob) if asked is None else _narrowed(name, knob, asked)
    possible = tuple(value for value in allowed if _is_possible(name, knob, value, here))
    if "experts" in knob.needs:
        raise ConfigError(f"--knob {name}: {here.model.title} is a dense model, without experts to deal out")
    if asked is not None and not possible:
        raise ConfigError(f"--knob {name}={asked}: impossible here: {_impossible(name, here)}")
    return possible


def _is_possible(name: str, knob: Knob, value: KnobValue, here: Circumstances) -> bool:
    if not _needs_met(knob.choice_needs.get(str(value), []), here):
        return False
    if name == "tp":
        tp = int(value)
        return smallest_tp(here.model, here.gpu, here.gpus) <= tp <= here.gpus and here.model.architecture.divides(tp)
    return not (name in {"pp", "dp"} and int(value) > here.gpus)


def _impossible(name: str, here: Circumstances) -> str:
    if name in {"tp", "pp", "dp"}:
        heads = here.model.architecture.heads
        return f"{here.model.title} ({heads} heads) on {here.gpus} × {here.gpu.title} can have tp " + ", ".join(
            str(tp) for tp in (1, 2, 4, 8) if tp <= here.gpus and here.model.architecture.divides(tp)
        )
    return "the model or the box has not what these choices need (a draft model, a GPU)"


def _narrowed(name: str, knob: Knob, asked: str) -> tuple[KnobValue, ...]:
    if knob.choices is not None:
        wanted = tuple(asked.split(","))
        unknown = [value for value in wanted if value not in knob.choices]
        if unknown:
            raise ConfigError(f"--knob {name}={asked}: no choice '{unknown[0]}'; allowed: {', '.join(knob.choices)}")
        return wanted
    low, high = _bounds(name, knob, asked)
    limits = knob.limits or knob.range or (low, high)
    if low < limits[0] or high > limits[1]:
        raise ConfigError(f"--knob {name}={asked}: outside what the engine accepts, {limits[0]:g}..{limits[1]:g}")
    if ".." in asked:
        return grid(knob.model_copy(update={"range": (low, high)}))
    exact = tuple(_number(name, part) for part in asked.split(","))
    if isinstance(grid(knob)[0], int) and not all(value.is_integer() for value in exact):
        raise ConfigError(f"--knob {name}={asked}: whole numbers only")
    return tuple(sorted(int(value) if value.is_integer() else value for value in exact))


def _bounds(name: str, knob: Knob, asked: str) -> tuple[float, float]:
    if ".." not in asked:
        numbers = [_number(name, part) for part in asked.split(",")]
        return min(numbers), max(numbers)
    left, _, right = asked.partition("..")
    low, high = _number(name, left), _number(name, right)
    if low > high:
        raise ConfigError(f"--knob {name}={asked}: {left} is above {right}; write the smaller bound first")
    return low, high


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"--knob {name}: '{text}' is no number; write 256..8192, 512,1024 or 512")
    return number


def _engine_defaults(engine: EngineSpec, here: Circumstances) -> dict[str, KnobValue]:
    """What the engine does with every knob if nothing is said."""
    defaults = {name: knob.default_on(here.gpu) for name, knob in engine.knobs.items()}
    return {
        name: smallest_tp(here.model, here.gpu, here.gpus) if value == SMALLEST_THAT_FITS else value
        for name, value in defaults.items()
    }


def _applicable(space: Space, chosen: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """`chosen` in the order of the file, without the knobs whose condition does not hold."""
    kept: dict[str, KnobValue] = {}
    for name, knob in space.engine.knobs.items():
        holds = all(kept.get(other, space.engine_defaults[other]) in wanted for other, wanted in knob.when.items())
        if name in chosen and holds:
            kept[name] = chosen[name]
    return kept


def _nearest(value: KnobValue, allowed: tuple[KnobValue, ...]) -> KnobValue:
    if value in allowed:
        return value
    numbers = [option for option in allowed if isinstance(option, int | float)]
    if isinstance(value, int | float) and numbers:
        return min(numbers, key=lambda option: abs(option - value))
    return allowed[0]


def _linear_points(low: float, high: float, step: float) -> list[float]:
    count = int((high - low) / step + 1e-9) + 1
    return [round(low + i * step, 10) for i in range(count)]


def _log2_points(low: float, high: float, per_doubling: float) -> list[float]:
    """`per_doubling` evenly spaced values in each octave above a power of two: 256, 384, 512, 768 … for 2."""
    points = {low, high}
    octave = 1.0
    while octave <= high:
        points |= {octave * (1 + i / per_doubling) for i in range(int(per_doubling))}
        octave *= 2
    return sorted(point for point in points if low <= point <= high)
