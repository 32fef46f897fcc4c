"""Score: what a probe was worth under an SLO's limits. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.config.slo import Limits
from tuner.engineview import EngineView
from tuner.fluidity import FLUID_INDEX, Fluidity, fluid_rate_tok_s, fluidity_index, streams_of
from tuner.requestlog import ClientHealth, RequestLog, Status
from tuner.requests import FloatArray, IntArray
from tuner.target import ClosedLoop, Load, OpenLoop

BoolArray = npt.NDArray[np.bool_]
BATCHES = 10
# What prompts share besides may be so long: a chat's template before its text, less than a segment behind what they
# share by design. Such tokens are no leftovers of another probe.
CHANCE_TOKENS = 128
# Less than this share of all prompt tokens does not change a measurement.
LEFTOVER_FRAC = 0.05


@dataclass(frozen=True)
class Percentiles:
    """Linear-interpolated percentiles of one metric over counted requests that ended well, in the metric's unit."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Health:
    """Whether a probe can be believed; its counted requests that ended, those of them that failed included.

    `wanted_tokens` were asked for, `received_tokens` the server says it gave, in `chunks` token-bearing chunks.
    `reusable_frac` of all prompt tokens would have been in an endless prefix cache, `cached_frac` were in the
    server's, as it says; None where it does not. `leftover_frac`: how much more of them was in its cache than the
    workload could have put there, where that is more than chance: something of an earlier probe was left in it.
    """

    client: ClientHealth
    wanted_tokens: int
    received_tokens: int
    chunks: int
    reusable_frac: float | None
    cached_frac: float | None
    leftover_frac: float = 0.0


@dataclass(frozen=True)
class Score:
    """One probe of one server. Rates are the server's (not per GPU), per second of the window.

    `attainment` is good/counted, where every request due in the window counts and a failed one is bad.
    `goodput_rps` is G1: good requests per second. `missed` counts the requests over each limit, and those that
    failed. `batch_attainment`: attainment of ten consecutive batches, for intervals that respect correlation.
    Percentiles are None where nothing was observed; `itl_s` pools the chunk gaps of all requests. `health` is None in
    virtual time; `engine` is what the engine said of itself. `fluidity` is reported, never judged; None where the
    probe was stopped early, or the times of its chunks are not known any more.
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
    engine: EngineView | None = None
    fluidity: Fluidity | None = None

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


@dataclass(frozen=True)
class Answers:
    """All that limits are judged by: one row (n,) for each request of a probe. `window_s` as in `RequestLog`;
    `has_long_gaps(limit_s)` says whose P99 of its own gaps is over a limit, (n,) bool."""

    counted: BoolArray
    status: IntArray
    prompt_tokens: IntArray
    times: Latencies
    has_long_gaps: Callable[[float], BoolArray]
    window_s: float
    stopped: str | None = None


def score(log: RequestLog, load: Load, limits: Limits) -> Score:
    """What `log` was worth at `load` under `limits`."""
    answers = answers_of(log, load)
    times = answers.times
    ok = _judged(answers) & (log.status == Status.OK)
    tpot = _percentiles(times.tpot_s[ok])
    return Score(
        load=load,
        **_judgement(answers, limits),
        request_rps=int(ok.sum()) / log.window_s,
        throughput_tok_s=_tokens_in_window(log) / log.window_s,
        tok_s_per_user=1 / tpot.p50 if tpot and tpot.p50 > 0 else 0.0,
        ttft_s=_percentiles(times.ttft_s[ok]),
        itl_s=_percentiles(pooled_gaps_s(log, ok)),
        tpot_s=tpot,
        e2e_s=_percentiles(times.e2e_s[ok]),
        normalized_s=_percentiles(times.normalized_s[ok]),
        stopped=log.stopped,
        health=_health(log),
        engine=log.engine,
    )


def scored_again(found: Score, answers: Answers, limits: Limits) -> Score:
    """A probe's score under other limits. What no limit has a part in stays; of fluidity that is its rate."""
    paced = found.fluidity and replace(found.fluidity, mean_index=None, fluid_frac=None)
    return replace(found, **_judgement(answers, limits), fluidity=paced)


def answers_of(log: RequestLog, load: Load) -> Answers:
    """The rows of `log` as limits see them."""
    return Answers(
        counted=log.counted,
        status=log.status,
        prompt_tokens=log.prompt_tokens,
        times=latencies(log, load),
        has_long_gaps=partial(has_long_gaps, log),
        window_s=log.window_s,
        stopped=log.stopped,
    )


def bad_requests(log: RequestLog, load: Load, limits: Limits) -> BoolArray:
    """Which requests failed or missed a limit, (n,)."""
    return _any(_misses(answers_of(log, load), limits))


def bad_answers(answers: Answers, limits: Limits) -> BoolArray:
    """As `bad_requests`."""
    return _any(_misses(answers, limits))


def attainment_of(answers: Answers, limits: Limits) -> float:
    """The share of counted requests that meet every limit; 0 where none is counted."""
    counted = _judged(answers)
    good = counted & ~bad_answers(answers, limits)
    return int(good.sum()) / int(counted.sum()) if counted.any() else 0.0


def fluidity(log: RequestLog, load: Load, limits: Limits) -> Fluidity | None:
    """How steadily healthy counted answers came, by the limits on TTFT and the pace of tokens; None if none did."""
    streams, rows = streams_of(log, log.counted & (log.status == Status.OK))
    if not rows.any():
        return None
    rate_tok_s = fluid_rate_tok_s(streams)
    period_s = limits.tpot_s or limits.itl_s
    if period_s is None:
        return Fluidity(None, None, rate_tok_s)
    first_due_s = log.first_s if limits.ttft_s is None else _start_s(log, load) + ttft_limits_s(log, limits)
    index = fluidity_index(streams, first_due_s[rows], period_s)
    return Fluidity(float(index.mean()), float((index >= FLUID_INDEX).mean()), rate_tok_s)


def latencies(log: RequestLog, load: Load) -> Latencies:
    """Every request's own latencies. The clock starts at the due time; in a closed loop, where nobody queues
    outside the server, at the send time."""
    return latencies_from(_start_s(log, load), log.first_s, log.last_s, log.output_tokens)


def latencies_from(start: FloatArray, first: FloatArray, last: FloatArray, output_tokens: IntArray) -> Latencies:
    """Latencies from when each clock starts, and its first and last chunk, seconds, (n,) each."""
    tokens = output_tokens.astype(float)
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


def _judged(answers: Answers) -> BoolArray:
    """Who counts. A probe stopped early is judged by those that had ended; one that ran on has none unfollowed."""
    return answers.counted & (answers.status != Status.UNFOLLOWED) if answers.stopped else answers.counted


def _judgement(answers: Answers, limits: Limits) -> dict[str, Any]:
    """The fields of a score that depend on limits."""
    counted, misses = _judged(answers), _misses(answers, limits)
    good = counted & ~_any(misses)
    n_counted, n_good = int(counted.sum()), int(good.sum())
    return {
        "counted": n_counted,
        "good": n_good,
        "attainment": n_good / n_counted if n_counted else 0.0,
        "goodput_rps": n_good / answers.window_s,
        "missed": {name: int((counted & missed).sum()) for name, missed in misses.items()},
        "batch_attainment": _batch_attainment(good[counted]),
    }


def _misses(answers: Answers, limits: Limits) -> dict[str, BoolArray]:
    """For each limit and for failure, who missed it. An unobserved metric is no miss of a healthy request."""
    misses: dict[str, BoolArray] = {"failed": answers.status != Status.OK}
    ok = ~misses["failed"]
    for name, limit_s in limits.present().items():
        match name:
            case "itl_s":
                misses[name] = ok & answers.has_long_gaps(limit_s)
            case "ttft_s":
                misses[name] = ok & (answers.times.ttft_s > ttft_limits_s(answers, limits))
            case _:
                misses[name] = ok & (getattr(answers.times, name) > limit_s)
    return misses


def _any(misses: Mapping[str, BoolArray]) -> BoolArray:
    return np.asarray(np.logical_or.reduce(list(misses.values())))


def ttft_limits_s(rows: RequestLog | Answers, limits: Limits) -> FloatArray:
    """Each request's own limit on TTFT, seconds, (n,); there must be one."""
    assert limits.ttft_s is not None
    return limits.ttft_s + limits.ttft_s_per_prompt_token * rows.prompt_tokens.astype(float)


def _start_s(log: RequestLog, load: Load) -> FloatArray:
    """When each request's clock starts, (n,)."""
    return log.sent_s if isinstance(load, ClosedLoop) else log.due_s


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
        leftover_frac=_leftover_frac(log, rows),
    )


def _leftover_frac(log: RequestLog, rows: BoolArray) -> float:
    """The share of prompt tokens found in the prefix cache though no prompt of this probe had brought them.

    Request by request where the server says what it had cached, else by its counters over the whole probe.
    """
    if log.reusable_tokens is None:
        return 0.0
    if log.cached_tokens is not None:
        excess = (log.cached_tokens - log.reusable_tokens)[rows]
        found, total = float(excess[excess > CHANCE_TOKENS].sum()), float(log.prompt_tokens[rows].sum())
    elif log.engine and log.engine.cache_hit_frac is not None:
        total = float(log.prompt_tokens.sum())
        explained = float(log.reusable_tokens.sum()) + CHANCE_TOKENS * len(log)
        found = log.engine.cache_hit_frac * total - explained
    else:
        return 0.0
    frac = found / total if total else 0.0
    return frac if frac > LEFTOVER_FRAC else 0.0


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
