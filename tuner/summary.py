"""Summary: what a study concludes, in the shape of its JSON (schema 1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tuner.config.calibration import Calibration
from tuner.config.engine import KnobValue
from tuner.fluidity import Fluidity
from tuner.latencies import Percentiles

VerdictWord = Literal["deploy", "keep-default", "inconclusive", "nothing-meets-slo", "interrupted"]
HowSure = Literal["high", "medium", "low"]
SCHEMA = 1


@dataclass(frozen=True)
class Predicted:
    """What the simulation says of a point's server at its load, as it was calibrated when the study began: it had
    not seen what it is compared with. The figures are the point's own; `by` says where the step times are from."""

    goodput_rps_per_gpu: float
    attainment: float
    throughput_tok_s_per_gpu: float
    tok_s_per_user: float
    ttft_s: Percentiles | None
    itl_s: Percentiles | None
    tpot_s: Percentiles | None
    e2e_s: Percentiles | None
    by: str


@dataclass(frozen=True)
class Comparison:
    """The simulation of one engine against the study's own probes.

    Errors are the median over `probes` of |predicted / measured - 1|, of median TPOT and, in open loops, of median
    TTFT: as the simulation was when the study began, and with the `calibration` fitted to these probes. `kept` is
    where that is stored for later simulations. `why` says what is missing, where something is.
    """

    engine: str
    probes: int
    tpot_error_before: float | None = None
    tpot_error_after: float | None = None
    ttft_error_before: float | None = None
    ttft_error_after: float | None = None
    calibration: Calibration | None = None
    kept: str | None = None
    why: str | None = None


@dataclass(frozen=True)
class Point:
    """One configuration at one load. Rates and throughputs are per GPU where the name says so.

    `capacity_rps_per_gpu`: the highest rate offered that the server kept up with. `capacity_is_least`: it may keep up
    with far more; False where it did not with a rate just above. `capacity_by`: what showed that the queue stayed
    short, the engine's own queue times or TTFT in their stead.
    `fluidity` is reported, never judged.
    """

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
    predicted: Predicted | None = None
    capacity_by: Literal["queue_time", "ttft"] | None = None
    fluidity: Fluidity | None = None
    capacity_is_least: bool = True


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
class Session:
    """One run of the tuner on a study: how long it took, and what servers had cost that it cut off, GPU-seconds."""

    wall_s: float = 0.0
    cut_startup_gpu_s: float = 0.0
    cut_measuring_gpu_s: float = 0.0


@dataclass(frozen=True)
class StudyCost:
    """`wall_s` on our clock, all sessions together; GPU-seconds on the target's, with those that came to nothing."""

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
    simulation: tuple[Comparison, ...] = ()
