"""Fluidity: how steadily an answer reaches its reader. Pure.

Etalon's two measures (its documentation, "Metrics used by etalon", and the code of project-etalon/etalon:
`get_request_level_deadline_miss_rate` and `get_throughput_metrics`). Every token has a deadline: the first one when
the limit on TTFT is up, each other one a period after the deadline before it, so that time won is kept. A token that
is late has missed as many deadlines as have gone by, and the next is due a period after it came. The index is the
share of deadlines met.

Here every token-bearing chunk has a deadline, and its period is as long as the tokens a chunk of that answer has.
"""

import math
from dataclasses import dataclass

import numpy as np

from tuner.requestlog import RequestLog
from tuner.requests import BoolArray, FloatArray, IntArray

FLUID_INDEX = 0.9
FLUID_SHARE = 0.99
# A chunk this little behind its deadline is on time: sums of floats are no better.
ON_TIME_S = 1e-6
FASTEST_PERIOD_S = 1e-4
PRECISION = 0.01


@dataclass(frozen=True)
class Fluidity:
    """Over the healthy counted requests of a probe. `mean_index` (0–1); `fluid_frac`: share of them of an index of
    at least FLUID_INDEX. `rate_tok_s`: the fluid token rate, the fastest pace of tokens per second that FLUID_SHARE
    of them keep up with such an index once their first token is there.

    The first two are None where the SLO limits no pace of tokens or was not the one of the probe, the rate where no
    answer has two chunks.
    """

    mean_index: float | None
    fluid_frac: float | None
    rate_tok_s: float | None


@dataclass(frozen=True)
class Streams:
    """Chunk times of m answers, one after the other: answer i has `chunk_s[start[i]:start[i + 1]]`, never none.
    `tokens_per_chunk` (m,)."""

    chunk_s: FloatArray
    start: IntArray
    tokens_per_chunk: FloatArray

    @property
    def chunks(self) -> IntArray:
        """How many chunks each answer has, (m,)."""
        return np.diff(self.start)

    def only(self, rows: BoolArray) -> "Streams":
        """The answers where `rows` (m,) is true."""
        kept = np.repeat(rows, self.chunks)
        return Streams(self.chunk_s[kept], _starts(self.chunks[rows]), self.tokens_per_chunk[rows])


def streams_of(log: RequestLog, rows: BoolArray) -> tuple[Streams, BoolArray]:
    """The answers of those `rows` that have chunks, and which rows these are."""
    chunks = np.diff(log.chunk_start)
    some = rows & (chunks > 0)
    tokens = np.maximum(log.output_tokens, chunks)
    everybody = Streams(log.chunk_s, log.chunk_start, tokens / np.maximum(chunks, 1))
    return everybody.only(some), some


def fluidity_index(streams: Streams, first_due_s: FloatArray, period_s: float) -> FloatArray:
    """Share of its deadlines that each answer met, (m,). `first_due_s` (m,): the deadline of its first token."""
    missed, met = _deadlines(streams, first_due_s, period_s)
    return np.asarray(met / (met + missed))


def fluid_rate_tok_s(streams: Streams) -> float | None:
    """The fluid token rate, to PRECISION; None where no answer has a second chunk.

    A longer period never lowers an answer's index, so the shortest that will do is found by bisection, and an answer
    that has passed at a shorter one, or failed at a longer one, needs no second look. No answer misses a deadline at
    a period as long as its longest gap. Chunks that keep up with an index i are at most 1/i of the period apart in
    the mean: a chunk that is m deadlines late is less than m + 1 periods behind the one before.
    """
    undecided = streams.only(streams.chunks > 1)
    if not len(undecided.chunks):
        return None
    may_fail = math.floor(round((1 - FLUID_SHARE) * len(undecided.chunks), 6))
    longest_s, mean_s = _gaps_s(undecided)
    low_s = max(FASTEST_PERIOD_S, FLUID_INDEX * (_largest_but(may_fail, mean_s) - ON_TIME_S))
    high_s = max(low_s, _largest_but(may_fail, longest_s) + ON_TIME_S)
    while high_s > low_s * (1 + PRECISION):
        period_s = math.sqrt(low_s * high_s)
        fails = _index_behind_the_first(undecided, period_s) < FLUID_INDEX
        if fails.sum() > may_fail:
            low_s, undecided = period_s, undecided.only(fails)
        else:
            high_s, may_fail, undecided = period_s, may_fail - int(fails.sum()), undecided.only(~fails)
    return 1 / high_s


def _index_behind_the_first(streams: Streams, period_s: float) -> FloatArray:
    """The index of each answer of several chunks, deadlines counted from its first chunk, which has none itself."""
    missed, met = _deadlines(streams, streams.chunk_s[streams.start[:-1]], period_s)
    return np.asarray((met - 1) / (met - 1 + missed))


def _deadlines(streams: Streams, first_due_s: FloatArray, period_s: float) -> tuple[FloatArray, FloatArray]:
    """How many deadlines each answer missed, and how many it met, (m,) each.

    Measured against deadlines that are never moved, an answer falls behind whenever it is later than it ever was:
    those are the misses, and by how much it is later says how many deadlines went by.
    """
    chunks, answers = streams.chunks, np.arange(len(streams.chunks))
    owner = np.repeat(answers, chunks)
    period = period_s * streams.tokens_per_chunk
    place = np.arange(len(streams.chunk_s)) - streams.start[:-1][owner]
    late_s = np.maximum(streams.chunk_s - first_due_s[owner] - place * period[owner], 0.0)
    # One running maximum for all: every answer begins above the end of the one before.
    step_s = float(late_s.max(initial=0.0)) + 1.0
    stacked = late_s + owner * step_s
    before = np.empty_like(stacked)
    before[1:] = np.maximum.accumulate(stacked)[:-1]
    before[streams.start[:-1]] = answers * step_s
    behind_s = stacked - before
    fell = behind_s > ON_TIME_S
    went_by = 1.0 + np.floor(behind_s[fell] / period[owner[fell]])
    missed = np.bincount(owner[fell], weights=went_by, minlength=len(chunks)).astype(np.float64)
    return missed, (chunks - np.bincount(owner[fell], minlength=len(chunks))).astype(np.float64)


def _gaps_s(streams: Streams) -> tuple[FloatArray, FloatArray]:
    """The longest and the mean gap between chunks of each answer of several, (m,), per token that a chunk has."""
    gaps_s = np.diff(streams.chunk_s, prepend=0.0)
    gaps_s[streams.start[:-1]] = 0.0
    longest_s = np.maximum.reduceat(gaps_s, streams.start[:-1]) / streams.tokens_per_chunk
    mean_s = np.add.reduceat(gaps_s, streams.start[:-1]) / (streams.chunks - 1) / streams.tokens_per_chunk
    return longest_s, mean_s


def _largest_but(left_out: int, values: FloatArray) -> float:
    """The largest of `values` without the `left_out` largest ones."""
    return float(np.partition(values, -1 - left_out)[-1 - left_out])


def _starts(chunks: IntArray) -> IntArray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(chunks)])
