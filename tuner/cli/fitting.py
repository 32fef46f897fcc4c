"""The engines of a study, with only the knobs that what runs them knows: the installed engine, or its simulation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from launchers.engines import ENGINES
from launchers.find import find_executable
from launchers.flags import fitted, in_image, installed, refuse_unknown
from launchers.sim.settings import MODELLED, has_effect, with_effect
from tuner.config.catalog import load, names
from tuner.config.engine import EngineSpec
from tuner.config.strict import suggestion
from tuner.config.workload import Workload
from tuner.errors import ConfigError, EngineMissing


@dataclass(frozen=True)
class Engines:
    """The engines as they can be tuned here, the versions of installed ones, and what the user should know."""

    specs: tuple[EngineSpec, ...]
    versions: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Places:
    """Where the user says engines are, by name: executables, and container images."""

    executables: Mapping[str, str]
    images: Mapping[str, str]


def installed_engines(wanted: Sequence[str], places: Places, extra_flags: Sequence[str]) -> Engines:
    """The engines installed on this machine. Raises EngineMissing, and ConfigError for an unknown engine or flag."""
    specs: list[EngineSpec] = []
    versions: dict[str, str] = {}
    notes: list[str] = []
    for spec in _named(wanted):
        engine, image = ENGINES[spec.name], places.images.get(spec.name)
        there = in_image(engine, image) if image else installed(engine, find_executable(engine, places.executables))
        refuse_unknown(extra_flags, there)
        usable, dropped = fitted(spec, there)
        specs.append(usable)
        versions[spec.name] = there.version
        if image:
            notes.append(
                f"{spec.title} runs in containers of {image}: they were tried with a stand-in for docker only"
            )
        untried = [f"{spec.title} is described after its documents, and nobody has run it here"]
        notes += [f"{spec.title} {there.version}", *dropped, *(untried if spec.hardware == "not-run" else [])]
    return Engines(tuple(specs), versions, tuple(notes))


def simulated_engines(wanted: Sequence[str], asked: Collection[str]) -> Engines:
    """The engines simulated. Knobs without a modelled effect are left out unless `asked` for.

    Raises EngineMissing for an engine that has no simulation.
    """
    specs: list[EngineSpec] = []
    notes: list[str] = []
    for spec in _named(wanted):
        if spec.name not in MODELLED:
            raise EngineMissing(
                f"--engine {spec.name}: {spec.title} is not simulated, only {' and '.join(MODELLED)} are; on a box "
                f"with GPUs install it ({ENGINES[spec.name].install}), or name it with --engine-bin {spec.name}=PATH"
            )
        usable, idle = with_effect(spec, asked)
        specs.append(usable)
        notes += [f"{spec.title}: not modelled, so not searched: {', '.join(idle)}"] if idle else []
        idle_but_asked = [name for name in asked if name in spec.knobs and not has_effect(spec, name)]
        notes += [f"{spec.title}: {name} was asked for, but has no effect in a simulation" for name in idle_but_asked]
    return Engines(tuple(specs), {}, tuple(notes))


def refuse_texts(specs: Sequence[EngineSpec], workload: Workload) -> None:
    """Raise ConfigError if an engine takes text only and the workload is not made of any."""
    for spec in specs:
        if not ENGINES[spec.name].takes_token_ids and not workload.real_text:
            raise ConfigError(
                f"--engine {spec.name}: {spec.title} takes prompts as text only, and the workload '{workload.name}' "
                "is made of token ids; give one of real text (--workload chats.jsonl, see docs/workloads.md)"
            )


def _named(wanted: Sequence[str]) -> list[EngineSpec]:
    known = names(EngineSpec)
    if len(set(wanted)) < len(wanted):
        raise ConfigError(f"--engine {','.join(wanted)}: name each engine once")
    for name in wanted:
        if name not in known:
            hint = suggestion(name, known)
            raise ConfigError(f"--engine {name}: no such engine{hint}; there is: {', '.join(known)}")
    return [load(EngineSpec, name) for name in wanted]
