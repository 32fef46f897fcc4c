"""Measures a server that somebody else runs, by the probes and the search of a trial."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from launchers.cpu import usable_cores
from tuner.benched import Benched, Cut, benched, cannot_hold, concluded, missed
from tuner.benchorder import Bench, beyond_client, too_many, window_s
from tuner.errors import BoxUnusable, MeasurementVoid, ServerFailed
from tuner.finished import Finished, finished, own_gaps
from tuner.goodput import Answer, at_one_load, find_goodput
from tuner.probe import Prober, ProbeStage, Recorded, Watcher
from tuner.ramp import best_step
from tuner.requestlog import Status
from tuner.score import Score
from tuner.seeds import Purpose, derive
from tuner.target import ClosedLoop, Load, OpenLoop, Target
from tuner.trial import OFFLINE_REQUESTS, question_of

Heard = Callable[[Recorded], None]
"""Is told every probe that has ended."""


def bench(order: Bench, target: Target, engine: str, heard: Heard, watcher: Watcher | None = None) -> Benched:
    """Measure `target`, until it dies or Ctrl-C comes, if they do: then what had ended is concluded from.

    Raises BoxUnusable where nothing can be measured there, ConfigError where `order` turns out to be out of reach.
    """
    stage: ProbeStage = "search" if order.load is None else "confirm"
    # The requests that a study of this seed would send.
    seed = derive(order.seed, Purpose.SEARCH)
    measuring = _Measuring(order, Prober(target, order.workload, order.slo, seed, stage, watcher=watcher), heard)
    try:
        answer = _search(order, measuring) if order.load is None else _at(order.load, order, measuring)
    except MeasurementVoid as void:
        measuring.tell()
        if all(probe.stage == "idle" for probe in measuring.ended):
            raise BoxUnusable(f"nothing was measured: {void}") from void
        cut = Cut("client", str(void), measuring.offering)
    except ServerFailed as failed:
        measuring.tell()
        if not measuring.ended:
            raise BoxUnusable(str(failed)) from failed
        cut = Cut("server", str(failed), measuring.offering)
    except KeyboardInterrupt:
        measuring.tell()
        cut = Cut("user", "Ctrl-C", measuring.offering)
    else:
        return benched(order, engine, answer, measuring.ended)
    return replace(concluded(order, engine, measuring.ended), cut=cut)


@dataclass
class _Measuring:
    """A prober whose probes are told when they have ended; those that were told are `ended`. `offering`: the load
    that is, or was last, offered."""

    order: Bench
    prober: Prober
    heard: Heard
    ended: list[Finished] = field(default_factory=list)
    offering: Load | None = None
    _told: int = 0

    def tell(self) -> None:
        """Every finished probe is told once, and whole."""
        for probe in self.prober.recorded[self._told :]:
            with _undisturbed():
                self.heard(probe)
                self.ended.append(finished(probe))
                self._told += 1

    def idle(self) -> Score:
        """One request at a time. Raises BoxUnusable if the server answers none of them."""
        found = self._told_of(self.prober.idle())
        log = self.prober.recorded[-1].log
        if not (log.status == Status.OK).any():
            why = "; ".join(log.errors[:3]) or "every answer was late, cut off or empty"
            raise BoxUnusable(f"the server answers no request of this workload: {why}")
        return found

    def at(self, load: Load, counted: int) -> Score:
        """A probe of so many requests. Raises MeasurementVoid if this machine cannot offer the load."""
        self.offering = load
        many = too_many(self.order, load, self.order.slo.window_s, self.prober.idle_e2e_s)
        if why := beyond_client(load, len(usable_cores())) or many:
            raise MeasurementVoid(why)
        return self._told_of(self.prober.measure(load, counted))

    def during(self, load: Load, measure_s: float) -> Score:
        """A probe of so many seconds."""
        self.offering = load
        return self._told_of(self.prober.measure_for(load, measure_s))

    def all_at_once(self, count: int) -> Score:
        """A probe of requests that come together."""
        self.offering = ClosedLoop(count)
        return self._told_of(self.prober.all_at_once(count))

    def ramp(self, load: ClosedLoop) -> tuple[Score, ...]:
        """Every number of users of one pass; each is kept as if it were a probe."""
        self.offering = load
        steps = self.prober.ramp(load)
        self.tell()
        log = self.prober.recorded[-1].log
        for step in steps:
            users = step.load.users if isinstance(step.load, ClosedLoop) else 0
            own = (log.due_s >= (users - 1) * load.joining_s) & (log.due_s < users * load.joining_s)
            self.ended.append(Finished("ramp", step, own_gaps(log, own)))
        return steps

    def _told_of(self, found: Score) -> Score:
        self.tell()
        return found


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C and TERM wait until the block has ended. Only in a process's main thread, which hears signals."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _search(order: Bench, measuring: _Measuring) -> Answer:
    """What the workload's own load is worth, or the load of highest goodput, as a trial searches it that knows of no
    other server."""
    slo, prober = order.slo, measuring.prober
    if order.is_at_once:
        return at_one_load(measuring.all_at_once(OFFLINE_REQUESTS), slo.attainment)
    idle = measuring.idle()
    if cannot_hold(order, idle):
        return missed(idle)
    match order.given:
        case ClosedLoop() as ramp:
            order.check_extent(ramp.users * ramp.joining_s, prober.idle_e2e_s)
            return best_step(measuring.ramp(ramp), slo.attainment)
        case OpenLoop() as replayed:
            return at_one_load(measuring.at(replayed, slo.deciding_requests), slo.attainment)
    return find_goodput(question_of(slo, order.workload, order.gpus, prober.idle_e2e_s), measuring.at)


def _at(load: Load, order: Bench, measuring: _Measuring) -> Answer:
    """One probe at `load`, never stopped early."""
    measuring.idle()
    prober = measuring.prober
    measure_s = window_s(order, load, prober.expected_rps(load))
    order.check_extent(measure_s, prober.idle_e2e_s)
    return at_one_load(measuring.during(load, measure_s), order.slo.attainment)
