"""From a workload and a seed to a list of requests, the same for every configuration and every load. Pure."""

from dataclasses import dataclass

import numpy as np

from tuner.config.workload import Workload
from tuner.requests import FloatArray, IntArray, Requests
from tuner.workload.arrivals import unit_gaps
from tuner.workload.lengths import clip_to_context, draw_lengths
from tuner.workload.prompts import fresh_prompts, sharing_prompts
from tuner.workload.replays import build_replay
from tuner.workload.sessions import build_sessions
from tuner.workload.streams import Purpose, stream


def build(workload: Workload, seed: int, count: int) -> Requests:
    """The first `count` requests of `workload` under `seed`. Asking for more keeps those that came before.

    Lengths, arrivals and texts come from streams of their own, so changing one leaves the others alone. Raises
    ConfigError if the workload's trace cannot be read.
    """
    if workload.trace is not None:
        return build_replay(workload, seed, count)
    if workload.turns is not None:
        return build_sessions(workload, workload.turns, seed, count)
    return _build_single(workload, seed, count)


@dataclass(frozen=True)
class Draw:
    """Single requests of a workload before their texts: prompt tokens beyond a shared system text, output tokens, and
    the gaps before arrivals at one request per second, (n,) each."""

    prompt_tokens: IntArray
    output_tokens: IntArray
    unit_gaps: FloatArray


def draw(workload: Workload, seed: int, count: int) -> Draw:
    """The first `count` requests of a workload without sessions or trace."""
    assert workload.prompt is not None and workload.output is not None
    tokens, output_tokens = clip_to_context(
        workload,
        draw_lengths(workload.prompt, stream(seed, Purpose.PROMPT_TOKENS), count),
        draw_lengths(workload.output, stream(seed, Purpose.OUTPUT_TOKENS), count),
    )
    return Draw(tokens, output_tokens, unit_gaps(workload.arrivals, stream(seed, Purpose.ARRIVALS), count))


def _build_single(workload: Workload, seed: int, count: int) -> Requests:
    drawn, shared = draw(workload, seed, count), workload.shared
    if shared.system_tokens or shared.documents:
        segments = sharing_prompts(seed, shared, drawn.prompt_tokens)
    else:
        segments = fresh_prompts(seed, drawn.prompt_tokens)
    return Requests(
        seed=seed,
        prompt_tokens=drawn.prompt_tokens + shared.system_tokens,
        output_tokens=drawn.output_tokens,
        session=np.arange(count),
        unit_gaps=drawn.unit_gaps,
        think_s=np.zeros(count),
        segments=segments,
    )
