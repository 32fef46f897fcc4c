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

    Where the trace's own times count, `seed` chooses a time of the recording, and the requests after it come as long
    after the beginning as they did after that time: busy and quiet times have their share of beginnings. Requests
    that follow each other in the trace do so here; lengths and shared blocks are the trace's, texts are the seed's
    unless the trace has its own. Every round has fresh texts. Raises ConfigError if the trace cannot be read.
    """
    assert workload.trace is not None
    trace = read_trace(Path(workload.trace))
    if workload.max_model_len is not None:
        trace = trace.fitting(workload.max_model_len)
        if not len(trace.prompt_tokens):
            raise ConfigError(f"{workload.trace}: no request of it fits into {workload.max_model_len:,} tokens")
    n = len(trace.prompt_tokens)
    place, gaps = _places(workload, trace, seed, count)
    prompt_tokens = trace.prompt_tokens[place % n]
    chats = None if trace.chats is None else chats_from(trace.chats, place)
    return Requests(
        seed=seed,
        prompt_tokens=prompt_tokens if chats is None else prompt_lengths(chats),
        output_tokens=trace.output_tokens[place % n],
        session=np.arange(count),
        unit_gaps=gaps,
        think_s=np.zeros(count),
        segments=_segments(trace, seed, place, prompt_tokens) if chats is None else chat_segments(chats),
        chats=chats,
        ends_naturally=workload.ends_naturally,
    )


def _places(workload: Workload, trace: Trace, seed: int, count: int) -> tuple[IntArray, FloatArray]:
    """Which of the trace's requests come, counted on over its rounds, and the gaps before them; (count,) each."""
    n, rng = len(trace.prompt_tokens), stream(seed, Purpose.TRACE_START)
    recorded = _recorded_gaps(workload, trace)
    if recorded is None:
        place = int(rng.integers(n)) + np.arange(count)
        return place, unit_gaps(workload.arrivals, stream(seed, Purpose.ARRIVALS), count)
    first, wait = _beginning(recorded, rng)
    place = first + np.arange(count)
    gaps = recorded[place % n]
    gaps[:1] = wait
    return place, gaps


def _beginning(recorded: FloatArray, rng: np.random.Generator) -> tuple[int, float]:
    """The next request after any time of the recording, and the gap from that time until it.

    Any request at random would rather be one of a busy time, and windows behind it hold more than their load.
    """
    came = np.cumsum(recorded)
    if came[-1] == 0:
        return int(rng.integers(len(came))), 0.0
    begins = rng.uniform(0.0, came[-1])
    first = min(int(np.searchsorted(came, begins, side="right")), len(came) - 1)
    return first, float(came[first] - begins)


def _recorded_gaps(workload: Workload, trace: Trace) -> FloatArray | None:
    """The gap before each of the trace's n requests, (n,), in the mean 1; 0 where all came at once.

    The one from its end to its beginning is taken to be the mean. None where the trace's times do not count.
    """
    if workload.arrivals.kind != "trace" or trace.arrival_s is None or len(trace.arrival_s) < 2:
        return None
    gaps_s = np.diff(trace.arrival_s)
    mean_s = gaps_s.mean()
    return np.concatenate(([1.0], gaps_s / mean_s)) if mean_s > 0 else np.zeros(len(trace.arrival_s))


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
