"""From a workload and a seed to a list of requests, the same for every configuration and every load. Pure."""

import numpy as np

from tuner.config.workload import Workload
from tuner.requests import Requests
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


def _build_single(workload: Workload, seed: int, count: int) -> Requests:
    assert workload.prompt is not None and workload.output is not None
    tokens, output_tokens = clip_to_context(
        workload,
        draw_lengths(workload.prompt, stream(seed, Purpose.PROMPT_TOKENS), count),
        draw_lengths(workload.output, stream(seed, Purpose.OUTPUT_TOKENS), count),
    )
    shared = workload.shared
    if shared.system_tokens or shared.documents:
        segments = sharing_prompts(seed, shared, tokens)
    else:
        segments = fresh_prompts(seed, tokens)
    return Requests(
        seed=seed,
        prompt_tokens=tokens + shared.system_tokens,
        output_tokens=output_tokens,
        session=np.arange(count),
        unit_gaps=unit_gaps(workload.arrivals, stream(seed, Purpose.ARRIVALS), count),
        think_s=np.zeros(count),
        segments=segments,
    )
