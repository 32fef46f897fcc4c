"""Tally: what a simulated server counts of its work, for its metrics."""

from bisect import bisect_left
from dataclasses import dataclass, field
from math import inf

# Of the bounds of vLLM's histogram those that tell a short queue from a long one, seconds.
QUEUE_BOUNDS_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, inf)


@dataclass(slots=True)
class Tally:
    """What is counted for the metrics since the start. `queued[k]` waited at most `QUEUE_BOUNDS_S[k]`, and longer
    than the bound before it; `queued_s` together."""

    steps: int = 0
    prompt_tokens: int = 0
    computed_tokens: int = 0
    generated_tokens: int = 0
    guessed_tokens: int = 0
    accepted_tokens: int = 0
    queried_tokens: int = 0
    hit_tokens: int = 0
    queued_s: float = 0.0
    queued: list[int] = field(default_factory=lambda: [0] * len(QUEUE_BOUNDS_S))

    def admit(self, waited_s: float) -> None:
        """A request came into the batch after `waited_s` seconds."""
        self.queued_s += waited_s
        self.queued[bisect_left(QUEUE_BOUNDS_S, waited_s)] += 1
