"""The folder of a bench: what was asked, and each finished probe before the next one begins; written and read again.

    bench.yaml  probes.jsonl  summary.json
    probes/{0003.parquet, metrics/0003.parquet}

A line of `probes.jsonl` is one probe's score, the parquet files of its number hold its timings and scrapes.
"""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

import tuner
from launchers.remote import Described
from tuner.benched import Benched, Cut, came_rps
from tuner.benchorder import Bench
from tuner.conclude import frontier, point_of, slo_of
from tuner.config.slo import Slo
from tuner.config.strict import parse, read_yaml
from tuner.config.workload import Workload
from tuner.errors import ConfigError
from tuner.finished import Finished, finished
from tuner.probe import Recorded
from tuner.rawlog import write_metrics, write_requests
from tuner.record import append_line, replace_file, whole_lines, written
from tuner.score import Score
from tuner.summary import SCHEMA, Point
from tuner.target import ClosedLoop, Load, OpenLoop

ASKED, PROBES, FOUND = "bench.yaml", "probes.jsonl", "summary.json"


@dataclass(frozen=True, kw_only=True)
class StoredProbe(Finished):
    """A finished probe: `number` names its files."""

    number: int


@dataclass(frozen=True)
class StoredBench:
    """What was asked of which server, its finished probes in their order, and what cut it short, if something did."""

    order: Bench
    described: Described
    probes: tuple[StoredProbe, ...]
    cut: Cut | None = None


_PROBE = TypeAdapter(StoredProbe)


def is_bench(folder: Path) -> bool:
    """Whether it is the folder of a bench."""
    return (folder / ASKED).exists()


def begin(folder: Path, order: Bench, described: Described) -> None:
    """Make the folder. Raises ConfigError if something was measured there before, BoxUnusable if it cannot be."""
    if is_bench(folder) or (folder / "plan.yaml").exists():
        raise ConfigError(f"{folder}: something was measured into this folder before; give another --out")
    asked = {
        "goodtune": tuner.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "server": _server_as_data(described),
        "gpus": order.gpus,
        "seed": order.seed,
        "load": _load_as_data(order.load),
        "requests": order.requests,
        "slo": order.slo.model_dump(mode="json"),
        "workload": order.workload.model_dump(mode="json"),
    }
    with written(folder):
        folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / ASKED, yaml.safe_dump(asked, sort_keys=False, allow_unicode=True))


def keep(folder: Path, number: int, probe: Recorded) -> None:
    """Write a finished probe: its timings first, so that a line stands for what is there. Raises BoxUnusable."""
    with written(folder):
        write_requests(timings(folder, number), [probe], with_chunks=True)
        write_metrics(folder / "probes" / "metrics" / f"{number:04d}.parquet", [probe])
    keep_score(folder, StoredProbe(number=number, **_fields(finished(probe))))


def _fields(probe: Finished) -> dict[str, Any]:
    return {one.name: getattr(probe, one.name) for one in fields(probe)}


def keep_score(folder: Path, probe: StoredProbe) -> None:
    """Add a probe's line. Raises BoxUnusable."""
    append_line(folder / PROBES, _PROBE.dump_json(probe))


def timings(folder: Path, number: int) -> Path:
    """The file with the timings of a probe's requests."""
    return folder / "probes" / f"{number:04d}.parquet"


def read_bench(folder: Path) -> StoredBench:
    """What the folder holds. Raises ConfigError."""
    path = folder / ASKED
    asked = read_yaml(path)
    order = Bench(
        workload=parse(Workload, asked["workload"], path),
        slo=parse(Slo, asked["slo"], path),
        seed=asked["seed"],
        gpus=asked["gpus"],
        load=_load_from(asked["load"]),
        requests=asked["requests"],
    )
    probes = tuple(_PROBE.validate_json(line) for line in whole_lines(folder / PROBES))
    return StoredBench(order, Described(**asked["server"]), probes, _read_cut(folder / FOUND))


def _read_cut(path: Path) -> Cut | None:
    """What the conclusion in `path` says, if there is one."""
    told = json.loads(path.read_text(encoding="utf-8")).get("cut_short") if path.exists() else None
    return Cut(told["by"], told["why"], _load_from(told["load"])) if told else None


def write_found(folder: Path, found: dict[str, Any]) -> None:
    """`summary.json`: what `as_data` gives."""
    replace_file(folder / FOUND, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def as_data(found: Benched, order: Bench, described: Described) -> dict[str, Any]:
    """The JSON of a bench. Of one probe: its point, with what it is of. Of a search: the best point, every probe and
    the frontier."""
    outcome, best = found.outcome, found.best
    about = {
        "schema": SCHEMA,
        "url": described.url,
        "model": described.model,
        "slo": slo_of(order.slo),
        "workload": order.workload.name,
        "seed": order.seed,
        "interrupted": found.cut is not None and found.cut.by == "user",
        "cut_short": _cut_as_data(found.cut),
        "requests_to_tell": order.slo.deciding_requests,
        "watch": list(found.watch),
    }
    if order.load is not None:
        meets_slo = best.attainment >= order.slo.attainment if best else None
        return about | {"meets_slo": meets_slo} | (_point(found, best) if best else {})
    return about | {
        "meets_slo": outcome.holds_slo,
        "best": _point(found, best) if best and outcome.holds_slo else None,
        "holds_up_to": found.edge,
        "fitted_up_to": found.fitted,
        "probes": [_point(found, probe) for probe in outcome.probes],
        "frontier": [_known(point) for point in frontier([outcome])],
    }


def _cut_as_data(cut: Cut | None) -> dict[str, Any] | None:
    if cut is None:
        return None
    return {"by": cut.by, "why": cut.why, "load": _load_as_data(cut.load)}


def seen_rps(found: Benched, probe: Score) -> float:
    """Good requests/s per GPU of one probe, and no more than are good at its load, however many happened to come."""
    return _believed(point_of(found.outcome, probe)).goodput_rps_per_gpu


def _believed(point: Point) -> Point:
    most_rps = point.load.get("rate_rps", math.inf) * point.attainment / point.gpus
    return replace(point, goodput_rps_per_gpu=min(point.goodput_rps_per_gpu, most_rps))


def _point(found: Benched, probe: Score) -> dict[str, Any]:
    """A point as in a study's JSON, and what only a bench shows."""
    own_itl_s = found.own_itl_s(probe)
    return _known(point_of(found.outcome, probe)) | {
        "own_itl_s": asdict(own_itl_s) if own_itl_s else None,
        "requests": probe.counted,
        "came_rps": came_rps(probe),
        "missed": dict(probe.missed),
        "stopped": probe.stopped,
        "health": asdict(probe.health) if probe.health else None,
        "engine_view": asdict(probe.engine) if probe.engine else None,
    }


def _known(point: Point) -> dict[str, Any]:
    """Nobody knows how the server was configured: `gpus` is what was said."""
    return asdict(_believed(point)) | {"configuration": {}}


def _server_as_data(described: Described) -> dict[str, Any]:
    """All but how it was accessed, which nobody may read here."""
    return {
        "url": described.url,
        "model": described.model,
        "engine": described.engine,
        "vocab": described.vocab,
        "max_model_len": described.max_model_len,
    }


def _load_as_data(load: Load | None) -> dict[str, float] | None:
    match load:
        case OpenLoop(rate_rps):
            return {"rate_rps": rate_rps}
        case ClosedLoop(users):
            return {"users": users}
    return None


def _load_from(stored: dict[str, Any] | None) -> Load | None:
    if stored is None:
        return None
    return OpenLoop(stored["rate_rps"]) if "rate_rps" in stored else ClosedLoop(stored["users"])
