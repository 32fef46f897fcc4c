"""Speculation: how many tokens each step of an answer yields when some are guessed and checked. Pure."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tuner.config.workload import Chances
from tuner.requests import IntArray

LOG2_DRAWS = 18
DRAWS = 2**LOG2_DRAWS
ODD = 0x9E3779B97F4A7C15
"""2⁶⁴ over the golden ratio: multiplied by it, seeds that follow each other lie far apart (Knuth, TAOCP 6.4)."""


@dataclass(frozen=True, slots=True)
class Guesses:
    """The steps of one answer: `tokens[j]` is how many it has after j steps, `tokens[0]` = 0."""

    tokens: list[int]

    @property
    def steps(self) -> int:
        """Steps until the answer is complete."""
        return len(self.tokens) - 1


@lru_cache(maxsize=64)
def chance_of_each(drafts: int, acceptance: Chances) -> tuple[float, ...]:
    """The chance of each guess of a step; the last one given holds for all behind it."""
    given = acceptance if isinstance(acceptance, tuple) else (acceptance,)
    return tuple(given[min(place, len(given) - 1)] for place in range(drafts))


@lru_cache(maxsize=256)
def guesses(chances: tuple[float, ...], seed: int, wanted: int) -> Guesses:
    """Draw the steps that yield `wanted` tokens: in each, drafts are accepted until the first is refused, and the
    model adds one token of its own (Leviathan et al. 2023, with an acceptance for each position).

    The steps are a run of `DRAWS` ready ones, from a place that only the seed decides: an answer that asks for more
    goes on as a shorter one did.
    """
    place = (seed * ODD) % 2**64 >> 64 - LOG2_DRAWS
    said = np.cumsum(np.take(_yields(chances), np.arange(place, place + wanted), mode="wrap"))
    steps = int(np.searchsorted(said, wanted)) + 1 if wanted else 0
    tokens = [0, *said[:steps].tolist()]
    tokens[-1] = wanted
    return Guesses(tokens)


@lru_cache(maxsize=64)
def _yields(chances: tuple[float, ...]) -> IntArray:
    """How many tokens each of `DRAWS` steps yields, (DRAWS,): 1 and as many more as one number in [0, 1) has chances
    of a whole row of guesses above it."""
    drawn = np.random.default_rng(len(chances)).random(DRAWS)
    rows = np.cumprod(np.array(chances))
    return np.asarray(1 + (drawn[:, None] < rows).sum(axis=1))
