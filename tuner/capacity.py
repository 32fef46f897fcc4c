"""Capacity (G3): the highest rate that a server keeps up with, whatever the SLO's attainment. Pure."""

import math
from collections.abc import Sequence

from tuner.config.slo import Limits
from tuner.outcome import CapacityBy
from tuner.score import Score
from tuner.target import OpenLoop

QUEUE_LIMIT_S = 2.0
"""Sarathi-Serve and Vidur limit the median wait for a place in the batch to this."""

FAILED_FRAC = 0.01
"""A server that turns more away does not keep up: those who are left have a short queue."""


def capacity(probes: Sequence[Score], limits: Limits) -> tuple[float | None, CapacityBy | None]:
    """The highest open-loop rate that a server keeps up with, and what showed the queue: the engine's own times,
    or where it does not export them TTFT.

    It is one at which hardly a request fails, the median queue stays short and the pooled P99 gap keeps its limit;
    None where there is none.
    """
    gap_limit_s = limits.itl_s or limits.tpot_s or math.inf
    kept_up = []
    for found in probes:
        if not isinstance(found.load, OpenLoop) or found.stopped is not None or found.itl_s is None:
            continue
        if found.missed.get("failed", 0) > FAILED_FRAC * found.counted:
            continue
        queue_s, by = _queue_p50_s(found)
        if queue_s <= QUEUE_LIMIT_S and found.itl_s.p99 <= gap_limit_s:
            kept_up.append((found.load.rate_rps, by))
    return max(kept_up, default=(None, None))


def _queue_p50_s(found: Score) -> tuple[float, CapacityBy]:
    if found.engine and found.engine.queue_p50_s is not None:
        return found.engine.queue_p50_s, "queue_time"
    return found.ttft_s.p50 if found.ttft_s else math.inf, "ttft"
