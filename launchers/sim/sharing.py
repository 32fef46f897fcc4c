"""Which leading blocks of which prompts hold the same text: segments in, numbers of blocks out. Pure."""

from collections import Counter
from collections.abc import Sequence

from tuner.requests import Segment

ROOT = -1


def shared_block_names(prompts: Sequence[tuple[Segment, ...]], block_tokens: int) -> list[list[int]] | None:
    """For each prompt the numbers of the leading full blocks that another prompt shares; None if none does.

    A block's number stands for its text and all before it, so equal numbers are equal prefixes.
    """
    if len({prompt[:1] for prompt in prompts}) == len(prompts):
        return None
    nodes: dict[tuple[int, Segment], int] = {}
    paths = [_path(nodes, prompt) for prompt in prompts]
    visits = Counter(node for path in paths for node in path)
    if all(count == 1 for count in visits.values()):
        return None
    names: dict[int, list[int]] = {ROOT: []}
    ends = {ROOT: 0}
    numbered = 0
    for (parent, segment), node in nodes.items():
        if visits[node] > 1:
            ends[node] = ends[parent] + segment.tokens
            fresh = ends[node] // block_tokens - len(names[parent])
            names[node] = [*names[parent], *range(numbered, numbered + fresh)]
            numbered += fresh
    return [names[_deepest_shared(path, visits)] for path in paths]


def _path(nodes: dict[tuple[int, Segment], int], prompt: tuple[Segment, ...]) -> list[int]:
    """The nodes of `prompt` in the tree of all prompts, which grows as needed."""
    node = ROOT
    path = []
    for segment in prompt:
        node = nodes.setdefault((node, segment), len(nodes))
        path.append(node)
    return path


def _deepest_shared(path: list[int], visits: Counter[int]) -> int:
    deepest = ROOT
    for node in path:
        if visits[node] == 1:
            break
        deepest = node
    return deepest
