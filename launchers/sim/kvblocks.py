"""The KV blocks of requests: taken and given back, booked ahead for answers under way, named in the prefix cache."""

from bisect import bisect_right
from operator import add as plus
from operator import sub as minus

from launchers.sim.prefixcache import PrefixCache, fresh_name, keep, merge, release, take, with_room
from launchers.sim.state import ANSWERING, Scheduler, gained, held, steps_run


def take_blocks(s: Scheduler, blocks: int) -> None:
    """Take free blocks."""
    s.free_blocks -= blocks
    if s.cache and blocks:
        take(s.cache, blocks)


def release_blocks(s: Scheduler, i: int) -> None:
    """Give back all that a request holds, which leaves the batch."""
    s.departures += 1
    blocks = held(s, i, steps_run(s, i)) if s.phase[i] == ANSWERING else s.blocks[i]
    if s.cache:
        full = full_blocks(s, i)
        s.free_blocks += release(s.cache, s.owned[i], full - len(s.owned[i]), blocks - full)
        s.owned[i] = []
    else:
        s.free_blocks += blocks


def book(s: Scheduler, i: int, sign: int) -> None:
    """Add (1) or cancel (−1) what an answer will need in the steps to come."""
    if s.settings.drafts:
        _book_guesses(s, i, sign)
        return
    start, now, size = s.run_start[i], len(s.step_s), s.settings.block_tokens
    first = now + (start - now - s.target[i]) % size
    for step in range(first, s.run_end[i], size):
        s.growth[step] += sign


def _book_guesses(s: Scheduler, i: int, sign: int) -> None:
    """`book` where steps yield several tokens: these are added to those of the others, and a block is needed in the
    step whose guesses could reach into it; see `held`."""
    start, now, end, tokens = s.run_start[i], len(s.step_s), s.run_end[i], s.guessed[i].tokens
    said = tokens[now - start :]
    s.gains[now:end] = map(plus if sign > 0 else minus, s.gains[now:end], map(minus, said[1:], said))
    reach = s.target[i] + 1 + s.settings.drafts
    for block in range(held(s, i, now - start), held(s, i, end - start)):
        step = start + bisect_right(tokens, block * s.settings.block_tokens - reach)
        s.growth[step] += sign


def cache_planned(s: Scheduler, cache: PrefixCache, i: int, tokens: int) -> None:
    """Put the blocks that a chunk is going to fill into vLLM's cache: others of the same step find them."""
    if s.names[i] and s.settings.engine == "vllm":
        s.owned[i] += keep(cache, _names_within(s, i, tokens))


def cache_computed(s: Scheduler, cache: PrefixCache, i: int, tokens: int) -> None:
    """Put the blocks that a chunk has filled into SGLang's tree, which keeps no copies."""
    if s.names[i] and s.settings.engine == "sglang":
        names = _names_within(s, i, tokens)
        s.free_blocks += merge(cache, names)
        s.owned[i] += names


def remember(s: Scheduler, i: int) -> None:
    """Name the full blocks of a request that is about to be preempted: it finds again what is not forgotten by then.

    vLLM keeps prompt and answer, SGLang what was computed as a prompt.
    """
    if s.cache is None:
        # Until now no block had a name, so that their order did not matter.
        s.cache = with_room(s.free_blocks)
    full = full_blocks(s, i) if s.settings.engine == "vllm" else s.computed[i] // s.settings.block_tokens
    missing = full - len(s.names[i])
    fresh = [fresh_name(s.cache) for _ in range(missing)]
    s.names[i] = [*s.names[i], *fresh]
    s.owned[i] += fresh


def full_blocks(s: Scheduler, i: int) -> int:
    """Blocks of a running request that nothing can be added to."""
    answered = gained(s, i, steps_run(s, i)) if s.phase[i] == ANSWERING else 0
    return (s.computed[i] + answered) // s.settings.block_tokens


def _names_within(s: Scheduler, i: int, tokens: int) -> list[int]:
    """Named blocks that a chunk fills."""
    size = s.settings.block_tokens
    return s.names[i][s.computed[i] // size : (s.computed[i] + tokens) // size]
