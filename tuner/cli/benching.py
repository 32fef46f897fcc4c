"""Benches a running server for the command line: asks what it serves, measures it, prints what it is worth."""

import json
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from launchers.remote import UNKNOWN, Described, describe, open_remote
from tuner.bench import Bench, Benched, bench
from tuner.cli.planning import slo_from
from tuner.conclude import frontier, point_of, slo_of
from tuner.errors import ConfigError
from tuner.idle import missed_when_idle
from tuner.load.replay import tolerated_send_lag_s
from tuner.mishaps import silence
from tuner.outcome import Outcome
from tuner.probe import Recorded, Watcher
from tuner.requestlog import RequestLog
from tuner.score import Score, score
from tuner.summary import SCHEMA
from tuner.target import ClosedLoop, Load, OpenLoop
from tuner.terminal.benched import benched_text, heading, probe_line, progress_line
from tuner.terminal.choose import print_summary
from tuner.workload.named import fitted, load_workload

PROGRESS_S = 10.0
MET, MISSED = 0, 3


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
    as_json: bool = False


def run_bench(options: BenchOptions) -> int:
    """The whole job: the exit code, MISSED where the load was searched and none met the SLO. Raises UserError."""
    slo = slo_from(options.slo, options.attainment, options.slo_scale)
    workload = load_workload(options.workload or slo.workload)
    order = Bench(workload, slo, options.seed, options.gpus, _load(options), options.requests)
    order.check()
    described = describe(options.url, options.model, options.api_key)
    if described.access.by:
        _say(f"every request carries {described.access.by}")
    if described.max_model_len is not None:
        workload, left_out = fitted(workload, described.max_model_len)
        order = replace(order, workload=workload)
        for note in left_out:
            _say(note)
    _say(heading(described.url, described.model, order))
    with open_remote(described, tolerated_send_lag_s(slo.limits.ttft_s)) as target:
        found = bench(order, target, described.engine, partial(_tell, order, described), _watcher(order))
        wall_s = target.clock_s()
    if options.as_json:
        print(json.dumps(_as_data(found, order, described, wall_s), ensure_ascii=False))
    else:
        print_summary(f"{heading(described.url, described.model, order)}\n\n{benched_text(found, order)}", sys.stdout)
    return MET if order.load is not None or found.outcome.holds_slo else MISSED


def _load(options: BenchOptions) -> Load | None:
    if options.rate is not None and options.users is not None:
        raise ConfigError("--rate and --users: give one of them, or neither to search the load of highest goodput")
    if options.rate is not None:
        return OpenLoop(options.rate)
    return None if options.users is None else ClosedLoop(options.users)


def _tell(order: Bench, described: Described, probe: Recorded) -> None:
    _say(probe_line(probe))
    if probe.stage == "idle":
        engine = "the server" if described.engine == UNKNOWN else described.engine
        for text in silence(engine, [probe]):
            _say(f"  {text}")
    missed = missed_when_idle(probe, order.slo.limits) if probe.stage == "idle" else ""
    if missed and probe.score.attainment < order.slo.attainment:
        _say(f"  {missed}")
    if probe.log.client and probe.log.client.voided:
        _say(f"  measured twice: {probe.log.client.voided}")
    if probe.log.errors:
        _say(f"  some requests failed: {'; '.join(probe.log.errors[:3])}")


def _watcher(order: Bench) -> Watcher:
    """Says every PROGRESS_S seconds how a probe is doing."""
    said_s = time.monotonic()

    def watch(load: Load, done_frac: float, log: RequestLog) -> None:
        nonlocal said_s
        if time.monotonic() >= said_s + PROGRESS_S:
            said_s = time.monotonic()
            # Only those that have ended can be judged yet.
            so_far = score(replace(log, stopped="under way"), load, order.slo.limits)
            _say(f"  {progress_line(so_far, done_frac)}")

    return watch


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _as_data(found: Benched, order: Bench, described: Described, wall_s: float) -> dict[str, Any]:
    """One probe: its point, with what it is of. A search: the best point, every probe and the frontier."""
    about = {
        "schema": SCHEMA,
        "url": described.url,
        "model": described.model,
        "slo": slo_of(order.slo),
        "workload": order.workload.name,
        "seed": order.seed,
    }
    outcome = found.outcome
    assert outcome.best is not None, "what was measured has a best probe"
    if order.load is not None:
        return about | _point(outcome, outcome.best) | {"wall_s": wall_s}
    best = _point(outcome, outcome.best) | {"goodput_rps_per_gpu": outcome.value_rps_per_gpu}
    return about | {
        "meets_slo": outcome.holds_slo,
        "best": best if outcome.holds_slo else None,
        "holds_up_to": found.edge,
        "probes": [_point(outcome, probe) for probe in outcome.probes],
        "frontier": [_known(asdict(point)) for point in frontier([outcome])],
        "wall_s": wall_s,
    }


def _point(outcome: Outcome, probe: Score) -> dict[str, Any]:
    """A point as in a study's JSON, and what only a bench shows."""
    return _known(asdict(point_of(outcome, probe))) | {
        "requests": probe.counted,
        "missed": dict(probe.missed),
        "stopped": probe.stopped,
        "fluidity": asdict(probe.fluidity) if probe.fluidity else None,
        "health": asdict(probe.health) if probe.health else None,
        "engine_view": asdict(probe.engine) if probe.engine else None,
    }


def _known(point: dict[str, Any]) -> dict[str, Any]:
    """Nobody knows how the server was configured: `gpus` is what was said."""
    return point | {"configuration": {}}
