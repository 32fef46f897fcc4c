"""SGLang's order: prompts first, in batches of their own, and answers when no prompt can be admitted.

After python/sglang/srt/managers/{scheduler,schedule_policy}.py and mem_cache/prefill_budget.py of SGLang 0.5.23. One
prompt at a time is cut, to what `chunked-prefill-size` leaves; with `enable-mixed-chunk` running answers ride along.
A request is admitted when the free KV cache holds it, its answer, and a share of all answers still to come; the share
falls from step to step, and is set anew when the cache ran out and requests had to be retracted. When somebody was
refused, nobody is admitted before another has left. Pages are counted in blocks, as for vLLM.
"""

from dataclasses import dataclass

from launchers.sim.scheduler import admit, contents, give_chunk, grow_answers, head_of_queue, preempt
from launchers.sim.state import Scheduler, Step, blocks_short, growth_now, need_of, tokens_said

INITIAL_RESERVE = 0.7
LEAST_RESERVE = 0.14
RESERVE_DECAY_STEPS = 600
RETRACT_STEPS = 20
LONGEST_ESTIMATE = 4096
REQUEST_TOKENS = 1
"""Cache that a request is charged with beyond its tokens."""


@dataclass(slots=True)
class _Room:
    """What a batch of prompts may still take, in tokens: `chunk` before one is cut, `prompt` before no other begins,
    `cache` that is free and not promised to answers."""

    chunk: float
    prompt: int
    cache: float

    def charge(self, tokens: int, answer: int) -> None:
        self.chunk -= tokens
        self.prompt -= tokens
        self.cache -= tokens + answer + REQUEST_TOKENS


def plan_sglang(s: Scheduler) -> Step:
    """The contents of the next step."""
    if s.prefilling:
        _open(s)
    if s.prefilling or (s.waiting and not _is_shut(s)):
        _prefill(s)
    if not s.chunks:
        _make_room(s)
        grow_answers(s)
        if not s.answering:
            s.reserve_ratio, s.reserve_step = None, len(s.step_s)
            if s.prefilling:
                # All answers made room for the prompt that was cut.
                _prefill(s)
    elif not s.answering:
        _open(s)
    elif s.settings.mixed_chunk and growth_now(s) <= s.free_blocks:
        grow_answers(s)
        s.reserve_step += 1
        _open(s)
    s.stuck = not s.waiting or _is_shut(s)
    return contents(s)


def _is_shut(s: Scheduler) -> bool:
    """Whether somebody was refused, and nobody has left since."""
    return s.shut_at == s.departures


def _open(s: Scheduler) -> None:
    s.shut_at = -1


def _prefill(s: Scheduler) -> None:
    """Go on with the prompt that was cut, then admit from the head of the queue."""
    settings = s.settings
    riding = s.answering if settings.mixed_chunk else 0
    cache_tokens = s.free_blocks * settings.block_tokens
    room = _Room(
        chunk=settings.token_budget - riding if settings.chunked_prefill else float("inf"),
        prompt=settings.max_prefill_tokens - riding,
        cache=cache_tokens - riding - _promised_tokens(s),
    )
    for i in s.prefilling:
        left = s.target[i] - s.computed[i]
        most = min(room.chunk, int(room.cache))
        tokens = int(min(left, most if most > 0 else room.chunk))
        if tokens <= 0 or blocks_short(s, i, tokens) > s.free_blocks:
            return
        give_chunk(s, i, tokens)
        room.charge(tokens, _answer_tokens(s, i) if tokens == left else 0)
    _admit(s, room)


def _admit(s: Scheduler, room: _Room) -> None:
    settings = s.settings
    places = settings.max_batch - s.answering - len(s.prefilling)
    while room.chunk > 0 and room.prompt > 0:
        i = head_of_queue(s)
        if i is None:
            return
        need = need_of(s, i)
        alone = not s.answering and not s.prefilling
        room_after = room.cache - need.revived * settings.block_tokens
        is_refused = need.tokens + min(s.wanted[i] - s.said[i], LONGEST_ESTIMATE) + REQUEST_TOKENS >= room_after
        if not places or need.blocks > s.free_blocks or (is_refused and not alone):
            s.shut_at = s.departures
            return
        if not settings.chunked_prefill and s.chunks and need.tokens >= room.prompt:
            return
        tokens = int(min(need.tokens, room.chunk))
        admit(s, i, need.hits)
        give_chunk(s, i, tokens)
        room.cache = room_after
        room.charge(tokens, _answer_tokens(s, i) if tokens == need.tokens else 0)
        places -= 1


def _answer_tokens(s: Scheduler, i: int) -> int:
    """Cache kept for an answer in the step that ends its prompt."""
    return min(s.wanted[i], LONGEST_ESTIMATE)


def _promised_tokens(s: Scheduler) -> float:
    """Cache kept free for the answers still to come."""
    to_come = s.ends_sum - s.answering * len(s.step_s)
    return to_come * _reserve_ratio(s)


def _reserve_ratio(s: Scheduler) -> float:
    """The share of the answers still to come that is kept free; it falls with every step of answers alone."""
    initial = min(1.0, INITIAL_RESERVE * s.settings.conservativeness)
    steps = len(s.step_s) - s.reserve_step
    if steps <= 0:
        return initial if s.reserve_ratio is None else s.reserve_ratio
    least = initial * LEAST_RESERVE
    decay = (initial - least) / RESERVE_DECAY_STEPS
    return max(least, (initial if s.reserve_ratio is None else s.reserve_ratio) - decay * steps)


def _make_room(s: Scheduler) -> None:
    """Retract requests until the answers have their blocks, and be more careful from now on."""
    if growth_now(s) <= s.free_blocks:
        return
    while growth_now(s) > s.free_blocks:
        i = min(_answering(s), key=lambda i: (tokens_said(s, i), -s.prompt[i], -s.first_s[i], -s.place[i]))
        preempt(s, i)
        s.waiting.append(i)
    running = _answering(s)
    said = sum(tokens_said(s, i) for i in running) + RETRACT_STEPS * len(running)
    s.reserve_ratio = min(1.0, said / (sum(s.wanted[i] for i in running) + 1))
    s.reserve_step = len(s.step_s) + 1


def _answering(s: Scheduler) -> list[int]:
    return [i for step in s.ends.values() for i in step]
