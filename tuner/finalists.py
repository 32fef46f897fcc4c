"""Finalists: the winner and the default measured again on fresh seeds, before one may beat the other. Pure.

Each is measured at a few levels around the one its search found, every level with the same seeds, until the mean
attainment over seeds holds at one level and fails at the next. Its value is the goodput at the edge between them
(or at the level where goodput peaks, if that lies below the edge); a seed's own value differs by how much better
or worse that seed did at the levels that bracket the edge.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from tuner.requests import FloatArray
from tuner.score import Score

STEP = 1.05
# Levels further apart than this have another one measured between them.
WIDE = 1.11
BOLDEST = 1.4
# Where the highest level leaves more than half of the allowed misses unused, the edge is some way off.
BOLD, SPARE = 1.15, 0.5
MAX_LEVELS = 8
# A finalist that misses the SLO even so far below the level its search found does not hold it.
FAR_BELOW = 0.75
LEAST_SEEDS = 2
# So many are asked for unless the user wants otherwise, and a conclusion from fewer is never called sure.
ENOUGH_SEEDS = 5
# Where attainment hardly falls between two levels, a seed's edge cannot be told: bounds of its logarithm.
SHIFTS = (-0.5, 0.5)


@dataclass(frozen=True)
class Finalist:
    """A configuration to measure again: its trial, the level its search found (req/s, users, or the one
    level there is), and its GPUs. `least`: the lowest level worth having. `counted`: requests that each window must
    be expected to count at least."""

    trial: int
    level: float
    gpus: int
    steps: Literal["rate", "users", "none"] = "rate"
    least: float = 0.0
    counted: int = 0


@dataclass(frozen=True)
class FinalistRun:
    """One window of one finalist: `replicate` is the seed's number, `rate` its level (req/s or users). Costs on
    the target's clock; the start-up stands with the first window of a launch."""

    trial: int
    replicate: int
    rate: float
    score: Score
    startup_s: float = 0.0
    measuring_s: float = 0.0


@dataclass(frozen=True)
class Value:
    """A finalist's value. `per_seed` in good requests/s per GPU, by replicate; `level` is where it has that value.

    `holds` says whether some level held the SLO in the mean over seeds; `attainment` is the mean at `level`, which
    lies between the measured levels of `between` (the same one twice where goodput peaks at a measured level).
    `is_settled`: the edge or the peak was reached; else the value is only a bound.
    """

    trial: int
    holds: bool
    level: float
    attainment: float
    per_seed: Mapping[int, float]
    between: tuple[float, float] = (0.0, 0.0)
    is_settled: bool = True

    @property
    def mean(self) -> float:
        """Geometric mean over seeds, good requests/s per GPU; 0 where it holds at no level."""
        return float(np.exp(np.mean(np.log(list(self.per_seed.values()))))) if self.holds else 0.0

    @property
    def ci95(self) -> tuple[float, float] | None:
        """95 % interval of the mean, good requests/s per GPU; None where it holds at no level."""
        if not self.holds or len(self.per_seed) < LEAST_SEEDS:
            return None
        low, high = interval(np.log(list(self.per_seed.values())))
        return float(np.exp(low)), float(np.exp(high))


@dataclass(frozen=True)
class Cell:
    """One window to measure, long enough for `counted` requests."""

    trial: int
    replicate: int
    level: float
    counted: int = 0


def next_cells(finalist: Finalist, runs: Sequence[FinalistRun], seeds: int, attainment: float) -> list[Cell]:
    """The windows still needed for this finalist, [] when its edge is bracketed or no more levels are worth it.

    What was begun with more seeds than `seeds` (before a --resume with fewer) is ended with as many.
    """
    own = [run for run in runs if run.trial == finalist.trial]
    seeds = max([seeds, *(run.replicate + 1 for run in own)])
    planned = {finalist.level} | {run.rate for run in own}
    if finalist.level > finalist.least:
        planned |= {_step(finalist, finalist.level, STEP)}
    missing = _missing(finalist, planned, own, seeds)
    if missing:
        return missing
    if len(planned) >= MAX_LEVELS:
        return []
    level = _next_level(finalist, own, attainment) if finalist.steps != "none" else None
    return [] if level is None else _missing(finalist, {level}, own, seeds)


def value_of(finalist: Finalist, runs: Sequence[FinalistRun], attainment: float) -> Value:
    """What the finalist's windows say it is worth. Levels that not every seed was measured at do not count, and one
    at which a seed had no good request does not hold even where the attainment asked for is 0."""
    own = _at_complete_levels([run for run in runs if run.trial == finalist.trial])
    means = _mean_attainment(own)
    barren = {run.rate for run in own if run.score.good == 0}
    passing = [level for level in sorted(means) if means[level] >= attainment and level not in barren]
    if not passing:
        closest = max(means, key=lambda level: means[level])
        nothing = {run.replicate: 0.0 for run in own}
        is_lowest = finalist.steps == "none" or min(means) <= max(finalist.least, finalist.steps == "users")
        is_settled = is_lowest or min(means) <= FAR_BELOW * finalist.level
        return Value(finalist.trial, False, closest, means[closest], nothing, (closest, closest), is_settled)
    goodput = _mean_goodput(own)
    best = max(passing, key=lambda level: goodput[level])
    failing = [level for level in sorted(means) if level > best and means[level] < attainment]
    if best == passing[-1] and failing:
        edge = _edge(own, (best, failing[0]), attainment)
        value = Value(finalist.trial, True, edge.level, attainment, edge.per_seed, (best, failing[0]))
    else:
        at_peak = {run.replicate: _goodput_rps(run.score) for run in own if run.rate == best}
        is_settled = finalist.steps == "none" or _has_peaked(own)
        value = Value(finalist.trial, True, best, means[best], at_peak, (best, best), is_settled)
    return replace(value, per_seed={seed: goodput / finalist.gpus for seed, goodput in value.per_seed.items()})


def interval(values: Iterable[float]) -> tuple[float, float]:
    """95 % t interval of the mean of independent replicates; (v, v) for a single one."""
    sample = np.array(list(values), dtype=float)
    if len(sample) < 2:
        return float(sample[0]), float(sample[0])
    half = float(stdtrit(len(sample) - 1, 0.975)) * float(sample.std(ddof=1)) / len(sample) ** 0.5
    return float(sample.mean()) - half, float(sample.mean()) + half


def paired_ratio(best: Value, default: Value) -> tuple[float, tuple[float, float], FloatArray]:
    """Ratio of goodputs, its paired 95 % interval, and the ratio of each seed; geometric, over common seeds."""
    common = sorted(set(best.per_seed) & set(default.per_seed))
    logs = np.array([np.log(best.per_seed[seed] / default.per_seed[seed]) for seed in common])
    low, high = interval(logs)
    return float(np.exp(logs.mean())), (float(np.exp(low)), float(np.exp(high))), np.exp(logs)


def _next_level(finalist: Finalist, own: Sequence[FinalistRun], attainment: float) -> float | None:
    """Down while even the lowest level misses, up while the highest holds and pays, then between where it is far."""
    means = _mean_attainment(own)
    lowest, highest = min(means), max(means)
    if attainment > 0 and means[lowest] < attainment:
        return _step(finalist, lowest, 1 / _boldness(means, attainment)) if lowest > finalist.least else None
    if means[highest] >= attainment:
        spare = (means[highest] - attainment) / (1 - attainment)
        return None if _has_peaked(own) else _step(finalist, highest, BOLD if spare > SPARE else STEP)
    passing = max(level for level in means if means[level] >= attainment)
    failing = min(level for level in means if level > passing)
    middle = _step(finalist, passing, (failing / passing) ** 0.5)
    return middle if failing > passing * WIDE and passing < middle < failing else None


def _boldness(means: Mapping[float, float], attainment: float) -> float:
    """How far to step down: as far as the line through the two lowest levels says, within bounds."""
    lowest, above = sorted(means)[:2]
    slope = (means[lowest] - means[above]) / np.log(above / lowest)
    if slope <= 0:
        return BOLDEST
    return float(np.clip(np.exp((attainment - means[lowest]) / slope), STEP, BOLDEST))


@dataclass(frozen=True)
class _Edge:
    """Where the mean attainment crosses the one wanted, and the goodput of each seed there (of the server)."""

    level: float
    per_seed: Mapping[int, float]


def _edge(own: Sequence[FinalistRun], between: tuple[float, float], wanted: float) -> _Edge:
    """The edge between two levels. Between them the odds of a bad request grow as a power of the load: a straight
    line would put the edge of a cliff too low. Seeds differ by attainment, with one slope for all."""
    passing, failing = between
    means = _mean_attainment(own)
    slope = (means[passing] - means[failing]) / np.log(failing / passing)
    counted = sum(run.score.counted for run in own if run.rate == passing)
    least, edge, most = (_log_odds(share, counted) for share in (means[passing], wanted, means[failing]))
    level = passing * (failing / passing) ** ((edge - least) / (most - least))
    offered_rps = level / passing * np.mean([run.score.offered_rps for run in own if run.rate == passing])
    replicates = sorted({run.replicate for run in own})
    shifts = np.clip([_shift(own, replicate, means, between) / slope for replicate in replicates], *SHIFTS)
    # Clipped shifts need not cancel, but the seeds' mean is the edge.
    per_seed = wanted * offered_rps * np.exp(shifts - shifts.mean())
    return _Edge(float(level), dict(zip(replicates, per_seed.tolist(), strict=True)))


def _log_odds(attainment: float, counted: int) -> float:
    """Of a bad request; where none was bad among so many, of half a one."""
    bad = float(np.clip(1 - attainment, 0.5 / counted, 1 - 0.5 / counted))
    return float(np.log(bad / (1 - bad)))


def _shift(
    own: Sequence[FinalistRun], replicate: int, means: Mapping[float, float], levels: tuple[float, float]
) -> float:
    """How much better than the mean one seed did at the bracketing levels, in attainment."""
    differences = [
        run.score.attainment - means[run.rate] for run in own if run.replicate == replicate and run.rate in levels
    ]
    return float(np.mean(differences)) if differences else 0.0


def _at_complete_levels(own: Sequence[FinalistRun]) -> list[FinalistRun]:
    """The windows of the levels that were measured with as many seeds as any."""
    seeds = {run.rate: len({other.replicate for other in own if other.rate == run.rate}) for run in own}
    return [run for run in own if seeds[run.rate] == max(seeds.values())]


def _mean_attainment(own: Sequence[FinalistRun]) -> dict[float, float]:
    levels = {run.rate for run in own}
    return {level: float(np.mean([run.score.attainment for run in own if run.rate == level])) for level in levels}


def _mean_goodput(own: Sequence[FinalistRun]) -> dict[float, float]:
    levels = {run.rate for run in own}
    return {level: float(np.mean([_goodput_rps(run.score) for run in own if run.rate == level])) for level in levels}


def _goodput_rps(score: Score) -> float:
    """Good requests per second at the load that was asked for; how many happened to come says nothing of a server."""
    return score.attainment * score.offered_rps


def _has_peaked(own: Sequence[FinalistRun]) -> bool:
    """Whether goodput at the highest level is already below that of a lower one."""
    goodput = _mean_goodput(own)
    return goodput[max(goodput)] < max(goodput.values())


def _missing(finalist: Finalist, levels: Iterable[float], own: Sequence[FinalistRun], seeds: int) -> list[Cell]:
    done = {(run.replicate, run.rate) for run in own}
    return [
        Cell(finalist.trial, replicate, level, finalist.counted)
        for replicate in range(seeds)
        for level in sorted(levels)
        if (replicate, level) not in done
    ]


def _step(finalist: Finalist, level: float, factor: float) -> float:
    """The level `factor` times as high, but at least one user away."""
    match finalist.steps:
        case "none":
            return level
        case "users":
            return max(1.0, level + (1 if factor > 1 else -1) * max(1, round(level * abs(factor - 1))))
        case "rate":
            return float(f"{level * factor:.3g}")
