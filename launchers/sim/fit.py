"""The rule by which a calibration is fitted to measured probes. Deterministic, and it knows nothing of hardware.

Every probe is replayed in virtual time, same requests and same load. The median TPOT, and in open loops the median
TTFT, is compared as ln(predicted / measured); TTFT of closed loops hangs on how users happen to fall into step, and
is left alone. Minimised over the logarithms of the three factors of a calibration, by Gauss-Newton steps:

    sum of huber(residual / (TPOT_SD or TTFT_SD)) + sum of ((factor - the prior's) / spread)²

The second sum (a ridge) holds a factor near the prior, the shipped calibration, where few or one-sided probes say
little about it. Huber (1964): single probes far off, mostly overloaded ones, count linearly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from launchers.sim.settings import SimSettings
from launchers.sim.steptime import step_time
from launchers.sim.virtual import VirtualTarget
from tuner.config.calibration import Calibration, StepSource
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.slo import Limits
from tuner.latencies import latencies
from tuner.requestlog import RequestLog, Status
from tuner.requests import FloatArray, Requests
from tuner.score import Score, score
from tuner.target import ClosedLoop, Load, Window

RULE = "Huber on log ratios with a ridge to the prior (launchers/sim/fit.py, 1)"

# How far a right simulation is off, standard deviations of the logarithm: scheduling, other lengths of steps.
TPOT_SD = 0.05
TTFT_SD = 0.15
HUBER = 2.0

FACTORS = ("per_step_s", "prefill_scale", "decode_scale")
Spread = tuple[float, float, float]
SPREADS: dict[StepSource, Spread] = {"table": (0.7, 0.1, 0.1), "roofline": (0.7, 0.5, 0.5)}
"""How far the time per step, the prefill and the decode scale are expected from the prior's: standard deviations of
their logarithms. An engine's own work differs by a factor of two between versions and hosts, measured kernels by a
tenth, a datasheet's by half."""

# What bounds the time of a fit: a replay's own goes with the tokens of its prompts and answers.
FEW_PROBES, MANY_PROBES = 8, 32
TOKENS = 60_000_000

# Medians jump by a few percent where a request falls into another step: a derivative needs a stride well above that.
STRIDE = 0.15
LONGEST_STEP = 1.0
BACKING_OFF = (1.0, 0.5, 0.25)
LEAST_GAIN = 0.01
ROUNDS = 8
NONE_ENDED = 5.0


@dataclass(frozen=True)
class MeasuredProbe:
    """What was offered to which server, and the medians seen of its counted requests (None: nothing was).

    It is replayed over a table where there is one, unless `over` a roofline is asked for.
    """

    settings: SimSettings
    model: Model
    gpu: Gpu
    requests: Requests
    load: Load
    window: Window
    tpot_s: float | None
    ttft_s: float | None
    over: StepSource | None = None


@dataclass(frozen=True)
class Errors:
    """ln(predicted / measured) of medians, one entry for each probe where both exist; TTFT of open loops only."""

    tpot: FloatArray
    ttft: FloatArray


def fit(probes: Sequence[MeasuredProbe], prior: Calibration, spread: Spread | None = None) -> Calibration:
    """`prior` with the factors that `probes` ask for; its other fields are the caller's to fill in.

    A factor whose `spread` is 0 stays as it is.
    """
    spreads = np.array(spread or SPREADS[prior.over])
    x, residuals = np.zeros(3), _residuals(probes, prior)
    cost = _cost(residuals, x, spreads)
    for _ in range(ROUNDS):
        step = _step(probes, prior, x, residuals, spreads)
        for share in BACKING_OFF:
            tried = x + share * step
            then = _residuals(probes, _moved(prior, tried))
            if (costs := _cost(then, tried, spreads)) < cost:
                break
        else:
            break
        is_enough = costs > cost * (1 - LEAST_GAIN)
        x, residuals, cost = tried, then, costs
        if is_enough:
            break
    return _moved(prior, x)


def thinned(probes: Sequence[MeasuredProbe]) -> list[MeasuredProbe]:
    """As many as can be fitted in seconds, evenly spread over the given ones."""
    tokens = sum(int((probe.requests.prompt_tokens + probe.requests.output_tokens).sum()) for probe in probes)
    affordable = int(len(probes) * TOKENS / max(tokens, 1))
    wanted = min(max(affordable, FEW_PROBES), MANY_PROBES)
    picked = np.unique(np.linspace(0, len(probes) - 1, wanted).round().astype(int))
    return [probes[index] for index in picked]


def errors(probes: Sequence[MeasuredProbe], calibration: Calibration) -> Errors:
    """How far the simulation is off under `calibration`."""
    pairs = [(probe, _medians(probe, calibration)) for probe in probes]
    tpot = [_log_ratio(seen[0], probe.tpot_s) for probe, seen in pairs]
    ttft = [_log_ratio(seen[1], probe.ttft_s) for probe, seen in pairs if not isinstance(probe.load, ClosedLoop)]
    return Errors(_present(tpot), _present(ttft))


def predict(probe: MeasuredProbe, calibration: Calibration, limits: Limits) -> Score:
    """What the simulation says of the server at that load under `calibration`."""
    return score(_replayed(probe, calibration), probe.load, limits)


def medians(log: RequestLog, load: Load) -> tuple[float | None, float | None]:
    """Median TPOT and TTFT, seconds, of the counted requests that ended well; None where there is none."""
    rows = log.counted & (log.status == Status.OK)
    times = latencies(log, load)
    return median(times.tpot_s[rows]), median(times.ttft_s[rows])


def median(values: FloatArray) -> float | None:
    """The median of what is not NaN; None where everything is."""
    seen = values[~np.isnan(values)]
    return float(np.median(seen)) if len(seen) else None


def _medians(probe: MeasuredProbe, calibration: Calibration) -> tuple[float | None, float | None]:
    return medians(_replayed(probe, calibration), probe.load)


def _replayed(probe: MeasuredProbe, calibration: Calibration) -> RequestLog:
    steps = step_time(probe.settings, probe.model, probe.gpu, calibration, probe.over)
    return VirtualTarget(probe.settings, steps).replay(probe.requests, probe.load, probe.window, None)


def _moved(prior: Calibration, x: FloatArray) -> Calibration:
    """The prior with its factors multiplied by exp(x), to so many digits as are worth keeping."""
    moved = {name: getattr(prior, name) * factor for name, factor in zip(FACTORS, np.exp(x), strict=True)}
    return prior.model_copy(update={name: float(f"{value:.4g}") for name, value in moved.items()})


def _residuals(probes: Sequence[MeasuredProbe], calibration: Calibration) -> FloatArray:
    """In standard deviations, NaN where a side is missing: TPOT of every probe, then TTFT."""
    tpot, ttft = [], []
    for probe in probes:
        predicted = _medians(probe, calibration)
        tpot.append(_log_ratio(predicted[0], probe.tpot_s) / TPOT_SD)
        is_open = not isinstance(probe.load, ClosedLoop)
        ttft.append(_log_ratio(predicted[1], probe.ttft_s) / TTFT_SD if is_open else np.nan)
    return np.array(tpot + ttft)


def _step(
    probes: Sequence[MeasuredProbe], prior: Calibration, x: FloatArray, residuals: FloatArray, spread: FloatArray
) -> FloatArray:
    """One Gauss-Newton step, Huber by weights, shortened so that no factor moves by more than LONGEST_STEP."""
    free = spread > 0
    strides = np.eye(3)[free] * STRIDE
    columns = [(_residuals(probes, _moved(prior, x + stride)) - residuals) / STRIDE for stride in strides]
    slopes = np.stack(columns, axis=1)
    known = ~np.isnan(slopes).any(axis=1)
    weights = 1 / np.maximum(1, np.abs(residuals[known]) / HUBER)
    slopes, residuals = slopes[known], residuals[known]
    curvature = slopes.T @ (weights[:, None] * slopes) + np.diag(spread[free] ** -2)
    downhill = -(slopes.T @ (weights * residuals) + x[free] / spread[free] ** 2)
    step = np.zeros(3)
    step[free] = np.linalg.solve(curvature, downhill)
    return np.asarray(step / max(1.0, np.abs(step).max() / LONGEST_STEP), dtype=np.float64)


def _cost(residuals: FloatArray, x: FloatArray, spread: FloatArray) -> float:
    """What is minimised: Huber's loss of the residuals, and the ridge."""
    size = np.abs(residuals[~np.isnan(residuals)])
    huber = np.where(size <= HUBER, size**2, HUBER * (2 * size - HUBER))
    return float(huber.sum() + ((x[spread > 0] / spread[spread > 0]) ** 2).sum())


def _log_ratio(predicted: float | None, measured: float | None) -> float:
    """NaN where nothing was measured; a simulation in which no request ends is taken to be hopelessly slow."""
    if not measured:
        return float("nan")
    return float(np.log(predicted / measured)) if predicted else NONE_ENDED


def _present(values: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    return array[~np.isnan(array)]
