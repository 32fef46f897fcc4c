"""Probe: the workload replayed once at one load, scored, and stopped early when it cannot matter any more."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from tuner.config.slo import Slo
from tuner.config.workload import Workload
from tuner.errors import MeasurementVoid
from tuner.horizon import search_window_s, whole_window_s
from tuner.ramp import is_over, steps_of
from tuner.requestlog import RequestLog, Status
from tuner.requests import Requests
from tuner.score import Score, bad_requests, fluidity, score
from tuner.seeds import Purpose, derive
from tuner.target import ClosedLoop, Load, OpenLoop, Target, Window
from tuner.workload.build import build
from tuner.workload.typical import typical_seed

IDLE_REQUESTS = 12
# A search's window is the most typical of so many.
DRAWS = 32
# A probe is stopped when so many times the allowed share of its requests is bad already, and at least so many.
HOPELESS_FACTOR = 3.0
HOPELESS_LEAST = 10

ProbeStage = Literal["idle", "search", "ramp", "confirm"]
Watcher = Callable[[Load, float, RequestLog], None]
"""Is shown a running probe: its load, how much of its window is done (0–1) and the log so far."""


@dataclass(frozen=True)
class Recorded:
    """A finished probe with its raw timings. `planned_s`: how long its window was to be; `seed`: its requests'."""

    stage: ProbeStage
    replicate: int
    score: Score
    log: RequestLog
    planned_s: float
    seed: int


@dataclass
class Prober:
    """Measures one warm server under one workload and SLO, and keeps every raw log.

    `turn_s`: seconds from one request of a user to his next, where that is known of this server already.
    """

    target: Target
    workload: Workload
    slo: Slo
    seed: int
    stage: ProbeStage = "search"
    replicate: int = 0
    watcher: Watcher | None = None
    idle_e2e_s: float = 1.0
    turn_s: float | None = None
    recorded: list[Recorded] = field(default_factory=list)

    def idle(self) -> Score:
        """One request at a time: what the server does when nobody else is there."""
        requests = build(self.workload, self.seed, IDLE_REQUESTS)
        window = Window(0.0, IDLE_REQUESTS * self.slo.timeout_s, self.slo.timeout_s)
        found = self._replay(requests, ClosedLoop(1), window, "idle")
        if found.e2e_s:
            self.idle_e2e_s = max(found.e2e_s.p50, 1e-3)
        return found

    def measure(self, load: Load, counted: int) -> Score:
        """The score at `load` with hardly ever fewer than `counted` requests in a window no longer than a finalist's.

        The k-th probe of a server replays a trace out of the k-th few, the most typical one of its window: none twice
        on one server, so that its probes do not share their luck, and the same for every configuration that has an
        equal window at the same load.
        """
        number = sum(one.stage == self.stage for one in self.recorded)
        seeds = [derive(self.seed, Purpose.SEARCH, DRAWS * number + draw) for draw in range(DRAWS)]
        measure_s = search_window_s(self.slo, load, self.expected_rps(load), counted, self._answer_s())
        if not isinstance(load, OpenLoop):
            return self._measured(load, measure_s, seeds[0])
        seed = typical_seed(self.workload, seeds, load.rate_rps, self.slo.warmup_s + measure_s)
        return self._measured(load, measure_s, seed)

    def expected_rps(self, load: Load) -> float:
        """Requests per second to expect at `load`: users over the time of a turn with its pause.

        That time is taken from the probe of the nearest number of users so far, be it the idle one.
        """
        if isinstance(load, OpenLoop):
            return load.rate_rps
        if self.turn_s is not None:
            return load.users / self.turn_s
        turns_s = {
            one.score.load.users: one.score.load.users / one.score.request_rps
            for one in self.recorded
            if isinstance(one.score.load, ClosedLoop) and one.score.request_rps > 0
        }
        nearest = min(turns_s, key=lambda users: abs(math.log(users / load.users)), default=None)
        return load.users / (self.idle_e2e_s if nearest is None else turns_s[nearest])

    def _answer_s(self) -> float:
        """How long an answer takes once it has begun: the median of the slowest probe so far; 0 before the first."""
        seen = [(one.score.e2e_s, one.score.ttft_s) for one in self.recorded]
        return max((e2e.p50 - ttft.p50 for e2e, ttft in seen if e2e and ttft), default=0.0)

    def measure_whole(self, load: Load, counted: int) -> Score:
        """The score at `load` over the window of a finalist that is to count so many requests."""
        return self.measure_for(load, whole_window_s(self.slo, load, self.expected_rps(load), counted))

    def measure_for(self, load: Load, measure_s: float) -> Score:
        """The score at `load` over a window of `measure_s` seconds."""
        return self._measured(load, measure_s, self.seed)

    def _measured(self, load: Load, measure_s: float, seed: int) -> Score:
        window = Window(self.slo.warmup_s, measure_s, self.slo.timeout_s)
        return self._replay(self._drawn(load, window, seed), load, window, self.stage)

    def _drawn(self, load: Load, window: Window, seed: int) -> Requests:
        """Requests for `window`. A recording may have a time in which nobody comes: a window there says nothing of a
        server, and another one is drawn. Raises MeasurementVoid if that is so wherever it begins."""
        for attempt in range(DRAWS):
            drawn = derive(seed, Purpose.SEARCH, attempt) if attempt else seed
            requests = build(self.workload, drawn, self._enough(load, window))
            if isinstance(load, ClosedLoop) or not self._is_recorded:
                return requests
            due_s = np.cumsum(requests.unit_gaps) / load.rate_rps
            if ((due_s >= window.warmup_s) & (due_s < window.end_s)).any():
                return requests
        raise MeasurementVoid(f"nobody comes in {window.measure_s:.0f} s of the recording, wherever they begin")

    @property
    def _is_recorded(self) -> bool:
        return self.workload.arrivals.kind == "trace"

    def ramp(self, load: ClosedLoop) -> tuple[Score, ...]:
        """The score at each number of users up to `load.users`, each from the time that it was the number."""
        window = Window(0.0, load.users * load.joining_s, self.slo.timeout_s)
        requests = build(self.workload, self.seed, self._enough(load, window))
        self._replay(requests, load, window, "ramp")
        return steps_of(self.recorded[-1].log, load, self.slo.limits)

    def all_at_once(self, count: int) -> Score:
        """Offline: `count` requests offered together; the window is the time until the last has ended."""
        requests = build(self.workload, self.seed, count)
        window = Window(0.0, self.slo.timeout_s, self.slo.timeout_s)
        return self._replay(requests, ClosedLoop(count), window, self.stage)

    def _replay(self, requests: Requests, load: Load, window: Window, stage: ProbeStage) -> Score:
        self.target.reset_cache()
        log = self.target.replay(requests, load, window, lambda seen: self._look(seen, load, window))
        if window.end_s > log.ended_s:
            log = _closed_at_its_end(log)
        found = replace(score(log, load, self.slo.limits), is_recorded=self._is_recorded)
        if log.stopped is None:
            found = replace(found, fluidity=fluidity(log, load, self.slo.limits))
        self.recorded.append(Recorded(stage, self.replicate, found, log, window.measure_s, requests.seed))
        return found

    def _enough(self, load: Load, window: Window) -> int:
        """Requests that fill the window and the tail behind it, until the last counted one may have timed out."""
        horizon_s = window.end_s + window.timeout_s
        if isinstance(load, OpenLoop):
            return int(load.rate_rps * horizon_s * 1.2) + 50
        return int(load.users * (2 + horizon_s / self.idle_e2e_s))

    def _look(self, log: RequestLog, load: Load, window: Window) -> str | None:
        if self.watcher:
            done_frac = min(max((log.ended_s - window.warmup_s) / window.measure_s, 0.0), 1.0)
            self.watcher(load, done_frac, log)
        # A finalist's window counts whole: half of it would say how bad its bad half was.
        if self.stage == "confirm" or self.slo.attainment <= 0:
            return None
        if isinstance(load, ClosedLoop):
            return is_over(log, load, self.slo.limits) if load.joining_s else None
        expected = load.rate_rps * window.measure_s
        resolved = log.counted & (log.status != Status.UNFOLLOWED)
        bad = int((bad_requests(log, load, self.slo.limits) & resolved).sum())
        return (
            f"{bad} of about {expected:.0f} requests are bad already" if bad > tolerated(self.slo, expected) else None
        )


def tolerated(slo: Slo, expected: float) -> float:
    """How many bad requests a search lets a probe have that expects so many, before it is stopped as hopeless."""
    return max(HOPELESS_LEAST, HOPELESS_FACTOR * (1 - slo.attainment) * expected)


def _closed_at_its_end(log: RequestLog) -> RequestLog:
    """The same log with a window that ends with the probe, for probes that ended before their window did."""
    ended_s = float(np.nanmax(log.ended_at_s)) if len(log) and not np.isnan(log.ended_at_s).all() else log.ended_s
    return replace(log, window_s=max(min(ended_s, log.ended_s) - log.warmup_s, 1e-3))
