"""Evaluate: runs trials and finalists' windows, one after the other on a real box, side by side in virtual time."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context

from launchers.open import LOG_NAME
from tuner.answers import check_answers
from tuner.config.plan import Plan
from tuner.errors import Interrupted
from tuner.events import Event, Listener, Note
from tuner.finalists import Cell
from tuner.finalruns import FinalistRun
from tuner.mishaps import mishaps
from tuner.outcome import Outcome
from tuner.probe import Prober, Recorded
from tuner.rawlog import write_metrics, write_requests
from tuner.record import trial_folder, written
from tuner.score import Score
from tuner.seeds import Purpose, derive
from tuner.target import ClosedLoop, OpenLoop, Target
from tuner.trial import TrialOrder, open_for, run_trial

PR_SET_PDEATHSIG = 1
# Replicates a finalist is measured for before the server of the other one is started.
REPLICATES_PER_LAUNCH = 2


@dataclass(frozen=True)
class Visit:
    """One launch of a finalist and the windows to measure on it."""

    order: TrialOrder
    cells: tuple[Cell, ...]


class Evaluator:
    """Runs trials and visits: in this process, or in virtual time on `workers` others."""

    def __init__(self, pool: ProcessPoolExecutor | None) -> None:
        self._pool = pool

    def trials(self, orders: Sequence[TrialOrder], listener: Listener) -> Iterator[Outcome]:
        """The outcomes of `orders`, in their order."""
        if self._pool is None:
            for order in orders:
                yield run_trial(order, listener)
            return
        running = [self._pool.submit(_trial_elsewhere, order) for order in orders]
        for future in running:
            outcome, events = future.result()
            for event in events:
                listener(event)
            yield outcome

    def visits(self, visits: Sequence[Visit], listener: Listener) -> Iterator[FinalistRun]:
        """Every window of `visits`, in order, each as soon as it is known."""
        if self._pool is None:
            for visit in visits:
                yield from run_visit(visit, listener)
            return
        running = [self._pool.submit(_visit_elsewhere, visit) for visit in visits]
        for future in running:
            runs, events = future.result()
            for event in events:
                listener(event)
            yield from runs


@contextmanager
def evaluator(plan: Plan, workers: int) -> Iterator[Evaluator]:
    """An evaluator for `plan`; its processes end with the block, and with this process however that ends."""
    if plan.box.simulation != "virtual" or workers <= 1:
        yield Evaluator(None)
        return
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_join_parent, initargs=(os.getpid(),))
    try:
        yield Evaluator(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def plan_visits(cells: Sequence[Cell], orders: dict[int, TrialOrder]) -> list[Visit]:
    """Windows grouped into launches, the finalists taking turns, so that drift of the box hits them alike."""
    turns: list[tuple[int, int, Visit]] = []
    for trial, own in groupby(sorted(cells, key=lambda cell: (cell.trial, cell.replicate)), lambda cell: cell.trial):
        by_turn = groupby(own, lambda cell: cell.replicate // REPLICATES_PER_LAUNCH)
        turns += [(turn, trial, Visit(orders[trial], tuple(part))) for turn, part in by_turn]
    return [visit for _, _, visit in sorted(turns, key=lambda entry: entry[:2])]


def run_visit(visit: Visit, listener: Listener) -> Iterator[FinalistRun]:
    """Launch the finalist and measure its windows, each replicate with its own fresh seed; tell their mishaps.

    Interrupted, it says what had been spent on windows that were not measured to their end.
    """
    gpus, asked_s = visit.order.configuration.gpus, time.perf_counter()
    target, startup_s, until_s = None, 0.0, 0.0
    recorded: list[Recorded] = []
    idle_e2e_s: float | None = None
    try:
        with open_for(visit.order) as target:
            startup_s = until_s = target.clock_s()
            for cell in visit.cells:
                prober = _prober(visit.order.plan, cell, target, idle_e2e_s)
                found = _measure_cell(visit.order.plan, cell, prober)
                recorded, idle_e2e_s = recorded + prober.recorded, prober.idle_e2e_s
                since_s, until_s = until_s, target.clock_s()
                run = FinalistRun(cell.trial, cell.replicate, cell.level, found, startup_s, until_s - since_s)
                startup_s = 0.0
                yield run
        for mishap in mishaps(recorded):
            listener(Note(f"t{visit.order.trial}: {mishap.text}"))
    except KeyboardInterrupt as stop:
        if target is None:
            startup_s = time.perf_counter() - asked_s
        cut_s = target.clock_s() - until_s if target else 0.0
        raise Interrupted(startup_s * gpus, cut_s * gpus) from stop


def _prober(plan: Plan, cell: Cell, target: Target, idle_e2e_s: float | None) -> Prober:
    """A prober for one window. The first of a launch that offers load by users looks at the idle server before."""
    seed = derive(plan.seed, Purpose.CONFIRM, cell.replicate)
    prober = Prober(
        target, plan.workload, plan.slo, seed, stage="confirm", replicate=cell.replicate, turn_s=cell.turn_s
    )
    if idle_e2e_s is not None:
        prober.idle_e2e_s = idle_e2e_s
    elif plan.workload.arrivals.kind == "closed":
        prober.idle()
    return prober


def _measure_cell(plan: Plan, cell: Cell, prober: Prober) -> Score:
    """One window; all timings of `prober` are kept. Raises ServerFailed where no answer was good."""
    found = measure(prober, cell.level, cell.counted, plan)
    folder = trial_folder(plan.out, cell.trial)
    raw = folder / "confirm" / f"seed{cell.replicate}-load{cell.level:g}.parquet"
    with written(raw):
        write_requests(raw, prober.recorded, with_chunks=plan.box.simulation != "virtual")
        write_metrics(raw.parent / "metrics" / raw.name, prober.recorded)
    for one in prober.recorded:
        check_answers(one.log, folder / LOG_NAME)
    return found


def measure(prober: Prober, level: float, counted: int, plan: Plan) -> Score:
    """One window: the SLO's, or as long as the requests it must count take."""
    match plan.workload.arrivals.kind:
        case "at_once":
            return prober.all_at_once(round(level))
        case "closed":
            return prober.measure_whole(ClosedLoop(round(level)), counted)
        case _:
            return prober.measure_whole(OpenLoop(level), counted)


def _trial_elsewhere(order: TrialOrder) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []
    return run_trial(order, events.append), events


def _visit_elsewhere(visit: Visit) -> tuple[list[FinalistRun], list[Event]]:
    events: list[Event] = []
    return list(run_visit(visit, events.append)), events


def _join_parent(parent: int) -> None:
    """In a worker: leave Ctrl-C to the parent, and die with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
