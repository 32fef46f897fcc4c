"""Score: what a probe was worth under an SLO's limits. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from tuner.config.slo import Limits
from tuner.engineview import EngineView
from tuner.fluidity import FLUID_INDEX, Fluidity, fluid_rate_tok_s, fluidity_index, streams_of
from tuner.health import Health, health_of
from tuner.latencies import Latencies, Percentiles, has_long_gaps, latencies, percentiles, pooled_gaps_s, start_s
from tuner.requestlog import RequestLog, Status
from tuner.requests import BoolArray, FloatArray, IntArray
from tuner.target import Load, OpenLoop

BATCHES = 10


@dataclass(frozen=True)
class Score:
    """One probe of one server. Rates are the server's (not per GPU), per second of the window.

    `attainment` is good/counted, where every request due in the window counts and a failed one is bad.
    `goodput_rps` is G1: good requests per second; `request_rps`, all that count, good or not. `missed` counts the
    requests over each limit, and those that failed. `batch_attainment`: attainment of ten consecutive batches, for
    intervals that respect correlation.
    Percentiles are None where nothing was observed; `itl_s` pools the chunk gaps of all requests. `health` is None in
    virtual time; `engine` is what the engine said of itself. `fluidity` is reported, never judged; None where the
    probe was stopped early, or the times of its chunks are not known any more. `is_recorded`: requests came as those
    of a recording did.
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
    is_recorded: bool = False

    @property
    def offered_rps(self) -> float:
        """Requests that came per second, whatever became of them: given where arrivals are drawn, else as seen."""
        if isinstance(self.load, OpenLoop) and not self.is_recorded:
            return self.load.rate_rps
        return self.request_rps


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
    tpot = percentiles(times.tpot_s[ok])
    return Score(
        load=load,
        **_judgement(answers, limits),
        request_rps=int(_judged(answers).sum()) / log.window_s,
        throughput_tok_s=_tokens_in_window(log) / log.window_s,
        tok_s_per_user=1 / tpot.p50 if tpot and tpot.p50 > 0 else 0.0,
        ttft_s=percentiles(times.ttft_s[ok]),
        itl_s=percentiles(pooled_gaps_s(log, ok)),
        tpot_s=tpot,
        e2e_s=percentiles(times.e2e_s[ok]),
        normalized_s=percentiles(times.normalized_s[ok]),
        stopped=log.stopped,
        health=health_of(log),
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
    first_due_s = log.first_s if limits.ttft_s is None else start_s(log, load) + ttft_limits_s(log, limits)
    index = fluidity_index(streams, first_due_s[rows], period_s)
    return Fluidity(float(index.mean()), float((index >= FLUID_INDEX).mean()), rate_tok_s)


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
