"""How many cores an engine may have on a box without GPUs, where it shares them with tuner and load generator."""

import os

CORES_FOR_OTHERS = 3


def engine_threads() -> int:
    """Threads for the engine's arithmetic: all usable cores but those of API process, client and tuner."""
    return max(1, len(os.sched_getaffinity(0)) - CORES_FOR_OTHERS)
