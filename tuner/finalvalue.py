"""Final value: what fresh seeds say a finalist is worth, and how sure that is. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv, ndtri, stdtrit

from tuner.requests import FloatArray

LEAST_SEEDS = 2
TINY = 1e-30
# So many are asked for unless the user wants otherwise, and a conclusion from fewer is never called sure.
ENOUGH_SEEDS = 5
# What is usual of a seed's spread tells as much as so many seeds would; the less, the further the seen variance is
# beyond so many times the usual one, as where a box drifts.
USUAL_WORTH, UNUSUAL = 6.0, 2.0
# Of the variance of two values this share is in their ratio where they were measured with the same seeds at the same
# load, and so much more for each unit of its logarithm between them: the same trace at another speed is another one.
# Of five pairs of simulated servers 0.09 to 0.24 at loads 1.1 to 1.3 times apart, 0.84 at 4.3 times.
NOT_SHARED, NOT_SHARED_PER_LOG = 0.1, 0.5
# Both ends of a 95 % interval.
TAIL, TOP = 0.025, 0.975
# Of so small a relative error the skew does not show; more than such a large one nobody should believe.
SKEWED_FROM, SKEWED_TO = 0.01, 1.5


@dataclass(frozen=True)
class Value:
    """A finalist's value. `per_seed` in good requests/s per GPU, by replicate; `level` is where it has that value.

    `holds` says whether some level held the SLO in the mean over seeds; `attainment` is the mean at `level`, which
    lies between the measured levels of `between` (the same one twice where only one was).
    `is_settled`: the edge or the peak was reached; else the value is only a bound. `usual_spread`: the standard
    deviation of the logarithm of a seed's value that is usual of servers with such a slope; 0 where nothing is usual.
    `may_hold`: it missed the SLO, but the 95 % interval of its mean attainment includes the one asked for.
    `steepness`: by how many per cent the odds of a bad request change where the value changes by one.
    """

    trial: int
    holds: bool
    level: float
    attainment: float
    per_seed: Mapping[int, float]
    between: tuple[float, float] = (0.0, 0.0)
    is_settled: bool = True
    usual_spread: float = 0.0
    may_hold: bool = False
    steepness: float = 0.0

    @property
    def mean(self) -> float:
        """Geometric mean over seeds, good requests/s per GPU; 0 where it holds at no level."""
        return float(np.exp(np.mean(np.log(list(self.per_seed.values()))))) if self.holds else 0.0

    @property
    def ci95(self) -> tuple[float, float] | None:
        """95 % interval of the mean, good requests/s per GPU; None where it holds at no level.

        It reaches further down than up, the more so the steeper the server's cliff: few seeds rarely hold the bad one
        that makes the mean.
        """
        if not self.holds or len(self.per_seed) < LEAST_SEEDS:
            return None
        found = _estimate(np.log(list(self.per_seed.values())), self.usual_spread)
        down, up = _arms(found.error * self.steepness)
        half = found.error * found.quantile
        return float(np.exp(found.mean - down * half)), float(np.exp(found.mean + up * half))


@dataclass(frozen=True)
class _Estimate:
    """A mean, its standard error, and how many of these a 95 % interval reaches."""

    mean: float
    error: float
    quantile: float


def interval(values: Iterable[float], usual_spread: float = 0.0) -> tuple[float, float]:
    """95 % t interval of the mean of independent replicates; (v, v) for a single one.

    Where it is known how far replicates usually spread (standard deviation), that counts like USUAL_WORTH more of
    them: a few that happened to agree show no spread (moderated t statistic; Smyth 2004, doi:10.2202/1544-6115.1027).
    It counts for less where they spread by far more.
    """
    sample = np.array(list(values), dtype=float)
    if len(sample) < 2:
        return float(sample[0]), float(sample[0])
    found = _estimate(sample, usual_spread)
    half = found.error * found.quantile
    return found.mean - half, found.mean + half


def _estimate(sample: FloatArray, usual_spread: float) -> _Estimate:
    """Of at least two replicates, as `interval` says."""
    seen, free = float(sample.var(ddof=1)), len(sample) - 1
    worth = USUAL_WORTH * min(1.0, UNUSUAL * usual_spread**2 / max(seen, TINY)) if usual_spread else 0.0
    variance = (worth * usual_spread**2 + free * seen) / (worth + free)
    return _Estimate(float(sample.mean()), (variance / len(sample)) ** 0.5, float(stdtrit(worth + free, TOP)))


def _arms(relative_error: float) -> tuple[float, float]:
    """How much longer than half of a symmetric interval this one is below and above.

    The share of bad requests is not below 0: windows of the same load have ones like a gamma distribution. That of a
    mean with such a relative error has the shape 1 / error². The load at the edge moves against its logarithm.
    """
    if relative_error < SKEWED_FROM:
        return 1.0, 1.0
    error = min(relative_error, SKEWED_TO)
    shape = error**-2
    few, many = (np.log(gammaincinv(shape, share) / shape) / (ndtri(TOP) * error) for share in (TAIL, TOP))
    return float(-few), float(many)


def common_seeds(best: Value, default: Value) -> list[int]:
    """The replicates that both have a value for; a ratio takes at least LEAST_SEEDS of them."""
    return sorted(set(best.per_seed) & set(default.per_seed))


def paired_ratio(best: Value, default: Value) -> tuple[float, tuple[float, float], FloatArray]:
    """Ratio of goodputs, its paired 95 % interval, and the ratio of each seed; geometric, over common seeds."""
    common = common_seeds(best, default)
    assert len(common) >= LEAST_SEEDS, "one seed says nothing of how sure its ratio is"
    logs = np.array([np.log(best.per_seed[seed] / default.per_seed[seed]) for seed in common])
    usual = best.usual_spread and default.usual_spread and np.hypot(best.usual_spread, default.usual_spread)
    apart = abs(np.log(best.level / default.level))
    low, high = interval(logs, min(NOT_SHARED + NOT_SHARED_PER_LOG * apart, 1.0) ** 0.5 * usual)
    return float(np.exp(logs.mean())), (float(np.exp(low)), float(np.exp(high))), np.exp(logs)
