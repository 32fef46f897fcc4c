"""Token counts drawn from a `Lengths`. Pure."""

from math import log, sqrt

import numpy as np

from tuner.config.workload import Lengths, Workload
from tuner.requests import FloatArray, IntArray

Z90 = 1.2815515655446004
"""The standard normal's 90th percentile."""


def draw_lengths(lengths: Lengths, rng: np.random.Generator, shape: int | tuple[int, int]) -> IntArray:
    """Token counts of the given shape, each at least `min` and at most `cap`.

    Counts outside are clipped, not drawn again: that leaves every percentile between `min` and `cap` where it was,
    and real traces pile up at the context limit just so (5 % of Azure's code prompts do).
    """
    if lengths.fixed is not None:
        return np.full(shape, lengths.fixed, dtype=np.int64)
    mu, sigma = _lognormal(lengths)
    drawn = np.rint(np.exp(mu + sigma * rng.standard_normal(shape)))
    return np.clip(drawn, lengths.min, lengths.cap).astype(np.int64)


def clip_to_context(workload: Workload, prompts: IntArray, outputs: IntArray) -> tuple[IntArray, IntArray]:
    """`prompts` (tokens beyond the shared system text) and `outputs` cut so that no request exceeds `max_model_len`.

    The answer keeps its length where the shortest prompt leaves room for it; the prompt gets what is left.
    """
    if workload.max_model_len is None:
        return prompts, outputs
    assert workload.prompt is not None
    room = workload.max_model_len - workload.shared.system_tokens
    outputs = np.minimum(outputs, room - (workload.prompt.fixed or workload.prompt.min))
    return np.minimum(prompts, room - outputs), outputs


def draw_durations_s(mean_s: float, sd_s: float, rng: np.random.Generator, shape: tuple[int, int]) -> FloatArray:
    """Lognormal durations of the given mean and standard deviation, seconds; all 0 where the mean is."""
    if mean_s == 0:
        return np.zeros(shape)
    mu, sigma = _by_moments(mean_s, sd_s)
    return np.exp(mu + sigma * rng.standard_normal(shape))


def _lognormal(lengths: Lengths) -> tuple[float, float]:
    """Mean and standard deviation of the logarithm."""
    if lengths.p50 is not None and lengths.p90 is not None:
        return log(lengths.p50), log(lengths.p90 / lengths.p50) / Z90
    assert lengths.mean is not None and lengths.sd is not None
    return _by_moments(lengths.mean, lengths.sd)


def _by_moments(mean: float, sd: float) -> tuple[float, float]:
    variance = log(1 + (sd / mean) ** 2)
    return log(mean) - variance / 2, sqrt(variance)
