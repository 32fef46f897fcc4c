"""Seeds: every random stream derives from (study seed, purpose, replicate), never from a trial's number."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for; the numbers are part of what makes a study reproducible."""

    SEARCH = 1
    CONFIRM = 2
    SAMPLER = 3


def derive(seed: int, purpose: Purpose, replicate: int = 0) -> int:
    """A 32-bit seed for one stream."""
    return int(np.random.SeedSequence([seed, int(purpose), replicate]).generate_state(1)[0])
