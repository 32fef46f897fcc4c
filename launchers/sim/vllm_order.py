"""vLLM's order (V1): who runs goes on first, then who waits, first come first served, under one token budget.

After vllm/v1/core/sched/scheduler.py of vLLM 0.32. Prompts are cut to what the budget leaves; a request is
admitted when its whole prompt would fit in the free KV cache; when a running one needs a block and none is free, the
one admitted last is preempted, and then nobody is admitted in that step.
"""

from launchers.sim.prefixcache import leading_hits, unused
from launchers.sim.scheduler import admit, contents, give_chunk, grow_answers, head_of_queue, preempt_last
from launchers.sim.state import Scheduler, Step, blocks_for, growth_now


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

    Returns the budget that is left, and the chunks of prompts under way. Every running answer gets its tokens: those
    before an unfinished prompt come first, and those behind it were admitted with what it had left.
    """
    settings = s.settings
    while True:
        left = max(0, settings.token_budget - s.answering * (1 + settings.drafts))
        need = growth_now(s)
        chunks = []
        limit = _prompt_limit(s)
        for i in s.prefilling:
            tokens = min(s.target[i] - s.computed[i], limit, left)
            if tokens:
                need += blocks_for(s, s.computed[i] + tokens) - s.blocks[i]
                left -= tokens
                chunks.append((i, tokens))
        if need <= s.free_blocks:
            return left, chunks
        preempt_last(s)


def _admit(s: Scheduler, left: int) -> None:
    """Admit from the head of the queue while budget, batch and KV cache allow."""
    room = s.settings.max_batch - s.answering - len(s.prefilling)
    while left > 0 and room > 0:
        i = head_of_queue(s)
        if i is None:
            return
        hits = leading_hits(s.cache, s.names[i], (s.target[i] - 1) // s.settings.block_tokens) if s.cache else 0
        tokens = min(s.target[i] - hits * s.settings.block_tokens, _prompt_limit(s))
        if tokens > left and not s.settings.chunked_prefill:
            return
        revived = unused(s.cache, s.names[i][:hits]) if s.cache else 0
        if blocks_for(s, s.target[i]) - hits + revived > s.free_blocks:
            return
        tokens = min(tokens, left)
        admit(s, i, hits)
        give_chunk(s, i, tokens)
        left -= tokens
        room -= 1


def _prompt_limit(s: Scheduler) -> int:
    """The most tokens of one prompt in one step; a request that is alone may have the whole budget."""
    alone = s.answering + len(s.prefilling) + len(s.waiting) <= 1
    if alone or not s.settings.long_prefill_tokens:
        return s.settings.token_budget
    return s.settings.long_prefill_tokens
