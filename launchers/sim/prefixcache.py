"""Prefix cache: which blocks of KV are kept after their request, and which are forgotten first.

A block is a number that stands for its text and all text before it. Only texts that several requests share have
numbers; blocks nobody else can want are counted, not named. Freed blocks queue up, least recently freed first, and
whoever needs room takes from the front, as in vLLM.
"""

from collections import deque
from dataclasses import dataclass, field

UNNAMED = -1


@dataclass(slots=True)
class PrefixCache:
    """`users[block]` counts the running requests that hold a cached block; absent blocks are not cached.

    `freed` holds (block, count or stamp): runs of unnamed blocks, or a named block that nobody uses since `stamp`.
    """

    users: dict[int, int] = field(default_factory=dict)
    freed: deque[tuple[int, int]] = field(default_factory=deque)
    stamps: dict[int, int] = field(default_factory=dict)
    clock: int = 0
    own_names: int = UNNAMED
    queried_tokens: int = 0
    hit_tokens: int = 0


def with_room(blocks: int) -> PrefixCache:
    """An empty cache of `blocks` blocks."""
    cache = PrefixCache()
    cache.freed.append((UNNAMED, blocks))
    return cache


def leading_hits(cache: PrefixCache, names: list[int], most: int) -> int:
    """How many of the first `most` blocks are cached, without a gap."""
    hits = 0
    for name in names[:most]:
        if name not in cache.users:
            break
        hits += 1
    return hits


def unused(cache: PrefixCache, names: list[int]) -> int:
    """How many of these cached blocks nobody uses: holding them takes as many from the free ones."""
    return sum(cache.users[name] == 0 for name in names)


def hold(cache: PrefixCache, names: list[int]) -> None:
    """Use cached blocks."""
    for name in names:
        cache.users[name] += 1
        cache.stamps.pop(name, None)


def keep(cache: PrefixCache, name: int) -> bool:
    """Put a block that was just computed into the cache; False where a copy of it is there already."""
    if name in cache.users:
        return False
    cache.users[name] = 1
    return True


def fresh_name(cache: PrefixCache) -> int:
    """A name for a block in use that only its own request will look for; it is cached from now on."""
    cache.own_names -= 1
    cache.users[cache.own_names] = 1
    return cache.own_names


def take(cache: PrefixCache, blocks: int) -> None:
    """Take `blocks` free blocks, forgetting what they held."""
    freed = cache.freed
    while blocks:
        name, count = freed.popleft()
        if name == UNNAMED:
            taken = min(count, blocks)
            blocks -= taken
            if taken < count:
                freed.appendleft((UNNAMED, count - taken))
        elif cache.stamps.get(name) == count:
            del cache.stamps[name], cache.users[name]
            blocks -= 1


def release(cache: PrefixCache, names: list[int], unnamed: int, partial: int) -> int:
    """Stop using blocks, the tail first so that beginnings live longest. How many of them are free now.

    `unnamed` full blocks could be found again by their text if anybody had it; `partial` ones cannot be, and are the
    first to be taken again.
    """
    free = unnamed + partial
    if partial:
        cache.freed.appendleft((UNNAMED, partial))
    if unnamed:
        cache.freed.append((UNNAMED, unnamed))
    for name in reversed(names):
        cache.users[name] -= 1
        if not cache.users[name]:
            cache.clock += 1
            cache.stamps[name] = cache.clock
            cache.freed.append((name, cache.clock))
            free += 1
    return free
