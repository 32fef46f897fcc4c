"""Final value: what fresh seeds say a finalist is worth, and how sure that is. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from tuner.requests import FloatArray

LEAST_SEEDS = 2
TINY = 1e-30
# So many are asked for unless the user wants otherwise, and a conclusion from fewer is never called sure.
ENOUGH_SEEDS = 5
# What is usual of a seed's spread tells as much as so many seeds would; the less, the further the seen variance is
# beyond so many times the usual one, as where a box drifts.
USUAL_WORTH, UNUSUAL = 6.0, 2.0
# Of the variance of two values this share is in their ratio where they were measured with the same seeds.
NOT_SHARED = 0.2


@dataclass(frozen=True)
class Value:
    """A finalist's value. `per_seed` in good requests/s per GPU, by replicate; `level` is where it has that value.

    `holds` says whether some level held the SLO in the mean over seeds; `attainment` is the mean at `level`, which
    lies between the measured levels of `between` (the same one twice where only one was).
    `is_settled`: the edge or the peak was reached; else the value is only a bound. `usual_spread`: the standard
    deviation of the logarithm of a seed's value that is usual of servers with such a slope; 0 where nothing is usual.
    `may_hold`: it missed the SLO, but the 95 % interval of its mean attainment includes the one asked for.
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

    @property
    def mean(self) -> float:
        """Geometric mean over seeds, good requests/s per GPU; 0 where it holds at no level."""
        return float(np.exp(np.mean(np.log(list(self.per_seed.values()))))) if self.holds else 0.0

    @property
    def ci95(self) -> tuple[float, float] | None:
        """95 % interval of the mean, good requests/s per GPU; None where it holds at no level."""
        if not self.holds or len(self.per_seed) < LEAST_SEEDS:
            return None
        low, high = interval(np.log(list(self.per_seed.values())), self.usual_spread)
        return float(np.exp(low)), float(np.exp(high))


def interval(values: Iterable[float], usual_spread: float = 0.0) -> tuple[float, float]:
    """95 % t interval of the mean of independent replicates; (v, v) for a single one.

    Where it is known how far replicates usually spread (standard deviation), that counts like USUAL_WORTH more of
    them: a few that happened to agree show no spread (moderated t statistic; Smyth 2004, doi:10.2202/1544-6115.1027).
    It counts for less where they spread by far more.
    """
    sample = np.array(list(values), dtype=float)
    if len(sample) < 2:
        return float(sample[0]), float(sample[0])
    seen, free = float(sample.var(ddof=1)), len(sample) - 1
    worth = USUAL_WORTH * min(1.0, UNUSUAL * usual_spread**2 / max(seen, TINY)) if usual_spread else 0.0
    variance = (worth * usual_spread**2 + free * seen) / (worth + free)
    half = float(stdtrit(worth + free, 0.975)) * (variance / len(sample)) ** 0.5
    return float(sample.mean()) - half, float(sample.mean()) + half


def common_seeds(best: Value, default: Value) -> list[int]:
    """The replicates that both have a value for; a ratio takes at least LEAST_SEEDS of them."""
    return sorted(set(best.per_seed) & set(default.per_seed))


def paired_ratio(best: Value, default: Value) -> tuple[float, tuple[float, float], FloatArray]:
    """Ratio of goodputs, its paired 95 % interval, and the ratio of each seed; geometric, over common seeds."""
    common = common_seeds(best, default)
    assert len(common) >= LEAST_SEEDS, "one seed says nothing of how sure its ratio is"
    logs = np.array([np.log(best.per_seed[seed] / default.per_seed[seed]) for seed in common])
    usual = best.usual_spread and default.usual_spread and np.hypot(best.usual_spread, default.usual_spread)
    low, high = interval(logs, NOT_SHARED**0.5 * usual)
    return float(np.exp(logs.mean())), (float(np.exp(low)), float(np.exp(high))), np.exp(logs)
