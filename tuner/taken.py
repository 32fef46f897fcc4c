"""Taken: a configuration as the running server took it, beside what it was asked for. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from launchers.command import unsaid
from tuner.config.engine import EngineSpec, KnobValue
from tuner.config.gpu import Gpu
from tuner.configuration import Configuration
from tuner.engineview import EngineFacts


@dataclass(frozen=True)
class Taken:
    """`configuration` with the engine's own choices where its file had them wrong; what to tell the user of that, and
    of what was asked for but not done."""

    configuration: Configuration
    notes: tuple[str, ...] = ()


def as_taken(spec: EngineSpec, configuration: Configuration, gpu: Gpu, facts: EngineFacts | None) -> Taken:
    """What a server started with `configuration` took, by its own word: what nobody named was the engine's choice."""
    if facts is None:
        return Taken(configuration)
    other = {
        name: _choice(spec, name, facts.knobs[name])
        for name, value in configuration.knobs.items()
        if name in facts.knobs and not _same(value, facts.knobs[name])
    }
    free = {*unsaid(spec, configuration, gpu), *_without_flags(spec, configuration)}
    chosen = {name: value for name, value in other.items() if name in free}
    refused = {name: value for name, value in other.items() if name not in free}
    notes = []
    if chosen and configuration.is_default:
        notes.append(f"{spec.title} itself says of its defaults here: {_told(chosen, configuration)}; that counts")
    if refused:
        notes.append(f"{spec.title} did not do as it was told: {_told(refused, configuration)}")
    return Taken(replace(configuration, knobs={**configuration.knobs, **chosen}, unsaid=tuple(chosen)), tuple(notes))


def _without_flags(spec: EngineSpec, configuration: Configuration) -> list[str]:
    """The knobs whose value is to say nothing, and have the engine choose."""
    choices = ((name, value, spec.knobs[name].choices) for name, value in configuration.knobs.items())
    return [name for name, value, flags in choices if flags is not None and flags[str(value)] == []]


def _told(values: Mapping[str, KnobValue], asked: Configuration) -> str:
    return ", ".join(f"{name} {value} (not {asked.knobs[name]})" for name, value in values.items())


def _choice(spec: EngineSpec, name: str, value: KnobValue) -> KnobValue:
    """Choices are named in words, numbers among them."""
    return value if spec.knobs[name].choices is None else str(value)


def _same(asked: KnobValue, took: KnobValue) -> bool:
    if isinstance(asked, int | float) and isinstance(took, int | float):
        return math.isclose(asked, took, rel_tol=1e-6)
    return str(asked) == str(took)
