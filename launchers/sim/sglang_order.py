"""SGLang's order: prompts first, in batches of their own, and answers when no prompt can be admitted.

After python/sglang/srt/managers/{scheduler,schedule_policy}.py of SGLang 0.5. One prompt at a time is cut, to what
`chunked-prefill-size` leaves; with `enable-mixed-chunk` running answers ride along. A request is admitted when the
free KV cache holds it and a share of all answers still to come; the share falls from step to step, and is set anew
when the cache ran out and requests had to be retracted. Pages are counted in blocks, as for vLLM.
"""

from launchers.sim.prefixcache import leading_hits
from launchers.sim.scheduler import admit, contents, give_chunk, grow_answers, head_of_queue, preempt_last
from launchers.sim.state import Scheduler, Step, blocks_for, growth_now, tokens_said

INITIAL_RESERVE = 0.7
LEAST_RESERVE = 0.14
RESERVE_DECAY_STEPS = 600
RETRACT_STEPS = 20
LONGEST_ESTIMATE = 4096


def plan_sglang(s: Scheduler) -> Step:
    """The contents of the next step."""
    if not s.answering:
        s.reserve_ratio = min(1.0, INITIAL_RESERVE * s.settings.conservativeness)
        s.reserve_step = len(s.step_s)
    if s.answering and s.settings.mixed_chunk:
        _make_room(s)
    _prefill(s)
    if not s.chunks:
        _make_room(s)
    if s.settings.mixed_chunk or not s.chunks:
        grow_answers(s)
    s.stuck = not s.waiting
    return contents(s)


def _prefill(s: Scheduler) -> None:
    """Go on with the prompt that was cut, then admit from the head of the queue."""
    settings = s.settings
    riding = s.answering if settings.mixed_chunk else 0
    left = min(settings.token_budget, settings.max_prefill_tokens) - riding
    spare_blocks = s.free_blocks - (growth_now(s) if riding else 0)
    for i in s.prefilling:
        tokens = min(s.target[i] - s.computed[i], left)
        need = blocks_for(s, s.computed[i] + tokens) - s.blocks[i]
        if tokens <= 0 or need > spare_blocks:
            return
        give_chunk(s, i, tokens)
        left -= tokens
        spare_blocks -= need
    _admit(s, left, spare_blocks)


def _admit(s: Scheduler, left: int, spare_blocks: int) -> None:
    size = s.settings.block_tokens
    promised = _reserve_tokens(s)
    room = s.settings.max_batch - s.answering - len(s.prefilling)
    while left > 0 and room > 0:
        i = head_of_queue(s)
        if i is None:
            return
        hits = leading_hits(s.cache, s.names[i], (s.target[i] - 1) // size) if s.cache else 0
        tokens = s.target[i] - hits * size
        answer = min(s.wanted[i] - s.said[i], LONGEST_ESTIMATE)
        alone = not s.answering and not s.prefilling
        need = blocks_for(s, s.target[i])
        if need > spare_blocks or (tokens + answer + promised >= spare_blocks * size and not alone):
            return
        chunk = min(tokens, left)
        admit(s, i, hits)
        give_chunk(s, i, chunk)
        left -= chunk
        room -= 1
        spare_blocks -= need
        promised += answer


def _reserve_tokens(s: Scheduler) -> float:
    """Cache kept free for the answers still to come."""
    to_come = s.ends_sum - s.answering * len(s.step_s)
    return to_come * _ratio(s)


def _ratio(s: Scheduler) -> float:
    initial = min(1.0, INITIAL_RESERVE * s.settings.conservativeness)
    least = initial * LEAST_RESERVE
    decay = (initial - least) / RESERVE_DECAY_STEPS
    return max(least, s.reserve_ratio - decay * (len(s.step_s) - s.reserve_step))


def _make_room(s: Scheduler) -> None:
    """Retract requests until the answers have their blocks, and be more careful from now on."""
    before = s.preemptions
    while growth_now(s) > s.free_blocks:
        preempt_last(s)
    if s.preemptions > before:
        running = [i for step in s.ends.values() for i in step]
        said = sum(tokens_said(s, i) for i in running) + RETRACT_STEPS * len(running)
        s.reserve_ratio = min(1.0, said / (sum(s.wanted[i] for i in running) + 1))
        s.reserve_step = len(s.step_s)
