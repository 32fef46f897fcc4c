"""The load generator's own health: how much it computed, or was kept from it by others, and how late it woke."""

import asyncio
from array import array
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, thread_time

import numpy as np

SCHEDSTAT = Path("/proc/self/schedstat")
TICK_S = 0.010
# A loop that wakes so late has stood still: any process on a busy machine does at times.
STALL_S = 0.010
# The beginning of a probe, when all users of a closed loop may send at once, is busy on any machine.
BEGINNING_S = 1.0


@dataclass(frozen=True)
class Effort:
    """Seconds since some start: on the wall, on a core, and runnable but without a core."""

    wall_s: float
    cpu_s: float
    run_queue_wait_s: float

    @property
    def busy_frac(self) -> float:
        """Share of the wall time in which the event loop had something to do."""
        return min(1.0, (self.cpu_s + self.run_queue_wait_s) / self.wall_s) if self.wall_s > 0 else 0.0

    @property
    def cpu_frac(self) -> float:
        """Share of the wall time on a core."""
        return self.cpu_s / self.wall_s if self.wall_s > 0 else 0.0

    def since(self, earlier: "Effort") -> "Effort":
        """The effort between two readings."""
        return Effort(
            self.wall_s - earlier.wall_s,
            self.cpu_s - earlier.cpu_s,
            self.run_queue_wait_s - earlier.run_queue_wait_s,
        )


def effort() -> Effort:
    """A reading of this thread, which must be the process's main thread: schedstat is about that one."""
    return Effort(perf_counter(), thread_time(), _run_queue_wait_s())


class Wakes:
    """How late an event loop wakes, and so how late it reads, open loop or closed.

    Ticks are due on an absolute schedule: while the loop stands still they fall due all the same, so that a share of
    ticks is a share of the time, and a long stall counts for all its length.
    """

    def __init__(self) -> None:
        self._late_s = array("d")
        self._stalls: list[tuple[float, float]] = []

    async def watch(self) -> None:
        """Tick until cancelled."""
        due_s = perf_counter() + BEGINNING_S
        while True:
            await asyncio.sleep(max(0.0, due_s - perf_counter()))
            self._note(due_s, perf_counter())
            due_s += TICK_S

    def _note(self, due_s: float, now_s: float) -> None:
        self._late_s.append(now_s - due_s)
        if now_s - due_s < STALL_S:
            return
        if self._stalls and due_s <= self._stalls[-1][1]:
            self._stalls[-1] = (self._stalls[-1][0], now_s)
        else:
            self._stalls.append((due_s, now_s))

    def stalls(self, start_s: float) -> tuple[tuple[float, float], ...]:
        """From when to when the loop stood still for STALL_S or longer, seconds since `start_s`."""
        return tuple((began_s - start_s, over_s - start_s) for began_s, over_s in self._stalls)

    @property
    def lag_p99_s(self) -> float:
        """Of all ticks so far; 0 where there was none. A timer may fire early, by less than a millisecond."""
        return max(0.0, float(np.quantile(self._late_s, 0.99))) if self._late_s else 0.0


def _run_queue_wait_s() -> float:
    """The second field of schedstat (nanoseconds); 0 where the kernel does not keep it."""
    try:
        return int(SCHEDSTAT.read_text().split()[1]) * 1e-9
    except FileNotFoundError:
        return 0.0
