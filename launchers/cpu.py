"""How the cores and the memory of a box without GPUs are shared: the engine gets most of the cores, the load
generator and the tuner the rest.

A client that waits for a core measures its own waiting, so the engine is kept off the cores of the others. Of the
memory engines would take nearly all for their KV cache, unless they are told how much: this serves 32 users of a
small model. `--set kv-cache-memory-bytes=...` (vLLM) and `--set max-total-tokens=...` (SGLang) change it.
"""

import os
from collections.abc import Collection

VLLM_KV_BYTES = 1024**3
SGLANG_KV_TOKENS = 131_072


def usable_cores() -> Collection[int]:
    """The cores this process may run on."""
    return os.sched_getaffinity(0)


def engine_cores(usable: Collection[int]) -> tuple[int, ...]:
    """The cores a server may use: all but the last quarter (at least one); all of them if there is but one. Pure."""
    for_others = max(1, len(usable) // 4)
    return tuple(sorted(usable)[:-for_others] or usable)


def engine_threads(usable: Collection[int]) -> int:
    """Threads for the engine's arithmetic: beside them its API process and its scheduler need a core each. Pure."""
    return max(1, len(engine_cores(usable)) - 2)
