"""Latencies: how long each request of a probe took, and percentiles of that. Pure."""

from dataclasses import dataclass

import numpy as np

from tuner.requestlog import RequestLog
from tuner.requests import BoolArray, FloatArray, IntArray
from tuner.target import ClosedLoop, Load


@dataclass(frozen=True)
class Percentiles:
    """Linear-interpolated percentiles of one metric over counted requests that ended well, in the metric's unit."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Latencies:
    """Per request (n,), seconds, NaN where not observed."""

    ttft_s: FloatArray
    tpot_s: FloatArray
    e2e_s: FloatArray
    normalized_s: FloatArray


def latencies(log: RequestLog, load: Load) -> Latencies:
    """Every request's own latencies. The clock starts at the due time; in a closed loop, where nobody queues
    outside the server, at the send time."""
    return latencies_from(start_s(log, load), log.first_s, log.last_s, log.output_tokens)


def latencies_from(start: FloatArray, first: FloatArray, last: FloatArray, output_tokens: IntArray) -> Latencies:
    """Latencies from when each clock starts, and its first and last chunk, seconds, (n,) each."""
    tokens = output_tokens.astype(float)
    several = tokens > 1
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(several, (last - first) / np.where(several, tokens - 1, 1), np.nan)
        normalized = np.where(tokens > 0, (last - start) / tokens, np.nan)
    return Latencies(first - start, tpot, last - start, normalized)


def start_s(log: RequestLog, load: Load) -> FloatArray:
    """When each request's clock starts, (n,)."""
    return log.sent_s if isinstance(load, ClosedLoop) else log.due_s


def own_itl_s(log: RequestLog) -> FloatArray:
    """The nearest-rank P99 of each request's own chunk gaps, (n,); NaN where it has no gap.

    Below 100 gaps the nearest rank ⌈0.99·n⌉ is n: the maximum.
    """
    chunks = np.diff(log.chunk_start)
    p99 = np.full(len(log), np.nan)
    gaps = np.diff(log.chunk_s, prepend=0.0)
    some = np.flatnonzero(chunks > 1)
    if not len(some):
        return p99
    gaps[log.chunk_start[:-1][chunks > 0]] = -np.inf
    p99[chunks > 0] = np.maximum.reduceat(gaps, log.chunk_start[:-1][chunks > 0])
    p99[chunks == 1] = np.nan
    for row in some[chunks[some] > 100]:
        own = gaps[log.chunk_start[row] + 1 : log.chunk_start[row + 1]]
        rank = -(-99 * len(own) // 100) - 1
        p99[row] = np.partition(own, rank)[rank]
    return p99


def has_long_gaps(log: RequestLog, limit_s: float) -> BoolArray:
    """Whose `own_itl_s` is over a limit, (n,): more than one gap in a hundred is. Found without any sorting."""
    chunks = np.diff(log.chunk_start)
    is_long = np.diff(log.chunk_s, prepend=0.0) > limit_s
    is_long[log.chunk_start[:-1][chunks > 0]] = False
    owner = np.searchsorted(log.chunk_start, np.flatnonzero(is_long), side="right") - 1
    return np.asarray(np.bincount(owner, minlength=len(log)) > np.maximum(chunks - 1, 0) // 100)


def pooled_gaps_s(log: RequestLog, rows: BoolArray) -> FloatArray:
    """The chunk gaps of all `rows` in one array."""
    gaps = np.diff(log.chunk_s)
    owner = np.repeat(np.arange(len(log)), np.diff(log.chunk_start))
    within = (owner[1:] == owner[:-1]) & rows[owner[1:]]
    return np.asarray(gaps[within], dtype=np.float64)


def percentiles(values: FloatArray) -> Percentiles | None:
    """Of all `values` that are not NaN; None where there is none."""
    seen = values[~np.isnan(values)]
    if not len(seen):
        return None
    p50, p90, p99 = np.percentile(seen, (50, 90, 99))
    return Percentiles(float(p50), float(p90), float(p99))
