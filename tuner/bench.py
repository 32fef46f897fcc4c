"""Bench: the goodput of a server that somebody else runs, by the probes and the search of a trial."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tuner.config.slo import Slo
from tuner.config.workload import Workload
from tuner.configuration import Configuration
from tuner.errors import BoxUnusable, ConfigError, MeasurementVoid, ServerFailed
from tuner.goodput import LEAST_ATTAINMENT, Answer, at_one_load, find_goodput, worth
from tuner.horizon import ROOM, needed_requests
from tuner.outcome import Cost, Outcome
from tuner.probe import Prober, ProbeStage, Recorded, Watcher
from tuner.requestlog import Status
from tuner.score import Score
from tuner.seeds import Purpose, derive
from tuner.target import Load, OpenLoop, Target
from tuner.trial import OFFLINE_REQUESTS, given_load, measured, question_of

Heard = Callable[[Recorded], None]
"""Is told every probe that has ended."""


@dataclass(frozen=True)
class Bench:
    """What to measure on a server of `gpus` GPUs. Without a `load` the one of highest goodput is searched.

    `requests`: how many a probe at `load` should count; None: as many as the SLO takes.
    """

    workload: Workload
    slo: Slo
    seed: int = 0
    gpus: int = 1
    load: Load | None = None
    requests: int | None = None

    @property
    def is_search(self) -> bool:
        """Whether its load is to be searched: none is given, by the user or by the workload."""
        is_given = self.load is not None or isinstance(given_load(self.workload), OpenLoop)
        return not is_given and self.workload.arrivals.kind != "at_once"

    def check(self) -> None:
        """Raises ConfigError if its parts do not go together."""
        if self.load is not None and self.workload.arrivals.kind == "at_once":
            raise ConfigError(
                f"workload '{self.workload.name}' offers all its requests at once; leave --rate and --users out"
            )
        if self.requests is not None and self.load is None:
            raise ConfigError("--requests says how many a probe counts at one load; give --rate or --users with it")


@dataclass(frozen=True)
class Benched:
    """What was found. `outcome` is like that of a trial, every probe at a load among its probes.

    `edge` is the level to recommend (G2 where an attainment is asked for), None where none was searched or holds.
    `interrupted`: Ctrl-C (or TERM) came first, and this is what the finished probes say.
    """

    outcome: Outcome
    edge: float | None
    interrupted: bool = False


def bench(order: Bench, target: Target, engine: str, heard: Heard, watcher: Watcher | None = None) -> Benched:
    """Measure `target` until Ctrl-C comes, if it does. Raises BoxUnusable where nothing can be measured there."""
    stage: ProbeStage = "search" if order.load is None else "confirm"
    # The requests that a study of this seed would send.
    seed = derive(order.seed, Purpose.SEARCH)
    measuring = _Measuring(Prober(target, order.workload, order.slo, seed, stage, watcher=watcher), heard)
    try:
        answer = _search(order, measuring) if order.load is None else _at(order.load, order, measuring)
    except MeasurementVoid as void:
        raise BoxUnusable(f"nothing was measured: {void}") from void
    except ServerFailed as failed:
        raise BoxUnusable(str(failed)) from failed
    except KeyboardInterrupt:
        measuring.tell()
        return replace(concluded(order, engine, measuring.ended), interrupted=True)
    return _benched(order, engine, answer)


def concluded(order: Bench, engine: str, probes: Sequence[tuple[ProbeStage, Score]]) -> Benched:
    """What these probes, in order, say of the server; its `outcome` has no best where that is nothing."""
    at_loads = [found for stage, found in probes if stage != "idle"]
    if at_loads and not order.is_search:
        return _benched(order, engine, at_one_load(at_loads[-1], order.slo.attainment))
    if at_loads:
        return _benched(order, engine, worth(at_loads, question_of(order.slo, order.workload, order.gpus)))
    if probes and order.load is None and cannot_hold(order, probes[-1][1]):
        return _benched(order, engine, _missed(probes[-1][1]))
    return Benched(_blank(order, engine), None)


def _benched(order: Bench, engine: str, answer: Answer) -> Benched:
    return Benched(measured(_blank(order, engine), answer, Cost(), order.slo.limits), answer.edge)


def _blank(order: Bench, engine: str) -> Outcome:
    return Outcome(0, Configuration(engine, {"tp": order.gpus}), (), "measured")


@dataclass(frozen=True)
class _Measuring:
    """A prober whose probes are told when they have ended; those that were told are `ended`."""

    prober: Prober
    heard: Heard
    ended: list[tuple[ProbeStage, Score]] = field(default_factory=list)

    def told(self, found: Score) -> Score:
        self.tell()
        return found

    def tell(self) -> None:
        """Every finished probe is told once, and whole."""
        for probe in self.prober.recorded[len(self.ended) :]:
            with _undisturbed():
                self.heard(probe)
                self.ended.append((probe.stage, probe.score))

    def idle(self) -> Score:
        """One request at a time. Raises BoxUnusable if the server answers none of them."""
        found = self.told(self.prober.idle())
        log = self.prober.recorded[-1].log
        if not (log.status == Status.OK).any():
            why = "; ".join(log.errors[:3]) or "every answer was late, cut off or empty"
            raise BoxUnusable(f"the server answers no request of this workload: {why}")
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
    """The load of highest goodput, as a trial searches it that knows of no other server."""
    slo, prober = order.slo, measuring.prober
    if order.workload.arrivals.kind == "at_once":
        return at_one_load(measuring.told(prober.all_at_once(OFFLINE_REQUESTS)), slo.attainment)
    idle = measuring.idle()
    if cannot_hold(order, idle):
        return _missed(idle)
    given = given_load(order.workload)
    if isinstance(given, OpenLoop):
        return at_one_load(measuring.told(prober.measure(given, slo.deciding_requests)), slo.attainment)
    question = question_of(slo, order.workload, order.gpus, prober.idle_e2e_s)
    return find_goodput(question, lambda load, n: measuring.told(prober.measure(load, n)))


def cannot_hold(order: Bench, idle: Score) -> bool:
    """Whether so many requests miss the SLO although they are alone that no load need be tried."""
    return idle.attainment < min(order.slo.attainment, LEAST_ATTAINMENT)


def _missed(idle: Score) -> Answer:
    return Answer("misses-slo", 0.0, idle, None, (idle,))


def _at(load: Load, order: Bench, measuring: _Measuring) -> Answer:
    """One probe at `load`, never stopped early: over the SLO's window, or as long as its requests take."""
    slo, prober = order.slo, measuring.prober
    measuring.idle()
    if order.requests is not None:
        measure_s = ROOM * order.requests / prober.expected_rps(load)
        return at_one_load(measuring.told(prober.measure_for(load, measure_s)), slo.attainment)
    counted = round(ROOM * needed_requests(slo, load))
    return at_one_load(measuring.told(prober.measure_whole(load, counted)), slo.attainment)
