"""Speculation: how many tokens each step of an answer yields when some are guessed and checked. Pure."""

from dataclasses import dataclass
from itertools import accumulate
from random import Random

from launchers.sim.settings import SimSettings


@dataclass(frozen=True, slots=True)
class Guesses:
    """The steps of one answer: `tokens[j]` is how many it has after j steps, `tokens[0]` = 0."""

    tokens: list[int]

    @property
    def steps(self) -> int:
        """Steps until the answer is complete."""
        return len(self.tokens) - 1


def chance_of_each(settings: SimSettings) -> list[float]:
    """The chance of each guess of a step; the last one given holds for all behind it."""
    given = settings.acceptance if isinstance(settings.acceptance, tuple) else (settings.acceptance,)
    return [given[min(place, len(given) - 1)] for place in range(settings.drafts)]


def guesses(settings: SimSettings, seed: int, wanted: int) -> Guesses:
    """Draw the steps that yield `wanted` tokens: in each, drafts are accepted until the first is refused, and the
    model adds one token of its own (Leviathan et al. 2023, with an acceptance for each position)."""
    draw = Random(seed).random
    drafts, chances = settings.drafts, chance_of_each(settings)
    steps = []
    left = wanted
    while left > 0:
        tokens = 1
        while tokens <= drafts and draw() < chances[tokens - 1]:
            tokens += 1
        steps.append(min(tokens, left))
        left -= tokens
    return Guesses([0, *accumulate(steps)])
