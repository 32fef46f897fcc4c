"""Bench: what to measure on a server that is already running, for how long, and whether this machine can send it."""

from dataclasses import dataclass

from launchers.cpu import usable_cores
from tuner.config.slo import Slo
from tuner.config.workload import Workload
from tuner.errors import ConfigError
from tuner.horizon import ROOM, needed_requests, whole_window_s
from tuner.load.replay import REQUESTS_PER_WORKER_PER_S, STREAMS_PER_WORKER
from tuner.target import ClosedLoop, Load, OpenLoop
from tuner.trial import given_load

# A worker that has more than half of its core to spare may do more, but no core does so many times as much.
MOST_RPS_PER_CORE, MOST_USERS_PER_CORE = 2 * REQUESTS_PER_WORKER_PER_S, 4 * STREAMS_PER_WORKER
# Requests are made before they are sent: a kilobyte each, here and in the processes that send them.
MOST_REQUESTS = 1_000_000
LONGEST_S = 2 * 3600.0
# Arrivals are random, and users may find a fast server.
SPARE = 1.2


@dataclass(frozen=True)
class Bench:
    """What to measure on a server of `gpus` GPUs. Without a `load` the one of highest goodput is searched.

    `requests`: how many a probe at `load` should count; None: as many as the SLO takes. A probe at a `load` whose
    window would be longer than `longest_s` is refused.
    """

    workload: Workload
    slo: Slo
    seed: int = 0
    gpus: int = 1
    load: Load | None = None
    requests: int | None = None
    longest_s: float = LONGEST_S

    @property
    def given(self) -> Load | None:
        """The one load that user or workload say to offer; None: it is searched, or all requests come at once."""
        return self.load or given_load(self.workload)

    @property
    def is_at_once(self) -> bool:
        """Whether the workload's requests all come together."""
        return self.workload.arrivals.kind == "at_once"

    @property
    def is_search(self) -> bool:
        """Whether its load is to be searched: none is given, by the user or by the workload."""
        return self.given is None and not self.is_at_once

    @property
    def is_ramp(self) -> bool:
        """Whether one user after the other joins, and each number of them is a load."""
        return isinstance(self.given, ClosedLoop) and self.given.joining_s > 0

    def check(self) -> None:
        """Raises ConfigError if its parts do not go together, it takes too long, or this machine cannot send it."""
        if self.load is not None and self.is_at_once:
            raise ConfigError(
                f"workload '{self.workload.name}' offers all its requests at once; leave --rate and --users out"
            )
        if self.requests is not None and self.load is None:
            raise ConfigError("--requests says how many a probe counts at one load; give --rate or --users with it")
        if self.given is None:
            return
        if why := beyond_client(self.given, len(usable_cores())):
            raise ConfigError(f"{self._asked_by}: {why}")
        if isinstance(self.given, OpenLoop) and self.load is not None:
            self.check_extent(window_s(self, self.given, self.given.rate_rps))

    def check_extent(self, measure_s: float, idle_e2e_s: float = 1.0) -> None:
        """Raises ConfigError if a window of so many seconds is too long, or takes more requests than can be made."""
        assert self.given is not None
        if measure_s > self.longest_s:
            raise ConfigError(
                f"{self._asked_by}: its window would take {measure_s / 3600:,.1f} hours (limit "
                f"{self.longest_s / 3600:g} h); give fewer --requests or another load, or --longest to wait for it"
            )
        if why := too_many(self, self.given, measure_s, idle_e2e_s):
            raise ConfigError(f"{self._asked_by}: {why}; give fewer --requests or a lower load")

    @property
    def _asked_by(self) -> str:
        """The option, or the workload, that gives the load."""
        match self.load:
            case OpenLoop(rate_rps):
                return f"--rate {rate_rps:g}"
            case ClosedLoop(users):
                return f"--users {users}"
        return f"workload '{self.workload.name}'"


def window_s(order: Bench, load: Load, rate_rps: float) -> float:
    """How long a probe counts requests at a given load, of which `rate_rps` come a second: as long as those take that
    were asked for, or as a finalist's."""
    if order.requests is not None:
        return ROOM * order.requests / rate_rps
    return whole_window_s(order.slo, load, rate_rps, ROOM * needed_requests(order.slo, load))


def too_many(order: Bench, load: Load, measure_s: float, idle_e2e_s: float) -> str | None:
    """Why nobody makes the requests of one probe, those of its window and all that are sent around it; None where
    they are no more than can be made."""
    horizon_s = order.slo.warmup_s + measure_s + order.slo.timeout_s
    each_s = 1 / (SPARE * load.rate_rps) if isinstance(load, OpenLoop) else idle_e2e_s / load.users
    wanted = horizon_s / each_s
    if wanted <= MOST_REQUESTS:
        return None
    return (
        f"{wanted / 1e6:,.1f} million requests would have to be made for it (limit {MOST_REQUESTS / 1e6:g} million)"
    )


def beyond_client(load: Load, cores: int) -> str | None:
    """Why a machine of so many cores cannot offer `load`; None where it may."""
    match load:
        case OpenLoop(rate_rps) if rate_rps > MOST_RPS_PER_CORE * cores:
            most, what = MOST_RPS_PER_CORE * cores, f"{rate_rps:,.0f} requests a second"
        case ClosedLoop(users) if users > MOST_USERS_PER_CORE * cores:
            most, what = MOST_USERS_PER_CORE * cores, f"{users:,} users"
        case _:
            return None
    return f"{what} are more than the load generator can offer on this machine's {cores} cores, {most:,} at the most"
