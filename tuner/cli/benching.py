"""Benches a running server for the command line: asks what it serves, measures it, prints what it is worth."""

import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from launchers.remote import UNKNOWN, Described, describe, open_remote
from tuner.bench import Bench, Benched, bench
from tuner.benchfolder import as_data, begin, keep, write_found
from tuner.cli.exits import DONE, INTERRUPTED, NOT_MET
from tuner.cli.planning import fresh_folder, slo_from
from tuner.errors import BoxUnusable, ConfigError
from tuner.idle import missed_when_idle
from tuner.load.validity import tolerance_of
from tuner.mishaps import mishaps, silence
from tuner.probe import IDLE_REQUESTS, Recorded, Watcher
from tuner.requestlog import RequestLog, Status
from tuner.score import score
from tuner.target import ClosedLoop, Load, OpenLoop
from tuner.terminal.benched import LABEL, benched_text, heading, idle_line, probe_line, progress_line
from tuner.terminal.choose import print_summary
from tuner.workload.named import fitted, load_workload

PROGRESS_S = 10.0


@dataclass(frozen=True)
class BenchOptions:
    """The options of `tune bench`, as typed: `url` and `api_key` may hold a secret."""

    url: str = field(repr=False)
    slo: str
    rate: float | None = None
    users: int | None = None
    requests: int | None = None
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    workload: str | None = None
    attainment: float | None = None
    slo_scale: float = 1.0
    gpus: int = 1
    seed: int = 0
    out: Path | None = None
    as_json: bool = False


def run_bench(options: BenchOptions) -> int:
    """The whole job. Returns the exit code; raises UserError."""
    slo = slo_from(options.slo, options.attainment, options.slo_scale)
    workload = load_workload(options.workload or slo.workload)
    order = Bench(workload, slo, options.seed, options.gpus, _load(options), options.requests)
    order.check()
    described = describe(options.url, options.model, options.api_key, "text" if workload.real_text else "token-ids")
    if described.access.by:
        _say(f"every request carries {described.access.by}")
    if described.max_model_len is not None:
        workload, left_out = fitted(workload, described.max_model_len)
        order = replace(order, workload=workload)
        for note in left_out:
            _say(note)
    folder = options.out or fresh_folder(f"bench-{described.model.strip('/')}-{slo.name}")
    begin(folder, order, described)
    _say(f"measuring {described.model} for SLO {order.slo.name}; every probe is kept in {folder}")
    with open_remote(described, tolerance_of(slo)) as target:
        heard = _Heard(order, described, folder)
        found = bench(order, target, described.engine, heard.take, _watcher(order))
        wall_s = target.clock_s()
    told = as_data(found, order, described) | {"dir": str(folder), "wall_s": wall_s}
    if options.as_json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        text = f"{heading(described.url, described.model, order)}\n\n{benched_text(found, order)}\n{_kept(folder)}\n"
        print_summary(text, sys.stdout)
    write_found(folder, told)
    return exit_code(found, order)


def exit_code(found: Benched, order: Bench) -> int:
    """NOT_MET where the load was searched and none met the SLO."""
    if found.interrupted:
        return INTERRUPTED
    return DONE if order.load is not None or found.outcome.holds_slo else NOT_MET


def _kept(folder: Path) -> str:
    return f"  {'timings':<{LABEL}}{folder}"


def _load(options: BenchOptions) -> Load | None:
    if options.rate is not None and options.users is not None:
        raise ConfigError("--rate and --users: give one of them, or neither to search the load of highest goodput")
    if options.rate is not None:
        return OpenLoop(options.rate)
    return None if options.users is None else ClosedLoop(options.users)


@dataclass
class _Heard:
    """Keeps and tells every probe that has ended."""

    order: Bench
    described: Described
    folder: Path
    kept: int = 0

    def take(self, probe: Recorded) -> None:
        """Without room for its timings the figures, which are printed, are still worth having."""
        try:
            keep(self.folder, self.kept, probe)
        except BoxUnusable as full:
            _say(f"  this probe is not kept: {full}")
        self.kept += 1
        _tell(self.order, self.described, probe)


def _tell(order: Bench, described: Described, probe: Recorded) -> None:
    _say(probe_line(probe))
    if probe.stage == "idle" and not (probe.log.status == Status.OK).any():
        # That ends the bench, with a message that says why.
        return
    if probe.stage == "idle":
        engine = "the server" if described.engine == UNKNOWN else described.engine
        for text in silence(engine, [probe]):
            _say(f"  {text}")
    missed = missed_when_idle(probe, order.slo.limits) if probe.stage == "idle" else ""
    if missed and probe.score.attainment < order.slo.attainment:
        _say(f"  {missed}")
    for text in mishaps([probe]):
        _say(f"  {text}")


def _watcher(order: Bench) -> Watcher:
    """Says every PROGRESS_S seconds how a probe is doing."""
    said_s = time.monotonic()

    def watch(load: Load, done_frac: float, log: RequestLog) -> None:
        nonlocal said_s
        if time.monotonic() >= said_s + PROGRESS_S:
            said_s = time.monotonic()
            # Only those that have ended can be judged yet.
            so_far = score(replace(log, stopped="under way"), load, order.slo.limits)
            is_idle = load == ClosedLoop(1) and log.window_s == IDLE_REQUESTS * order.slo.timeout_s
            _say(f"  {idle_line(so_far) if is_idle else progress_line(so_far, done_frac)}")

    return watch


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
