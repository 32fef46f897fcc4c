"""Finalists: the winner and the default measured again on fresh seeds, before one may beat the other. Pure.

Each is measured at a few levels around the one its search found, every level with the same seeds, until the mean
attainment over seeds holds at one level and fails at the next. Its value is the goodput at the crest (`tuner.crest`):
at the edge between them, or where goodput peaks below it. A seed's own value differs by how much better or worse that
seed did at the levels around it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tuner.config.workload import Workload
from tuner.crest import crest_of
from tuner.finalruns import FinalistRun, at_complete_levels, has_peaked, levels_of, mean_attainment, mean_goodput
from tuner.finalvalue import LEAST_SEEDS, Value, interval
from tuner.requests import FloatArray
from tuner.stride import BOLDEST, STEP, stride_down, stride_up

# So near the lowest level a crest below it need not be looked for.
NEARLY = 1.01
# Levels further apart than this have another one measured between them.
WIDE = 1.11
MAX_LEVELS = 8
# A finalist that misses the SLO even so far below the level its search found does not hold it.
FAR_BELOW = 0.75
# Where attainment hardly falls between levels, a seed's value cannot be told: bounds of its logarithm.
SHIFTS = (-0.5, 0.5)
# Without one of the seeds the crest may lie outside of the levels that bracket it with all, by so much.
BEYOND = 1.2
# The variance of a window's attainment over that of independent requests, at the crest, per power of the odds: the
# steeper a server's cliff, the more its requests share their fate. 2 in the mean over ten simulated servers to which
# requests came as a Poisson process.
DISPERSION_PER_POWER = 2.0


@dataclass(frozen=True)
class Finalist:
    """A configuration to measure again: its trial, the level its search found (req/s, users, or the one
    level there is), and its GPUs. `least`: the lowest level worth having. `counted`: requests that each window must
    be expected to count at least. `usual_variance`: of windows, relative to those of Poisson arrivals; 0: unknown.
    `turn_s`: how long a turn of a user takes with its pause, where load is offered by users."""

    trial: int
    level: float
    gpus: int
    steps: Literal["rate", "users", "none"] = "rate"
    least: float = 0.0
    counted: int = 0
    usual_variance: float = 1.0
    turn_s: float | None = None


@dataclass(frozen=True)
class Cell:
    """One window to measure, long enough for `counted` requests; of users, whose turns take `turn_s`."""

    trial: int
    replicate: int
    level: float
    counted: int = 0
    turn_s: float | None = None


def usual_variance(workload: Workload) -> float:
    """Of windows of this workload, relative to those of requests that come singly as a Poisson process.

    Of gamma gaps (cv² + 1)/2, as waiting has by Kingman's formula (1961) where service times vary as exponential ones
    do. 0 where it is not known: users wait for a full server; sessions and recordings have bursts of their own.
    """
    arrivals = workload.arrivals
    if workload.turns is not None or arrivals.kind in {"closed", "trace", "at_once"}:
        return 0.0
    return ((arrivals.cv or 1.0) ** 2 + 1) / 2


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
    own = at_complete_levels([run for run in runs if run.trial == finalist.trial])
    means, goodput = mean_attainment(own), mean_goodput(own)
    barren = {run.rate for run in own if run.score.good == 0 and run.score.counted}
    passing = [level for level in sorted(means) if means[level] >= attainment and level not in barren]
    if not passing:
        return _held_nowhere(finalist, own, attainment)
    best = max(passing, key=lambda level: goodput[level])
    value = _around(finalist, own, best, attainment) if len(means) > 1 else _at_one_level(finalist, own)
    is_edge = best == passing[-1] and best < max(means)
    is_bracketed = is_edge or has_peaked(own)
    is_settled = finalist.steps == "none" or (is_bracketed and _crest_below(finalist, own, attainment) is None)
    return replace(value, is_settled=is_settled)


def _held_nowhere(finalist: Finalist, own: Sequence[FinalistRun], wanted: float) -> Value:
    """At none of its levels the SLO held: what it did best is all there is to say."""
    means = mean_attainment(own)
    closest = max(means, key=lambda level: means[level])
    is_lowest = finalist.steps == "none" or min(means) <= max(finalist.least, finalist.steps == "users")
    _, most = interval(run.score.attainment for run in own if run.rate == closest)
    return Value(
        finalist.trial,
        False,
        closest,
        means[closest],
        {run.replicate: 0.0 for run in own},
        between=(closest, closest),
        is_settled=is_lowest or min(means) <= FAR_BELOW * finalist.level,
        may_hold=most >= wanted,
    )


def _around(finalist: Finalist, own: Sequence[FinalistRun], best: float, wanted: float) -> Value:
    """The value between the measured levels next to the `best` one."""
    levels = sorted({run.rate for run in own})
    index = levels.index(best)
    near = levels[max(index - 1, 0) : index + 2]
    own = [run for run in own if run.rate in near]
    crest = crest_of(levels_of(own), (near[0], near[-1]), wanted)
    if finalist.steps == "users":
        crest = crest.at(float(np.floor(crest.level)))
    upper = next(level for level in near[1:] if level >= crest.level)
    dispersion = DISPERSION_PER_POWER * finalist.usual_variance
    usual = dispersion / (crest.slope * np.mean([run.score.counted for run in own]))
    logs = np.log(crest.goodput_rps / finalist.gpus) + _shifts(own, (near[0] / BEYOND, near[-1] * BEYOND), wanted)
    return Value(
        finalist.trial,
        True,
        crest.level,
        crest.attainment,
        dict(zip(_replicates(own), np.exp(logs).tolist(), strict=True)),
        between=(near[near.index(upper) - 1], upper),
        usual_spread=float(usual**0.5),
        steepness=crest.steepness,
    )


def _at_one_level(finalist: Finalist, own: Sequence[FinalistRun]) -> Value:
    only = own[0].rate
    seen = np.array([run.score.attainment * run.score.offered_rps for run in own]) / finalist.gpus
    # Around their arithmetic mean: one that saw twice as much and one that saw half do not make up for each other.
    per_seed = seen * seen.mean() / np.exp(np.log(seen).mean())
    by_seed = dict(zip([run.replicate for run in own], per_seed.tolist(), strict=True))
    return Value(finalist.trial, True, only, mean_attainment(own)[only], by_seed, (only, only))


def _shifts(own: Sequence[FinalistRun], within: tuple[float, float], wanted: float) -> FloatArray:
    """What each seed adds to the logarithm of the value, (seeds,), in the mean 0: the jackknife's pseudo-values.

    A seed adds as much as the value differs without it, times the number of the others (Quenouille 1956, Tukey 1958).
    """
    replicates = _replicates(own)
    if len(replicates) < LEAST_SEEDS:
        return np.zeros(len(replicates))
    without = [
        np.log(crest_of(levels_of([run for run in own if run.replicate != one]), within, wanted).goodput_rps)
        for one in replicates
    ]
    shifts = np.clip((len(replicates) - 1) * (np.mean(without) - without), *SHIFTS)
    return np.asarray(shifts - shifts.mean())


def _replicates(own: Sequence[FinalistRun]) -> list[int]:
    return sorted({run.replicate for run in own})


def _next_level(finalist: Finalist, own: Sequence[FinalistRun], attainment: float) -> float | None:
    """Down while even the lowest level misses or lies beyond the crest, up while the highest holds and pays, then
    between where levels are far apart."""
    means = mean_attainment(own)
    lowest, highest = min(means), max(means)
    if attainment > 0 and means[lowest] < attainment:
        is_least = lowest <= finalist.least
        return None if is_least else _step(finalist, lowest, 1 / stride_down(levels_of(own), attainment))
    below = _crest_below(finalist, own, attainment)
    if below is not None:
        return _step(finalist, lowest, min(below / lowest, 1 / STEP))
    if means[highest] >= attainment and not has_peaked(own):
        return _step(finalist, highest, stride_up(levels_of(own), attainment))
    return _between(finalist, own, attainment)


def _between(finalist: Finalist, own: Sequence[FinalistRun], attainment: float) -> float | None:
    """Half-way from the best level that holds the SLO to a neighbour that is far: the one above; where that holds it
    too, so that the best is a peak, the one below as well."""
    means, goodput = mean_attainment(own), mean_goodput(own)
    best = max((level for level in means if means[level] >= attainment), key=lambda level: goodput[level])
    above = min((level for level in means if level > best), default=best)
    gaps = [(best, above)]
    if means[above] >= attainment:
        gaps += [(max(level for level in means if level < best), best)] if best > min(means) else []
    for low, high in gaps:
        middle = _step(finalist, low, (high / low) ** 0.5)
        if high > low * WIDE and low < middle < high:
            return middle
    return None


def _crest_below(finalist: Finalist, own: Sequence[FinalistRun], attainment: float) -> float | None:
    """Where the crest is thought to be if that is below the lowest level, which holds the SLO; else None.

    A peak may be there: of two levels beyond it the lower one is the better, but none tells how much better it gets.
    """
    levels, goodput = levels_of(own), mean_goodput(own)
    lowest = levels[0].level
    is_least = lowest <= max(finalist.least, finalist.steps == "users")
    if is_least or len(levels) < 2 or max(goodput, key=lambda level: goodput[level]) != lowest:
        return None
    crest = crest_of(levels[:2], (lowest / BOLDEST, levels[1].level), attainment)
    return crest.level if crest.level < lowest / NEARLY else None


def _missing(finalist: Finalist, levels: Iterable[float], own: Sequence[FinalistRun], seeds: int) -> list[Cell]:
    done = {(run.replicate, run.rate) for run in own}
    return [
        Cell(finalist.trial, replicate, level, finalist.counted, finalist.turn_s)
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
