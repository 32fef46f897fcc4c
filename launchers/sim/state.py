"""The state of a simulated server: its queue, its batch, its KV cache, and what can be read off it.

Answers under way are never touched one by one. A running answer gets its next token in every step that runs answers,
so all that is known of it when its prompt is done: in which step it ends, and in which steps it needs another block
of KV cache. Steps that run answers are numbered, `step_s[e]` is when step e ended, and the token times of an answer
are a slice of that list. What a step costs the simulation is therefore a matter of what changes in it.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from launchers.sim.prefixcache import PrefixCache, leading_hits, unused
from launchers.sim.settings import SimSettings
from launchers.sim.speculation import Guesses

WAITING, PREFILLING, ANSWERING, ENDED = range(4)
NO_RUN = -1

Step = tuple[int, int, int, int, int]
"""What a step holds, in the order of `StepTime.step_s`: prompt tokens, their cached tokens, prompts, answers, their
cached tokens. All 0: there is nothing to do."""


@dataclass(slots=True)
class Scheduler:
    """One server's queue, batch and KV cache. The lists of the first group have one entry per request, in order of
    arrival.

    - `target`: tokens to compute before the answer (again) begins: the prompt, and after a preemption what was said.
    - `said`: tokens answered before the last preemption, `earlier` their times; `earlier_said`, where steps yield
      several, how many tokens there were at each.
    - `run_start`, `run_end`: the answer's steps after its first token at `first_s`; NO_RUN before it.
    - `names`: the numbers of leading blocks that others may share; `owned` those held now.
    - `cached`: prompt tokens that were in the prefix cache when the request was first admitted.
    - `left_out`: answers that the token budget did not reach; they go on as prompts do, by chunks.
    - `admitted`: running requests by admission, the last one to be preempted first; entries that a request's `place`
      does not point at are history.
    - `ends`, `growth`, `gains`: by step, which answers end, how many blocks are needed, and (speculation) how many
      tokens are gained.
    - `departures`: how often anybody left the batch; SGLang admits nobody while it is still `shut_at`.
    - `reserve_ratio`: SGLang's, as it was at `reserve_step`; None: as at first.
    - `stuck`: nobody who waits can be admitted before somebody ends.
    """

    settings: SimSettings
    free_blocks: int
    cache: PrefixCache | None = None

    prompt: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    seed: list[int] = field(default_factory=list)
    names: list[list[int]] = field(default_factory=list)
    owned: list[list[int]] = field(default_factory=list)
    cached: list[int] = field(default_factory=list)
    phase: list[int] = field(default_factory=list)
    said: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    run_start: list[int] = field(default_factory=list)
    run_end: list[int] = field(default_factory=list)
    earlier: dict[int, list[float]] = field(default_factory=dict)
    earlier_said: dict[int, list[int]] = field(default_factory=dict)
    guessed: dict[int, Guesses] = field(default_factory=dict)

    waiting: deque[int] = field(default_factory=deque)
    prefilling: list[int] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    admitted: list[int] = field(default_factory=list)
    answering: int = 0
    context_tokens: int = 0
    step_s: list[float] = field(default_factory=list)
    ends: dict[int, list[int]] = field(default_factory=dict)
    ends_sum: int = 0
    growth: list[int] = field(default_factory=list)
    gains: list[int] = field(default_factory=list)

    chunks: list[tuple[int, int]] = field(default_factory=list)
    runs_answers: bool = False
    stuck: bool = False
    ended: list[int] = field(default_factory=list)
    preemptions: int = 0
    departures: int = 0
    shut_at: int = -1
    reserve_ratio: float | None = None
    reserve_step: int = 0


class Need(NamedTuple):
    """What it takes to admit a request: its first `hits` blocks are cached, `revived` of them used by nobody;
    `tokens` are left to compute, and `blocks` free ones go to its whole prompt."""

    hits: int
    revived: int
    tokens: int
    blocks: int


def need_of(s: Scheduler, i: int) -> Need:
    """What it takes to admit a request that waits. The last token is computed even if all are cached."""
    blocks = blocks_for(s, s.target[i])
    if not s.cache:
        return Need(0, 0, s.target[i], blocks)
    size = s.settings.block_tokens
    hits = leading_hits(s.cache, s.names[i], (s.target[i] - 1) // size)
    revived = unused(s.cache, s.names[i][:hits])
    return Need(hits, revived, s.target[i] - hits * size, blocks - hits + revived)


def blocks_for(s: Scheduler, tokens: int) -> int:
    """Blocks of KV cache that hold `tokens` tokens."""
    return -(-tokens // s.settings.block_tokens)


def blocks_short(s: Scheduler, i: int, tokens: int) -> int:
    """Blocks that a request under way lacks for a chunk of `tokens` tokens."""
    short = -(-(s.computed[i] + tokens) // s.settings.block_tokens) - s.blocks[i]
    return short if short > 0 else 0


def is_admitted(s: Scheduler, i: int, place: int) -> bool:
    """Whether request `i` of `admitted[place]` is running, by that admission."""
    return s.place[i] == place and s.phase[i] in (PREFILLING, ANSWERING)


def growth_now(s: Scheduler) -> int:
    """Blocks that the running answers need for their next token."""
    return s.growth[len(s.step_s)] if s.answering else 0


def tokens_said(s: Scheduler, i: int) -> int:
    """Tokens of the answer so far."""
    if s.run_start[i] == NO_RUN:
        return s.said[i]
    return s.said[i] + 1 + gained(s, i, steps_run(s, i))


def chunk_times_s(s: Scheduler, i: int) -> list[float]:
    """When the pieces of the answer came so far: one per step, of several tokens where guesses were accepted."""
    times = s.earlier.get(i, [])
    if s.run_start[i] == NO_RUN:
        return times
    return [*times, s.first_s[i], *s.step_s[s.run_start[i] : min(s.run_end[i], len(s.step_s))]]


def said_by_chunk(s: Scheduler, i: int) -> list[int]:
    """How many tokens the answer had at each of `chunk_times_s`."""
    if not s.settings.drafts:
        return list(range(1, tokens_said(s, i) + 1))
    said = s.earlier_said.get(i, [])
    if s.run_start[i] == NO_RUN:
        return said
    first = s.said[i] + 1
    return [*said, *(first + more for more in s.guessed[i].tokens[: steps_run(s, i) + 1])]


def steps_run(s: Scheduler, i: int) -> int:
    """Steps of the answer so far."""
    return min(s.run_end[i], len(s.step_s)) - s.run_start[i]


def gained(s: Scheduler, i: int, steps: int) -> int:
    """Tokens after so many steps of the answer."""
    return s.guessed[i].tokens[steps] if s.settings.drafts else steps


def held(s: Scheduler, i: int, steps: int) -> int:
    """Blocks held after so many steps of the answer.

    Guesses need room before it is known whether they are right, also those that would come after the answer's end.
    """
    if not s.settings.drafts:
        return blocks_for(s, s.target[i] + steps)
    if not steps:
        return s.blocks[i]
    reach = s.target[i] + s.guessed[i].tokens[steps - 1] + 1 + s.settings.drafts
    return min(blocks_for(s, min(reach, s.settings.max_model_len - 1)), s.settings.blocks)
