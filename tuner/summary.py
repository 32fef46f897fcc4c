"""Summary: what a study concludes, in the shape of its JSON (schema 1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tuner.config.engine import KnobValue
from tuner.score import Percentiles

VerdictWord = Literal["deploy", "keep-default", "inconclusive", "nothing-meets-slo", "interrupted"]
HowSure = Literal["high", "medium", "low"]
SCHEMA = 1


@dataclass(frozen=True)
class Point:
    """One configuration at one load. Rates and throughputs are per GPU where the name says so."""

    trial: int
    engine: str
    configuration: Mapping[str, KnobValue]
    command: tuple[str, ...]
    gpus: int
    load: Mapping[str, float]
    goodput_rps_per_gpu: float
    ci95: tuple[float, float] | None
    attainment: float
    throughput_tok_s_per_gpu: float
    tok_s_per_user: float
    ttft_s: Percentiles | None
    itl_s: Percentiles | None
    tpot_s: Percentiles | None
    e2e_s: Percentiles | None
    capacity_rps_per_gpu: float | None
    predicted: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Gain:
    """Best over default, a ratio of goodputs per GPU, with its paired 95 % interval."""

    ratio: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class TrialCounts:
    """How the trials ended."""

    total: int
    measured: int
    pruned: int
    infeasible: int
    failed: int


@dataclass(frozen=True)
class StudyCost:
    """`wall_s` on our clock; GPU-seconds on the target's."""

    wall_s: float
    gpu_s: float
    startup_gpu_s: float
    measuring_gpu_s: float


@dataclass(frozen=True)
class Summary:
    """The JSON object of a study; field order is the file's order."""

    study: str
    dir: str
    model: str
    engines: tuple[str, ...]
    slo: Mapping[str, Any]
    workload: str
    seed: int
    simulated: bool
    trials: TrialCounts
    default: Point | None
    best: Point | None
    gain: Gain | None
    verdict: VerdictWord
    why: str
    how_sure: HowSure
    frontier: tuple[Point, ...]
    cost: StudyCost
