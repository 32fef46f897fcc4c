"""Copies: which data-parallel copy of a simulated server gets the next request.

vLLM's (`DPLBAsyncMPClient`, 0.32): the one with the fewest requests, where a queue counts up to four times when the
KV cache is full; looking begins one copy further each time, so that equals take turns. SGLang's default: in turn.
"""

from launchers.sim.realtime import RealTime

QUEUE_PENALTY = 6.0
UNPENALISED_FRAC = 0.5


class Copies:
    """The copies of one server, and whose turn it is."""

    def __init__(self, copies: list[RealTime]) -> None:
        self._copies = copies
        self._turn = 0

    def next(self) -> RealTime:
        """The copy for the next request."""
        first = self._turn
        self._turn = (first + 1) % len(self._copies)
        if self._copies[first].settings.policy == "sglang":
            return self._copies[first]
        return min([*self._copies[first:], *self._copies[:first]], key=_load)


def _load(copy: RealTime) -> float:
    pressure = max(0.0, copy.kv_used_frac - UNPENALISED_FRAC)
    return copy.running + copy.waiting * (1 + QUEUE_PENALTY * pressure)
