"""How far a served simulation is behind its own schedule: a histogram over its steps."""

from collections import Counter
from math import ceil

TICK_S = 1e-4
BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25)


class Lateness:
    """Counts steps by how late their tokens were handed out, to a tenth of a millisecond (rounded up)."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()
        self.sum_s = 0.0

    @property
    def steps(self) -> int:
        """The number of steps so far."""
        return self._steps.total()

    def note(self, late_s: float) -> None:
        """One more step. One that was early, as timers of whole milliseconds can be, was not late."""
        late_s = max(0.0, late_s)
        self._steps[ceil(late_s / TICK_S)] += 1
        self.sum_s += late_s

    def within(self, limit_s: float) -> int:
        """How many steps were at most so late."""
        limit = round(limit_s / TICK_S)
        return sum(count for tick, count in self._steps.items() if tick <= limit)

    def percentile_s(self, percent: float) -> float:
        """So many percent of the steps were at most this late; 0 before the first step."""
        seen, wanted = 0, percent / 100 * self.steps
        for tick in sorted(self._steps):
            seen += self._steps[tick]
            if seen >= wanted:
                return tick * TICK_S
        return 0.0
