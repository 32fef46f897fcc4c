"""Configuration: a value for every knob of one engine."""

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.config.engine import KnobValue


@dataclass(frozen=True)
class Configuration:
    """One engine's knobs, in the order of its YAML file. Knobs whose condition does not hold are absent.

    `is_default` marks the engine's own defaults: its command names only what has to be named. No command names the
    `unsaid` ones, whose values only the running engine could tell.
    """

    engine: str
    knobs: Mapping[str, KnobValue]
    is_default: bool = False
    unsaid: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs one server takes: tensor × pipeline × data parallel."""
        sizes = [int(self.knobs.get(name, 1)) for name in ("tp", "pp", "dp")]
        return sizes[0] * sizes[1] * sizes[2]
