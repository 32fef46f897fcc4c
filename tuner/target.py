"""Target: one warm server, real or simulated, that a workload can be replayed against."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tuner.engineview import EngineFacts
from tuner.requestlog import RequestLog
from tuner.requests import Requests


@dataclass(frozen=True)
class OpenLoop:
    """Sessions arrive on an absolute schedule, whether or not the server keeps up: `rate_rps` requests per second in
    the mean, all their turns counted."""

    rate_rps: float


@dataclass(frozen=True)
class ClosedLoop:
    """`users` sessions at a time; each starts the next when it has finished one.

    With `joining_s` the users come one by one, the first at once and each other one so many seconds later.
    """

    users: int
    joining_s: float = 0.0


Load = OpenLoop | ClosedLoop


@dataclass(frozen=True)
class Window:
    """Which requests count: those due in [`warmup_s`, `warmup_s` + `measure_s`), each followed for `timeout_s`.

    The load goes on after the window until every counted request has ended, so that none of them finishes on a
    draining server.
    """

    warmup_s: float
    measure_s: float
    timeout_s: float

    @property
    def end_s(self) -> float:
        """When the window closes to new requests."""
        return self.warmup_s + self.measure_s


Watch = Callable[[RequestLog], str | None]
"""Looks at a probe while it runs; a text (the reason) stops it."""


class Target(Protocol):
    """A warm server. All costs and budgets are counted on its clock."""

    def replay(self, requests: Requests, load: Load, window: Window, watch: Watch) -> RequestLog:
        """Offer `requests` at `load` and return what was seen, one row for every request that was scheduled.

        `watch` is shown the log so far now and then. A caller gives enough requests to fill the
        window and the tail behind it. Raises ServerFailed if the server dies, MeasurementVoid if the client was
        too slow to be believed, twice.
        """
        ...

    def reset_cache(self) -> None:
        """Forget cached prefixes, so that a probe owes nothing to the one before."""
        ...

    def facts(self) -> EngineFacts | None:
        """What the server says it was started with; None where it says nothing."""
        ...

    def clock_s(self) -> float:
        """Seconds since the server was asked to start, its start-up included."""
        ...
