"""Raw log: the request-by-request timings of a trial's probes, as one parquet file, written and read again.

All that any limit can be judged by is there, exactly. Served probes also keep the time of every chunk. Those of a
study in virtual time can be had again from the plan and its seed, so there only the request's own P99 gap is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tuner.errors import ConfigError
from tuner.probe import ProbeStage, Recorded
from tuner.requestlog import Status
from tuner.requests import FloatArray
from tuner.score import Answers, latencies_from, own_itl_s
from tuner.target import ClosedLoop, Load, OpenLoop


@dataclass(frozen=True)
class RawProbe:
    """One probe as it was stored. `planned_s`: how long its window was to be."""

    stage: ProbeStage
    replicate: int
    load: Load
    answers: Answers
    planned_s: float


def write_requests(path: Path, probes: Sequence[Recorded], *, with_chunks: bool) -> None:
    """`requests.parquet`: one row for each request of each probe. Times are seconds since the probe began."""
    if not probes:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = [_table(number, probe, with_chunks) for number, probe in enumerate(probes)]
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.concat_tables(tables), partial, compression="zstd")
    partial.replace(path)


def read_requests(path: Path) -> list[RawProbe]:
    """The probes in `path`, in the order in which they were measured. Raises ConfigError if it cannot be used."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path}: the raw timings cannot be read: {error}") from error
    lacking = {"probe", "window_s", "planned_s", "stopped", "itl_p99_s"} - set(table.column_names)
    if lacking:
        raise ConfigError(f"{path}: an earlier version wrote it, without {', '.join(sorted(lacking))}")
    probes = np.unique(table["probe"].to_numpy())
    return [_probe(table.filter(pc.equal(table["probe"], int(number)))) for number in probes]


def _probe(rows: pa.Table) -> RawProbe:
    load = _load(rows["rate_rps"][0].as_py(), rows["users"][0].as_py())
    codes = {status.name.lower(): int(status) for status in Status}
    start_s = _floats(rows, "sent_s" if isinstance(load, ClosedLoop) else "due_s")
    first_s, last_s = _floats(rows, "first_s"), _floats(rows, "last_s")
    answers = Answers(
        counted=rows["counted"].to_numpy(),
        status=np.array([codes[name] for name in rows["status"].to_pylist()], dtype=np.int64),
        prompt_tokens=rows["prompt_tokens"].to_numpy().astype(np.int64),
        times=latencies_from(
            start_s, first_s, last_s, rows["output_tokens"].to_numpy().astype(np.int64), _floats(rows, "itl_p99_s")
        ),
        window_s=rows["window_s"][0].as_py(),
        stopped=rows["stopped"][0].as_py(),
    )
    stage, replicate, planned_s = (rows[name][0].as_py() for name in ("stage", "replicate", "planned_s"))
    return RawProbe(stage, replicate, load, answers, planned_s)


def _floats(rows: pa.Table, name: str) -> FloatArray:
    return np.asarray(rows[name].to_numpy(), dtype=np.float64)


def _load(rate_rps: float | None, users: int | None) -> Load:
    if rate_rps is not None:
        return OpenLoop(rate_rps)
    assert users is not None, "a probe is open loop or closed loop"
    return ClosedLoop(users)


def _table(number: int, probe: Recorded, with_chunks: bool) -> pa.Table:
    log, n = probe.log, len(probe.log)
    rate_rps, users = _level(probe.score.load)
    columns: dict[str, pa.Array] = {
        "probe": pa.array(np.full(n, number, dtype=np.int16)),
        "stage": pa.array([probe.stage] * n).dictionary_encode(),
        "replicate": pa.array(np.full(n, probe.replicate, dtype=np.int16)),
        "warmup_s": pa.array(np.full(n, log.warmup_s)),
        "window_s": pa.array(np.full(n, log.window_s)),
        "planned_s": pa.array(np.full(n, probe.planned_s)),
        "stopped": pa.array([log.stopped] * n, type=pa.string()).dictionary_encode(),
        "rate_rps": pa.array([rate_rps] * n, type=pa.float64()),
        "users": pa.array([users] * n, type=pa.int32()),
        "request": pa.array(log.request.astype(np.int32)),
        "counted": pa.array(log.counted),
        "status": pa.array([Status(int(code)).name.lower() for code in log.status]).dictionary_encode(),
        "due_s": pa.array(log.due_s),
        "sent_s": pa.array(log.sent_s),
        "first_s": pa.array(log.first_s),
        "last_s": pa.array(log.last_s),
        "ended_at_s": pa.array(log.ended_at_s),
        "prompt_tokens": pa.array(log.prompt_tokens.astype(np.int32)),
        "output_tokens": pa.array(log.output_tokens.astype(np.int32)),
        "wanted_tokens": pa.array(log.wanted_tokens.astype(np.int32)),
        "itl_p99_s": pa.array(own_itl_s(log)),
    }
    if with_chunks:
        columns["chunk_s"] = pa.ListArray.from_arrays(log.chunk_start.astype(np.int32), pa.array(log.chunk_s))
    return pa.table(columns)


def _level(load: Load) -> tuple[float | None, int | None]:
    return (load.rate_rps, None) if isinstance(load, OpenLoop) else (None, load.users)
