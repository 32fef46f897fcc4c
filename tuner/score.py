"""Score: what a probe was worth under an SLO's limits. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.config.slo import Limits
from tuner.requestlog import ClientHealth, RequestLog, Status
from tuner.requests import FloatArray, IntArray
from tuner.target import ClosedLoop, Load, OpenLoop

BoolArray = npt.NDArray[np.bool_]
BATCHES = 10


@dataclass(frozen=True)
class Percentiles:
    """Linear-interpolated percentiles of one metric over counted requests, in the metric's unit."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Health:
    """Whether a probe can be believed; its counted requests that ended, those of them that failed included.

    `wanted_tokens` were asked for, `received_tokens` the server says it gave, in `chunks` token-bearing chunks.
    `reusable_frac` of all prompt tokens would have been in an endless prefix cache, `cached_frac` were in the
    server's, as it says; None where it does not.
    """

    client: ClientHealth
    wanted_tokens: int
    received_tokens: int
    chunks: int
    reusable_frac: float | None
    cached_frac: float | None


@dataclass(frozen=True)
class Score:
    """One probe of one server. Rates are the server's (not per GPU), per second of the window.

    `attainment` is good/counted, where every request due in the window counts and a failed one is bad.
    `goodput_rps` is G1: good requests per second. `missed` counts the requests over each limit, and those that
    failed. `batch_attainment`: attainment of ten consecutive batches, for intervals that respect correlation.
    Percentiles are None where nothing was observed; `itl_s` pools the chunk gaps of all requests. `health` is None in
    virtual time.
    """

    load: Load
    counted: int
    good: int
    attainment: float
    goodput_rps: float
    request_rps: float
    throughput_tok_s: float
    tok_s_per_user: float
    ttft_s: Percentiles | None
    itl_s: Percentiles | None
    tpot_s: Percentiles | None
    e2e_s: Percentiles | None
    normalized_s: Percentiles | None
    missed: Mapping[str, int]
    batch_attainment: tuple[float, ...]
    stopped: str | None = None
    health: Health | None = None

    @property
    def offered_rps(self) -> float:
        """Requests that came per second: given in an open loop, observed in a closed one."""
        return self.load.rate_rps if isinstance(self.load, OpenLoop) else self.request_rps


@dataclass(frozen=True)
class Latencies:
    """Per request (n,), seconds, NaN where not observed."""

    ttft_s: FloatArray
    tpot_s: FloatArray
    e2e_s: FloatArray
    normalized_s: FloatArray


def score(log: RequestLog, load: Load, limits: Limits) -> Score:
    """What `log` was worth at `load` under `limits`."""
    times = latencies(log, load)
    # A probe stopped early is judged by the requests that had ended; one that ran on has none unfollowed.
    counted = log.counted & (log.status != Status.UNFOLLOWED) if log.stopped else log.counted
    misses = _misses(log, times, limits)
    good = counted & ~np.logical_or.reduce(list(misses.values()))
    ok = counted & (log.status == Status.OK)
    n_counted, n_good = int(counted.sum()), int(good.sum())
    tpot = _percentiles(times.tpot_s[ok])
    return Score(
        load=load,
        counted=n_counted,
        good=n_good,
        attainment=n_good / n_counted if n_counted else 0.0,
        goodput_rps=n_good / log.window_s,
        request_rps=int(ok.sum()) / log.window_s,
        throughput_tok_s=_tokens_in_window(log) / log.window_s,
        tok_s_per_user=1 / tpot.p50 if tpot and tpot.p50 > 0 else 0.0,
        ttft_s=_percentiles(times.ttft_s[ok]),
        itl_s=_percentiles(pooled_gaps_s(log, ok)),
        tpot_s=tpot,
        e2e_s=_percentiles(times.e2e_s[ok]),
        normalized_s=_percentiles(times.normalized_s[ok]),
        missed={name: int((counted & missed).sum()) for name, missed in misses.items()},
        batch_attainment=_batch_attainment(good[counted]),
        stopped=log.stopped,
        health=_health(log),
    )


def bad_requests(log: RequestLog, load: Load, limits: Limits) -> BoolArray:
    """Which requests failed or missed a limit, (n,)."""
    return np.asarray(np.logical_or.reduce(list(_misses(log, latencies(log, load), limits).values())))


def latencies(log: RequestLog, load: Load) -> Latencies:
    """Every request's own latencies. The clock starts at the due time; in a closed loop, where nobody queues
    outside the server, at the send time."""
    start = log.sent_s if isinstance(load, ClosedLoop) else log.due_s
    first, last = log.first_s, log.last_s
    tokens = log.output_tokens.astype(float)
    several = tokens > 1
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot = np.where(several, (last - first) / np.where(several, tokens - 1, 1), np.nan)
        normalized = np.where(tokens > 0, (last - start) / tokens, np.nan)
    return Latencies(first - start, tpot, last - start, normalized)


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


def _misses(log: RequestLog, times: Latencies, limits: Limits) -> dict[str, BoolArray]:
    """For each limit and for failure, who missed it. An unobserved metric is no miss of a healthy request."""
    misses: dict[str, BoolArray] = {"failed": log.status != Status.OK}
    ok = ~misses["failed"]
    for name, limit in limits.present().items():
        if name == "itl_s":
            misses[name] = ok & has_long_gaps(log, limit)
            continue
        per_token = limits.ttft_s_per_prompt_token if name == "ttft_s" else 0.0
        misses[name] = ok & (getattr(times, name) > limit + per_token * log.prompt_tokens)
    return misses


def _health(log: RequestLog) -> Health | None:
    if log.client is None:
        return None
    rows = log.counted & (log.status != Status.UNFOLLOWED)
    prompt_tokens = int(log.prompt_tokens[rows].sum())
    return Health(
        client=log.client,
        wanted_tokens=int(log.wanted_tokens[rows].sum()),
        received_tokens=int(log.output_tokens[rows].sum()),
        chunks=int(np.diff(log.chunk_start)[rows].sum()),
        reusable_frac=_share(log.reusable_tokens, rows, prompt_tokens),
        cached_frac=_share(log.cached_tokens, rows, prompt_tokens),
    )


def _share(tokens: IntArray | None, rows: BoolArray, total: int) -> float | None:
    return None if tokens is None or not total else int(tokens[rows].sum()) / total


def _tokens_in_window(log: RequestLog) -> float:
    """Output tokens emitted inside the window, whoever's they are; a chunk of a multi-token row counts its share."""
    chunks = np.diff(log.chunk_start)
    per_chunk = np.divide(log.output_tokens, chunks, out=np.zeros(len(log)), where=chunks > 0)
    inside = (log.chunk_s >= log.warmup_s) & (log.chunk_s < log.warmup_s + log.window_s)
    return float(np.repeat(per_chunk, chunks)[inside].sum())


def _batch_attainment(good: BoolArray) -> tuple[float, ...]:
    if len(good) < 2 * BATCHES:
        return ()
    return tuple(float(batch.mean()) for batch in np.array_split(good, BATCHES))


def _percentiles(values: FloatArray) -> Percentiles | None:
    seen = values[~np.isnan(values)]
    if not len(seen):
        return None
    p50, p90, p99 = np.percentile(seen, (50, 90, 99))
    return Percentiles(float(p50), float(p90), float(p99))
