"""Final runs: windows of finalists, and what those at one level say together. Pure.

How many requests a drawn window happens to hold says nothing of a server: every window counts alike, and goodput is
of the load that was asked for. How many a recording holds is the load: there requests count alike, as they came.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.crest import Level
from tuner.score import Score


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


def levels_of(own: Sequence[FinalistRun]) -> list[Level]:
    """One for each level, ascending. The load of a recording is in proportion to its level."""
    attainment, recorded = mean_attainment(own), any(run.score.is_recorded for run in own)
    came = float(np.mean([run.score.offered_rps / run.rate for run in own]))
    return [
        Level(
            rate,
            attainment[rate],
            sum(score.counted for score in scores),
            rate * came if recorded else float(np.mean([score.offered_rps for score in scores])),
        )
        for rate, scores in _by_rate(own).items()
    ]


def mean_attainment(own: Sequence[FinalistRun]) -> dict[float, float]:
    """By level, ascending: the mean over windows, or over requests of a recording."""
    return {rate: _attainment(scores) for rate, scores in _by_rate(own).items()}


def mean_goodput(own: Sequence[FinalistRun]) -> dict[float, float]:
    """Good requests/s by level, ascending."""
    return {level.level: level.attainment * level.offered_rps for level in levels_of(own)}


def has_peaked(own: Sequence[FinalistRun]) -> bool:
    """Whether goodput at the highest level is already below that of a lower one."""
    goodput = mean_goodput(own)
    return goodput[max(goodput)] < max(goodput.values())


def at_complete_levels(own: Sequence[FinalistRun]) -> list[FinalistRun]:
    """The windows of the levels that were measured with as many seeds as any, and with the same ones."""
    seeds = {rate: {run.replicate for run in own if run.rate == rate} for rate in sorted({run.rate for run in own})}
    most = max(seeds.values(), key=len, default=set())
    return [run for run in own if seeds[run.rate] == most]


def _attainment(scores: Sequence[Score]) -> float:
    weights = [score.counted if score.is_recorded else 1 for score in scores]
    if not any(weights):
        return 0.0
    return float(np.average([score.attainment for score in scores], weights=weights))


def _by_rate(own: Sequence[FinalistRun]) -> dict[float, list[Score]]:
    return {rate: [run.score for run in own if run.rate == rate] for rate in sorted({run.rate for run in own})}
