"""Orca's order: in every step all answers and, whole and at once, every prompt that finds a place in the batch.

Iteration-level scheduling without chunks or paging, kept for comparisons: after Yu et al., "Orca" (OSDI 2022), as the
baseline of Sarathi-Serve has it. No token budget: only `max_batch` and the KV cache limit a step. The cache is
contiguous, so a request is admitted when there is room for the longest one that the server takes; nobody is
preempted. Not modelled: the memory that activations of so many prompts at once need (choose `max_batch` for it).
"""

from launchers.sim.scheduler import admit, contents, give_chunk, grow_answers, head_of_queue
from launchers.sim.state import Scheduler, Step, blocks_for, need_of


def plan_orca(s: Scheduler) -> Step:
    """The contents of the next step."""
    grow_answers(s)
    for _ in range(_places(s) - s.answering):
        i = head_of_queue(s)
        if i is None:
            break
        need = need_of(s, i)
        admit(s, i, need.hits)
        give_chunk(s, i, need.tokens)
    s.stuck = True
    return contents(s)


def _places(s: Scheduler) -> int:
    """Requests that may run at once, each with a reservation of the longest request's size."""
    reserved = min(blocks_for(s, s.settings.max_model_len), s.settings.blocks)
    return min(s.settings.max_batch, s.settings.blocks // reserved)
