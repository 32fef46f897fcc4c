"""The load generator's own health: how much of the time it was computing, or kept from it by others."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, thread_time

SCHEDSTAT = Path("/proc/self/schedstat")


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


def _run_queue_wait_s() -> float:
    """The second field of schedstat (nanoseconds); 0 where the kernel does not keep it."""
    try:
        return int(SCHEDSTAT.read_text().split()[1]) * 1e-9
    except FileNotFoundError:
        return 0.0
