"""Reuse: how much of each prompt an endless prefix cache would have held, by the design of the workload. Pure."""

import numpy as np

from tuner.requests import IntArray, Requests, Segment


def reusable_tokens(requests: Requests, rows: IntArray) -> IntArray:
    """Tokens at the beginning of each prompt that also begin a prompt before it, prompts in order of `rows`, (rows,).

    Counted by whole segments: what two drawn texts share by chance is nothing.
    """
    known: dict[tuple[int, Segment], int] = {}
    return np.array([_walk(known, requests.segments[row]) for row in rows.tolist()], dtype=np.int64)


def _walk(known: dict[tuple[int, Segment], int], prompt: tuple[Segment, ...]) -> int:
    """The tokens of `prompt` that are `known`, a tree of segments: (node, segment) → next node. Adds the others."""
    node = shared = 0
    for segment in prompt:
        step = (node, segment)
        if step in known:
            shared += segment.tokens
        node = known.setdefault(step, len(known) + 1)
    return shared
