"""Benches a running server for the command line: asks what it serves, measures it, prints what it is worth."""

import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from launchers.remote import describe, open_remote
from tuner.bench import bench
from tuner.benched import Benched
from tuner.benchfolder import as_data, begin, keep, write_found
from tuner.benchorder import LONGEST_S, Bench
from tuner.cli.exits import DONE, INTERRUPTED, NOT_MET, UNKNOWN
from tuner.cli.planning import duration_s, fresh_folder, slo_from
from tuner.errors import BoxUnusable, ConfigError
from tuner.finished import caveats
from tuner.idle import missed_when_idle
from tuner.load.validity import tolerance_of
from tuner.probe import IDLE_REQUESTS, Recorded, Watcher
from tuner.requestlog import RequestLog, Status
from tuner.score import score
from tuner.target import ClosedLoop, Load, OpenLoop
from tuner.terminal.benched import LABEL, benched_text, heading
from tuner.terminal.benching import forecast, idle_line, probe_line, progress_line, replaced
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
    longest: str | None = None
    out: Path | None = None
    as_json: bool = False


def run_bench(options: BenchOptions) -> int:
    """The whole job. Returns the exit code; raises UserError."""
    slo = slo_from(options.slo, options.attainment, options.slo_scale)
    workload = load_workload(options.workload or slo.workload)
    longest_s = duration_s(options.longest, "--longest") if options.longest else LONGEST_S
    order = Bench(workload, slo, options.seed, options.gpus, _load(options), options.requests, longest_s)
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
    for line in filter(None, (replaced(order), forecast(order))):
        _say(f"  {line}")
    with open_remote(described, tolerance_of(slo)) as target:
        heard = _Heard(order, folder)
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
    """INTERRUPTED by Ctrl-C; UNKNOWN where something else ended it; NOT_MET where the load was searched, or the
    workload's own, and none met the SLO."""
    if found.cut is not None:
        return INTERRUPTED if found.cut.by == "user" else UNKNOWN
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
    folder: Path
    kept: int = 0

    def take(self, probe: Recorded) -> None:
        """Without room for its timings the figures, which are printed, are still worth having."""
        try:
            keep(self.folder, self.kept, probe)
        except BoxUnusable as full:
            _say(f"  this probe is not kept: {full}")
        self.kept += 1
        _tell(self.order, probe)


def _tell(order: Bench, probe: Recorded) -> None:
    _say(probe_line(probe))
    if probe.stage == "idle" and not (probe.log.status == Status.OK).any():
        # That ends the bench, with a message that says why.
        return
    missed = missed_when_idle(probe, order.slo.limits) if probe.stage == "idle" else ""
    if missed and probe.score.attainment < order.slo.attainment:
        _say(f"  {missed}")
    for caveat in caveats(probe):
        _say(f"  {caveat.text}")


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
