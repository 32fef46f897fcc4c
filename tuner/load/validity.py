"""Validity: whether a probe may be believed, or its client was late, busy or stood still. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tuner.config.slo import Limits, Slo
from tuner.requestlog import ClientHealth, RequestLog
from tuner.requests import BoolArray, FloatArray
from tuner.score import answers_of, bad_answers
from tuner.target import Load, OpenLoop

SEND_LAG_LIMIT_S = 0.050
# Of the limit on TTFT: a send so late cannot turn many good requests into bad ones; of a tight limit, more has to do.
SEND_LAG_SHARE, SEND_LAG_SHARE_OF_TIGHT = 0.1, 0.25
# A chunk that is read so late makes one gap longer by as much; a mean of ten gaps, by a tenth of it.
LAG_SHARE_OF_ITL, LAG_SHARE_OF_TPOT = 0.25, 1.0
# Any process on a busy machine may have to wait so long for a core now and then: for a send, for a read.
LEAST_LAG_LIMIT_S, LEAST_READ_LAG_LIMIT_S = 0.010, 0.025
BUSY_LIMIT_FRAC = 0.9
# A shorter probe is little more than its own beginning, which is busy on any machine.
SATURATION_SHOWS_S = 2.0
ADVICE = "give the client its own CPU cores, or lower the load"
# Of the requests that may miss the SLO so many may owe that to a client that stood still; of all requests never more
# than this; but two in any case.
IN_DOUBT_OF_MISSES, MOST_IN_DOUBT_FRAC, LEAST_IN_DOUBT = 0.25, 0.02, 2
# How long the client stood still is rounded up to a multiple of this, seconds.
STALL_STEP_S = 0.010


@dataclass(frozen=True)
class Tolerance:
    """What a client may have spoilt of a probe: sends and reads that are `lag_s` late at p99, and the share
    `in_doubt_frac` of its requests, which miss `limits` by no more than it stood still."""

    limits: Limits = field(default_factory=Limits)
    lag_s: float = SEND_LAG_LIMIT_S
    in_doubt_frac: float = 0.0


def tolerance_of(slo: Slo) -> Tolerance:
    """So little that attainment is hardly another."""
    in_doubt_frac = min(IN_DOUBT_OF_MISSES * (1 - slo.attainment), MOST_IN_DOUBT_FRAC)
    return Tolerance(slo.limits, tolerated_lag_s(slo.limits), in_doubt_frac)


def tolerated_lag_s(limits: Limits) -> float:
    """How late a client may send or read at p99: so little of the limits that good requests do not turn bad.

    But no less than what any process on a busy machine may have to wait for a core.
    """
    bounds_s = [_tolerated_by_ttft_s(limits.ttft_s)]
    if limits.itl_s is not None:
        bounds_s.append(max(LEAST_READ_LAG_LIMIT_S, LAG_SHARE_OF_ITL * limits.itl_s))
    if limits.tpot_s is not None:
        bounds_s.append(max(LEAST_READ_LAG_LIMIT_S, LAG_SHARE_OF_TPOT * limits.tpot_s))
    return max(LEAST_LAG_LIMIT_S, min(bounds_s))


def _tolerated_by_ttft_s(limit_s: float | None) -> float:
    if limit_s is None:
        return SEND_LAG_LIMIT_S
    tight_s = SEND_LAG_SHARE_OF_TIGHT * limit_s
    return max(min(SEND_LAG_LIMIT_S, tight_s), SEND_LAG_SHARE * limit_s)


def unbelievable(health: ClientHealth, load: Load, ended_s: float, lag_limit_s: float) -> str | None:
    """Why nobody should believe a probe that took `ended_s` seconds; None: it may be believed."""
    if ended_s >= SATURATION_SHOWS_S and health.busy_frac > BUSY_LIMIT_FRAC:
        return (
            f"the load generator's event loop was busy {health.busy_frac:.0%} of the time "
            f"(limit {BUSY_LIMIT_FRAC:.0%}, {health.workers} workers); {ADVICE}"
        )
    if isinstance(load, OpenLoop) and health.send_lag_p99_s > lag_limit_s:
        return _late("requests left", health.send_lag_p99_s, lag_limit_s, health)
    if ended_s >= SATURATION_SHOWS_S and health.wake_lag_p99_s > lag_limit_s:
        return _late("the load generator's event loop woke, and read,", health.wake_lag_p99_s, lag_limit_s, health)
    return None


def _late(what: str, lag_s: float, limit_s: float, health: ClientHealth) -> str:
    return (
        f"{what} {lag_s * 1e3:.0f} ms late at p99 (limit {limit_s * 1e3:.0f} ms, "
        f"{health.run_queue_wait_s:.1f} s spent waiting for a core); {ADVICE}"
    )


Stall = tuple[float, float]
"""From when to when an event loop stood still, seconds since the probe began."""


def longest_s(stalls: Sequence[Stall], due_s: FloatArray, ended_s: FloatArray) -> FloatArray:
    """The length of the longest stall in each request's time from `due_s` to `ended_s` (NaN: not ended), (n,)."""
    longest = np.zeros(len(due_s))
    until_s = np.where(np.isnan(ended_s), math.inf, ended_s)
    for began_s, over_s in sorted(stalls, key=lambda stall: stall[1] - stall[0]):
        longest[(due_s <= over_s) & (until_s >= began_s)] = over_s - began_s
    return longest


def in_doubt(log: RequestLog, load: Load, limits: Limits, stalled_s: FloatArray) -> BoolArray:
    """Which counted requests miss a limit by no more than their client stood still meanwhile, (n,).

    Nobody knows whether they would have missed it: what comes during a stall is read, and stamped, behind it.
    """
    answers = answers_of(log, load)
    doubtful = log.counted & bad_answers(answers, limits) & (stalled_s > 0)
    steps = np.ceil(stalled_s / STALL_STEP_S)
    for step in np.unique(steps[doubtful]):
        rows = doubtful & (steps == step)
        longer = {name: limit_s + float(step) * STALL_STEP_S for name, limit_s in limits.present().items()}
        doubtful[rows] = ~bad_answers(answers, limits.model_copy(update=longer))[rows]
    return np.asarray(doubtful)


def too_many(doubtful: BoolArray, log: RequestLog, in_doubt_frac: float) -> str | None:
    """Why nobody should believe a probe in which so many requests are in doubt; None: it may be believed."""
    found, counted = int(doubtful.sum()), int(log.counted.sum())
    if found <= max(LEAST_IN_DOUBT, in_doubt_frac * counted):
        return None
    what = f"{found} of {counted} requests miss a limit by no more than the load generator stood still meanwhile"
    return f"{what}; {ADVICE}"
