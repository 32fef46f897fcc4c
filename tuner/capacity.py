"""Capacity (G3): the highest rate offered that a server kept up with, whatever the SLO's attainment. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.config.slo import Limits
from tuner.outcome import CapacityBy
from tuner.score import Score
from tuner.target import OpenLoop

QUEUE_LIMIT_S = 2.0
"""Sarathi-Serve and Vidur limit the median wait for a place in the batch to this."""

FAILED_FRAC = 0.01
"""A server that turns more away does not keep up: those who are left have a short queue."""

JUST_ABOVE = 1.1
"""A server that did not keep up with a rate so little higher is known to this factor."""


@dataclass(frozen=True)
class Capacity:
    """The rate, and what showed the queue: the engine's own times, or where it does not export them TTFT.

    `is_least`: a server that misses its SLO early is offered low rates only, and may keep up with far higher ones;
    False where it did not keep up with one that was just above.
    """

    rate_rps: float
    by: CapacityBy
    is_least: bool


def capacity(probes: Sequence[Score], limits: Limits) -> Capacity | None:
    """The highest open-loop rate among `probes` that the server kept up with; None where there is none.

    It is one at which hardly a request failed, the median queue stayed short and the pooled P99 gap kept its limit.
    """
    rates = [(found.load.rate_rps, found) for found in probes if isinstance(found.load, OpenLoop)]
    kept_up = [(rate, _queue_p50_s(found)[1]) for rate, found in rates if _kept_up(found, limits)]
    if not kept_up:
        return None
    highest, by = max(kept_up)
    too_much = [rate for rate, found in rates if _fell_behind(found, limits)]
    return Capacity(highest, by, is_least=not any(highest <= rate <= JUST_ABOVE * highest for rate in too_much))


def _kept_up(found: Score, limits: Limits) -> bool:
    """Whether it was seen to keep up, to the end."""
    is_seen = found.stopped is None and found.itl_s is not None and _queue_p50_s(found)[0] < math.inf
    return is_seen and not _fell_behind(found, limits)


def _fell_behind(found: Score, limits: Limits) -> bool:
    """Whether it was seen not to keep up; one that was stopped early perhaps had yet to show it."""
    queue_s, _ = _queue_p50_s(found)
    has_queue = QUEUE_LIMIT_S < queue_s < math.inf
    has_gaps = found.itl_s is not None and found.itl_s.p99 > (limits.itl_s or limits.tpot_s or math.inf)
    return has_queue or has_gaps or found.missed.get("failed", 0) > FAILED_FRAC * found.counted


def _queue_p50_s(found: Score) -> tuple[float, CapacityBy]:
    """The median wait, and who says so; inf where nobody does."""
    if found.engine and found.engine.queue_p50_s is not None:
        return found.engine.queue_p50_s, "queue_time"
    return found.ttft_s.p50 if found.ttft_s else math.inf, "ttft"
