"""Prefill-first: whole prompts in batches of their own, before answers; answers when no prompt can be admitted.

vLLM's order before chunked prefill, kept for comparisons: after `_schedule_default` of vllm/core/scheduler.py (V0) of
vLLM 0.4. Prompts are never cut, so the token budget must hold the longest (that engine refuses to start otherwise).
While a batch of prompts is computed every running answer waits: the generation stalls that Sarathi-Serve removes.
"""

from launchers.sim.scheduler import admit, contents, give_chunk, grow_answers, head_of_queue, preempt_last
from launchers.sim.state import Scheduler, Step, growth_now, need_of

WATERMARK_FRAC = 0.01
"""Of all blocks, kept free by admission for the answers to grow into: `watermark` of that engine's block manager."""


def plan_prefill_first(s: Scheduler) -> Step:
    """The contents of the next step."""
    before = s.preemptions
    _admit(s)
    if not s.chunks:
        while growth_now(s) > s.free_blocks:
            preempt_last(s)
        grow_answers(s)
    s.stuck = not s.chunks and s.preemptions == before
    return contents(s)


def _admit(s: Scheduler) -> None:
    """Admit whole prompts from the head of the queue while budget, batch and KV cache allow."""
    left = s.settings.token_budget
    room = s.settings.max_batch - s.answering
    while room > 0:
        i = head_of_queue(s)
        if i is None:
            return
        need = need_of(s, i)
        if need.tokens > left or need.blocks > s.free_blocks - _watermark_blocks(s):
            return
        admit(s, i, need.hits)
        give_chunk(s, i, need.tokens)
        left -= need.tokens
        room -= 1


def _watermark_blocks(s: Scheduler) -> int:
    """None on an idle server, where a request that needs them all would wait for ever."""
    is_idle = not s.answering and not s.prefilling
    return 0 if is_idle else int(WATERMARK_FRAC * s.settings.blocks)
