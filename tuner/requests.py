"""Requests: a workload made concrete by a seed. The same for every configuration and every load."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Segment(NamedTuple):
    """`tokens` token ids drawn from `seed`. Equal segments are equal text, so that prefix caches can hit."""

    seed: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: who says (`system`, `user`, `assistant`) what."""

    role: str
    content: str


@dataclass(frozen=True)
class Requests:
    """n requests in m sessions; most workloads have one request per session. Row i is request i.

    `session` (n,) ascending from 0 to m − 1, the turns of one session in order. `unit_gaps` (m,) are the gaps before
    each session's arrival at a load of one request per second: dividing them by the rate gives the schedule, so
    all loads and configurations share their draws. `think_s` (n,): pause after the end of the turn before, 0 in
    a first turn. `segments[i]` spells out the prompt of request i; its lengths sum to `prompt_tokens[i]`.

    `chats[i]` is the prompt of request i where prompts are real text; then `prompt_tokens` and `segments` are
    estimates from its characters, equal segments still being equal text. None where prompts are drawn token ids.

    Answers have exactly `output_tokens`, or with `ends_naturally` at most so many, for the model ends them.
    """

    seed: int
    prompt_tokens: IntArray
    output_tokens: IntArray
    session: IntArray
    unit_gaps: FloatArray
    think_s: FloatArray
    segments: tuple[tuple[Segment, ...], ...]
    chats: tuple[tuple[Message, ...], ...] | None = None
    ends_naturally: bool = False

    def __len__(self) -> int:
        """The number of requests."""
        return len(self.prompt_tokens)

    def answer_lengths(self, row: int) -> range:
        """How many tokens a whole answer to request `row` may have."""
        most = int(self.output_tokens[row])
        return range(1 if self.ends_naturally else most, most + 1)

    @property
    def sessions(self) -> int:
        """The number of sessions."""
        return len(self.unit_gaps)
