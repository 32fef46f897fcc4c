"""Speculation: how many tokens each step of an answer yields when some are guessed and checked. Pure."""

from dataclasses import dataclass
from functools import lru_cache
from random import Random

from tuner.config.workload import Chances


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


@lru_cache(maxsize=8192)
def guesses(chances: tuple[float, ...], seed: int, wanted: int) -> Guesses:
    """Draw the steps that yield `wanted` tokens: in each, drafts are accepted until the first is refused, and the
    model adds one token of its own (Leviathan et al. 2023, with an acceptance for each position).

    Remembered, since the probes of a configuration offer the same requests again and again.
    """
    draw = Random(seed).random
    tokens = [0]
    said = 0
    while said < wanted:
        for chance in chances:
            if draw() >= chance:
                break
            said += 1
        said += 1
        tokens.append(said)
    tokens[-1] = wanted
    return Guesses(tokens)
