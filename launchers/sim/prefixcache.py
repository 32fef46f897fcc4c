"""Prefix cache: which blocks of KV are kept after their request, and which are forgotten first.

A block is a number that stands for its text and all text before it. Only texts that several requests share have
numbers; blocks nobody else can want are counted, not named. Freed blocks queue up, least recently freed first, and
whoever needs room takes from the front, as in vLLM.
"""

from collections import deque
from dataclasses import dataclass, field

UNNAMED: list[int] = []


@dataclass(slots=True)
class PrefixCache:
    """`users[block]` counts the running requests that hold a cached block; absent blocks are not cached.

    `freed` queues (UNNAMED, how many) and (named blocks, stamp), these to be forgotten from the end of the list; a
    block that was used again since has another stamp, or none (`tidy` drops it where there are more than `tidy_above`
    entries). `stamps` has the cached blocks that nobody uses.
    """

    users: dict[int, int] = field(default_factory=dict)
    freed: deque[tuple[list[int], int]] = field(default_factory=deque)
    stamps: dict[int, int] = field(default_factory=dict)
    tidy_above: int = 10_000
    clock: int = 0
    own_names: int = 0
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
    return sum(map(cache.stamps.__contains__, names))


def hold(cache: PrefixCache, names: list[int]) -> int:
    """Use cached blocks. How many of them were `unused`."""
    users, before = cache.users, len(cache.stamps)
    for name in names:
        if not users[name]:
            del cache.stamps[name]
        users[name] += 1
    return before - len(cache.stamps)


def keep(cache: PrefixCache, names: list[int]) -> list[int]:
    """Put blocks that were just computed into the cache, but for those of which a copy is there already."""
    fresh = [name for name in names if name not in cache.users]
    cache.users.update(dict.fromkeys(fresh, 1))
    return fresh


def merge(cache: PrefixCache, names: list[int]) -> int:
    """Put blocks that were just computed into the cache, using those that are there already instead of their copies.
    How many are free now."""
    there = [name for name in names if name in cache.users]
    keep(cache, names)
    if there:
        cache.freed.appendleft((UNNAMED, len(there)))
    return len(there) - hold(cache, there)


def fresh_name(cache: PrefixCache) -> int:
    """A name for a block in use that only its own request will look for; it is cached from now on."""
    cache.own_names -= 1
    cache.users[cache.own_names] = 1
    return cache.own_names


def take(cache: PrefixCache, blocks: int) -> None:
    """Take `blocks` free blocks, forgetting what they held."""
    freed = cache.freed
    while blocks:
        names, count = freed.popleft()
        if names is UNNAMED:
            taken = min(count, blocks)
            if taken < count:
                freed.appendleft((UNNAMED, count - taken))
        else:
            taken = _forget(cache, names, count, blocks)
            if names:
                freed.appendleft((names, count))
        blocks -= taken


def release(cache: PrefixCache, names: list[int], unnamed: int, partial: int) -> int:
    """Stop using blocks, the tail to be forgotten first so that beginnings live longest. How many are free now.

    `unnamed` full blocks could be found again by their text if anybody had it; `partial` ones cannot be, and are the
    first to be taken again.
    """
    users = cache.users
    idle = []
    for name in names:
        users[name] -= 1
        if not users[name]:
            idle.append(name)
    cache.clock += 1
    cache.stamps.update(dict.fromkeys(idle, cache.clock))
    if partial:
        cache.freed.appendleft((UNNAMED, partial))
    if unnamed:
        cache.freed.append((UNNAMED, unnamed))
    if idle:
        cache.freed.append((idle, cache.clock))
    return partial + unnamed + len(idle)


def tidy(cache: PrefixCache) -> None:
    """Drop from `freed` what was used again since, once there may be much of it. What is forgotten next is the same.

    Texts that are asked for again and again pile up there, as long as nobody needs their room.
    """
    if len(cache.freed) <= cache.tidy_above:
        return
    stamps = cache.stamps
    kept = (
        (names if names is UNNAMED else [n for n in names if stamps.get(n) == at], at) for names, at in cache.freed
    )
    cache.freed = deque((names, at) for names, at in kept if names or names is UNNAMED)
    cache.tidy_above = max(cache.tidy_above, 2 * len(cache.freed))


def _forget(cache: PrefixCache, names: list[int], stamp: int, most: int) -> int:
    """Forget up to `most` blocks from the end of `names`, dropping those that were used since. How many it were."""
    forgotten = 0
    while names and forgotten < most:
        name = names.pop()
        if cache.stamps.get(name) == stamp:
            del cache.stamps[name], cache.users[name]
            forgotten += 1
    return forgotten
