"""vLLM's order (V1): who runs goes on first, then who waits, first come first served, under one token budget.

After vllm/v1/core/sched/scheduler.py of vLLM 0.32. Prompts are cut to what the budget leaves; a request is
admitted when its whole prompt would fit in the free KV cache; when a running one needs a block and none is free, the
one admitted last is preempted, and then nobody is admitted in that step. With guesses, the answers that the budget
does not reach wait, of the one at its end fewer guesses are checked.
"""

from launchers.sim.scheduler import (
    admit,
    contents,
    give_chunk,
    grow_answers,
    head_of_queue,
    leave_out,
    preempt_last,
)
from launchers.sim.state import ANSWERING, Scheduler, Step, blocks_short, growth_now, is_admitted, need_of


def plan_vllm(s: Scheduler) -> Step:
    """The contents of the next step."""
    before = s.preemptions
    left, chunks = _running(s)
    grow_answers(s)
    for i, tokens in chunks:
        give_chunk(s, i, tokens)
    admits = s.preemptions == before
    if admits and s.waiting:
        _admit(s, left)
    s.stuck = admits and not s.chunks
    return contents(s)


def _running(s: Scheduler) -> tuple[int, list[tuple[int, int]]]:
    """What the batch gets, after throwing out as many as it takes for the rest to have their blocks.

    Returns the budget that is left, and the chunks of prompts under way. A token of every running answer is within
    the budget: those before an unfinished prompt come first, and those behind it were admitted with what it had left.
    With guesses it need not be.
    """
    while True:
        limit = _prompt_limit(s)
        if s.settings.drafts:
            _leave_out(s, limit)
        left = s.settings.token_budget - s.answering * (1 + s.settings.drafts)
        need = growth_now(s)
        chunks = []
        for i in s.prefilling:
            tokens = min(_wanted(s, i, limit), left)
            if tokens:
                need += blocks_short(s, i, tokens)
                left -= tokens
                chunks.append((i, tokens))
        if need <= s.free_blocks:
            return left, chunks
        preempt_last(s)


def _leave_out(s: Scheduler, limit: int) -> None:
    """Leave out the answers that the budget does not reach, going from who was admitted last to the first."""
    width = 1 + s.settings.drafts
    over = s.answering * width + sum(_wanted(s, i, limit) for i in s.prefilling) - s.settings.token_budget
    place = len(s.admitted)
    while over > 0:
        place -= 1
        i = s.admitted[place]
        if not is_admitted(s, i, place):
            continue
        if s.phase[i] == ANSWERING:
            over -= width
            leave_out(s, i)
        else:
            over -= _wanted(s, i, limit)


def _wanted(s: Scheduler, i: int, limit: int) -> int:
    """Tokens of an unfinished prompt, or of an answer that was left out, for which there may be a chunk."""
    if i in s.left_out:
        return min(1 + s.settings.drafts, s.settings.max_model_len - 1 - s.computed[i], limit)
    return min(s.target[i] - s.computed[i], limit)


def _admit(s: Scheduler, left: int) -> None:
    """Admit from the head of the queue while budget, batch and KV cache allow."""
    room = s.settings.max_batch - s.answering - len(s.prefilling)
    while left > 0 and room > 0:
        i = head_of_queue(s)
        if i is None:
            return
        need = need_of(s, i)
        tokens = min(need.tokens, _prompt_limit(s))
        if need.blocks > s.free_blocks or (tokens > left and not s.settings.chunked_prefill):
            return
        tokens = min(tokens, left)
        admit(s, i, need.hits)
        give_chunk(s, i, tokens)
        left -= tokens
        room -= 1


def _prompt_limit(s: Scheduler) -> int:
    """The most tokens of one prompt in one step; a request that is alone may have the whole budget."""
    alone = s.answering + len(s.prefilling) + len(s.waiting) <= 1
    if alone or not s.settings.long_prefill_tokens:
        return s.settings.token_budget
    return s.settings.long_prefill_tokens
