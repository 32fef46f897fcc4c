"""Requests that follow a recorded trace."""

from pathlib import Path

import numpy as np

from tuner.config.workload import Workload
from tuner.errors import ConfigError
from tuner.requests import FloatArray, IntArray, Requests, Segment
from tuner.workload.arrivals import unit_gaps
from tuner.workload.chats import chat_segments, chats_from, prompt_lengths
from tuner.workload.prompts import Segments, draw_seeds, fresh_prompts
from tuner.workload.streams import SEEDS_BELOW, Purpose, stream
from tuner.workload.traces import Trace, read_trace

BLOCK_TOKENS = 512
"""Mooncake hashes prompts in blocks of this size."""
ODD = 0x9E3779B97F4A7C15
"""Multiplying by an odd number keeps different hashes different modulo a power of two."""


def build_replay(workload: Workload, seed: int, count: int) -> Requests:
    """`count` requests of the workload's trace, from a place that `seed` chooses, round and round.

    Requests that follow each other in the trace do so here; lengths and shared blocks are the trace's, texts are
    the seed's unless the trace has its own. Every round has fresh texts. Raises ConfigError if the trace cannot be
    read.
    """
    assert workload.trace is not None
    trace = read_trace(Path(workload.trace))
    if workload.max_model_len is not None:
        trace = trace.fitting(workload.max_model_len)
        if not len(trace.prompt_tokens):
            raise ConfigError(f"{workload.trace}: no request of it fits into {workload.max_model_len:,} tokens")
    n = len(trace.prompt_tokens)
    place = int(stream(seed, Purpose.TRACE_START).integers(n)) + np.arange(count)
    prompt_tokens = trace.prompt_tokens[place % n]
    chats = None if trace.chats is None else chats_from(trace.chats, place)
    return Requests(
        seed=seed,
        prompt_tokens=prompt_tokens if chats is None else prompt_lengths(chats),
        output_tokens=trace.output_tokens[place % n],
        session=np.arange(count),
        unit_gaps=_gaps(workload, trace, seed, place),
        think_s=np.zeros(count),
        segments=_segments(trace, seed, place, prompt_tokens) if chats is None else chat_segments(chats),
        chats=chats,
    )


def _gaps(workload: Workload, trace: Trace, seed: int, place: IntArray) -> FloatArray:
    """Gaps of mean 1 over the whole trace; the gap from its end to its beginning is taken to be the mean."""
    if workload.arrivals.kind != "trace" or trace.arrival_s is None or len(trace.arrival_s) < 2:
        return unit_gaps(workload.arrivals, stream(seed, Purpose.ARRIVALS), len(place))
    gaps_s = np.diff(trace.arrival_s)
    mean_s = gaps_s.mean()
    if mean_s == 0:
        return np.zeros(len(place))
    gaps: FloatArray = np.concatenate(([1.0], gaps_s / mean_s))[place % len(trace.arrival_s)]
    return gaps


def _segments(trace: Trace, seed: int, place: IntArray, prompt_tokens: IntArray) -> tuple[Segments, ...]:
    fresh = fresh_prompts(seed, prompt_tokens)
    if trace.blocks is None or not len(place):
        return fresh
    n = len(trace.blocks)
    rounds = draw_seeds(seed, Purpose.SHARED_TEXT, int(place[-1]) // n + 1).tolist()
    return tuple(
        _blocks(trace.blocks[index % n], whole[0], rounds[index // n])
        for index, whole in zip(place.tolist(), fresh, strict=True)
    )


def _blocks(hashes: tuple[int, ...], whole: Segment, round_seed: int) -> Segments:
    """One segment per hashed block, the same for the same hash in the same round; what no hash covers is fresh."""
    covered = min(len(hashes) * BLOCK_TOKENS, whole.tokens)
    starts = range(0, covered, BLOCK_TOKENS)
    shared = tuple(
        Segment((round_seed + block * ODD) % SEEDS_BELOW, min(BLOCK_TOKENS, covered - start))
        for block, start in zip(hashes, starts, strict=False)
    )
    return shared if covered == whole.tokens else (*shared, Segment(whole.seed, whole.tokens - covered))
