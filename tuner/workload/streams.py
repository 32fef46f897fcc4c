"""Random streams: one for each purpose, so that drawing more of one thing never changes another. Pure."""

from enum import IntEnum

import numpy as np

SEEDS_BELOW = 2**63


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of what a seed means: never reuse or change one."""

    PROMPT_TOKENS = 1
    OUTPUT_TOKENS = 2
    ARRIVALS = 3
    PROMPT_TEXT = 4
    SHARED_TEXT = 5
    DOCUMENTS = 6
    ADDED_TOKENS = 7
    ANSWER_TEXT = 8
    THINK_TIMES = 9
    TRACE_START = 10


def stream(seed: int, purpose: Purpose) -> np.random.Generator:
    """The random stream of one purpose. Its draws come in order: asking for more keeps those that came before."""
    return np.random.default_rng(np.random.SeedSequence([seed, purpose]))
