"""Health: whether a probe can be believed, by what its client and the server's cache did. Pure."""

from dataclasses import dataclass

import numpy as np

from tuner.requestlog import ClientHealth, RequestLog, Status
from tuner.requests import BoolArray, IntArray

# What prompts share besides may be so long: a chat's template before its text, less than a segment behind what they
# share by design. Such tokens are no leftovers of another probe.
CHANCE_TOKENS = 128
# Less than this share of all prompt tokens does not change a measurement.
LEFTOVER_FRAC = 0.05


@dataclass(frozen=True)
class Health:
    """Whether a probe can be believed; its counted requests that ended, those of them that failed included.

    `wanted_tokens` were asked for (the most there can be, where answers end naturally), `received_tokens` the server
    says it gave, in `chunks` token-bearing chunks.
    `reusable_frac` of all prompt tokens would have been in an endless prefix cache, `cached_frac` were in the
    server's, as it says; None where it does not. `leftover_frac`: how much more of them was in its cache than the
    workload could have put there, where that is more than chance: something of an earlier probe was left in it.
    """

    client: ClientHealth
    wanted_tokens: int
    received_tokens: int
    chunks: int
    reusable_frac: float | None
    cached_frac: float | None
    leftover_frac: float = 0.0


def health_of(log: RequestLog) -> Health | None:
    """That of the probe that `log` is of; None in virtual time, where there is no client."""
    if log.client is None:
        return None
    rows = log.counted & (log.status != Status.UNFOLLOWED)
    prompt_tokens = int(log.prompt_tokens[rows].sum())
    return Health(
        client=log.client,
        wanted_tokens=int(log.wanted_tokens[rows].sum()),
        received_tokens=int(log.output_tokens[rows].sum()),
        chunks=int(np.diff(log.chunk_start)[rows].sum()),
        reusable_frac=_share(log.reusable_tokens, rows, prompt_tokens),
        cached_frac=_share(log.cached_tokens, rows, prompt_tokens),
        leftover_frac=_leftover_frac(log, rows),
    )


def _leftover_frac(log: RequestLog, rows: BoolArray) -> float:
    """The share of prompt tokens found in the prefix cache though no prompt of this probe had brought them.

    Request by request where the server says what it had cached, else by its counters over the whole probe.
    """
    if log.reusable_tokens is None:
        return 0.0
    if log.cached_tokens is not None:
        excess = (log.cached_tokens - log.reusable_tokens)[rows]
        found, total = float(excess[excess > CHANCE_TOKENS].sum()), float(log.prompt_tokens[rows].sum())
    elif log.engine and log.engine.cache_hit_frac is not None:
        total = float(log.prompt_tokens.sum())
        explained = float(log.reusable_tokens.sum()) + CHANCE_TOKENS * len(log)
        found = log.engine.cache_hit_frac * total - explained
    else:
        return 0.0
    frac = found / total if total else 0.0
    return frac if frac > LEFTOVER_FRAC else 0.0


def _share(tokens: IntArray | None, rows: BoolArray, total: int) -> float | None:
    return None if tokens is None or not total else int(tokens[rows].sum()) / total
