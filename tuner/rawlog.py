"""Raw log: the request-by-request timings of a trial's probes, and the scrapes of its engine's metrics, as parquet.

All that any limit can be judged by is there, exactly. Served probes also keep the time of every chunk. Those of a
study in virtual time can be had again from the plan and its seed, so there only the request's own P99 gap is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tuner.engineview import COUNTERS, GAUGES, Scrape
from tuner.errors import ConfigError
from tuner.latencies import latencies_from, own_itl_s
from tuner.probe import ProbeStage, Recorded
from tuner.requestlog import Status
from tuner.requests import FloatArray, IntArray
from tuner.score import Answers
from tuner.target import ClosedLoop, Load, OpenLoop

UNREAD = {"chunk_s", "wanted_tokens", "warmup_s"}
REQUIRED = {"probe", "stage", "window_s", "planned_s", "stopped", "status", "itl_p99_s"}


@dataclass(frozen=True)
class RawProbe:
    """One probe of a file of timings, a row for each request, in order of due time. Times as in `RequestLog`.

    `counted` is (n,) bool. The window was `window_s` long and was to be `planned_s`; `stopped` says why it ended
    early. `seed` is its requests'; None where an earlier version wrote the file.
    """

    stage: ProbeStage
    seed: int | None
    load: Load
    window_s: float
    planned_s: float
    stopped: str | None
    request: IntArray
    counted: npt.NDArray[np.bool_]
    status: IntArray
    due_s: FloatArray
    sent_s: FloatArray
    first_s: FloatArray
    last_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    itl_p99_s: FloatArray

    @property
    def is_whole(self) -> bool:
        """Whether it was not stopped early."""
        return self.stopped is None

    @property
    def ended_well(self) -> npt.NDArray[np.bool_]:
        """Whose answer is whole, (n,)."""
        return np.asarray(self.status == Status.OK)

    @property
    def answers(self) -> Answers:
        """What limits are judged by: exactly that of the log that was written."""
        start_s = self.sent_s if isinstance(self.load, ClosedLoop) else self.due_s
        return Answers(
            counted=self.counted,
            status=self.status,
            prompt_tokens=self.prompt_tokens,
            times=latencies_from(start_s, self.first_s, self.last_s, self.output_tokens),
            has_long_gaps=lambda limit_s: np.asarray(self.itl_p99_s > limit_s),
            window_s=self.window_s,
            stopped=self.stopped,
        )


def write_requests(path: Path, probes: Sequence[Recorded], *, with_chunks: bool) -> None:
    """All probes of one trial in one file, a row per request, probes numbered in the order they were measured."""
    if not probes:
        return
    _write(path, pa.concat_tables([_table(number, probe, with_chunks) for number, probe in enumerate(probes)]))


def write_metrics(path: Path, probes: Sequence[Recorded]) -> None:
    """`metrics.parquet`: one row for each scrape of each probe, under neutral names; no file where there was none.

    `probe` counts as in `requests.parquet`; `at_s` since the probe began. Counters count from the server's start.
    """
    rows = [_metrics_row(number, scrape) for number, probe in enumerate(probes) for scrape in probe.log.scrapes]
    if rows:
        _write(path, pa.Table.from_pylist(rows, schema=_METRICS))


def read_probes(path: Path) -> list[RawProbe]:
    """The probes in a file that `write_requests` wrote, in its order, without the times of their chunks.

    Raises OSError and ArrowException, and ConfigError where an earlier version wrote too little.
    """
    stored = pq.read_schema(path).names
    lacking = REQUIRED - set(stored)
    if lacking:
        raise ConfigError(f"{path}: an earlier version wrote it, without {', '.join(sorted(lacking))}")
    table = pq.read_table(path, columns=[name for name in stored if name not in UNREAD])
    return [_probe(table.filter(pc.equal(table["probe"], number))) for number in np.unique(table["probe"].to_numpy())]


def _probe(rows: pa.Table) -> RawProbe:
    codes = {status.name.lower(): int(status) for status in Status}
    whole = {name: rows[name].to_numpy().astype(np.int64) for name in ("request", "prompt_tokens", "output_tokens")}
    times = {name: rows[name].to_numpy() for name in ("due_s", "sent_s", "first_s", "last_s", "itl_p99_s")}
    same = ("stage", "window_s", "planned_s", "stopped")
    return RawProbe(
        **{name: rows[name][0].as_py() for name in same},
        seed=rows["seed"][0].as_py() if "seed" in rows.column_names else None,
        load=_load(rows["rate_rps"][0].as_py(), rows["users"][0].as_py()),
        counted=rows["counted"].to_numpy(),
        status=np.array([codes[name] for name in rows["status"].to_pylist()], dtype=np.int64),
        **whole,
        **times,
    )


def _load(rate_rps: float | None, users: int | None) -> Load:
    if rate_rps is not None:
        return OpenLoop(rate_rps)
    assert users is not None, "a probe is open loop or closed loop"
    return ClosedLoop(users)


def _table(number: int, probe: Recorded, with_chunks: bool) -> pa.Table:
    log, n = probe.log, len(probe.log)
    rate_rps, users = _level(probe.score.load)
    statuses = [Status(int(code)).name.lower() for code in log.status]
    columns: dict[str, pa.Array] = {
        "probe": pa.array(np.full(n, number, dtype=np.int16)),
        "stage": pa.array([probe.stage] * n, type=pa.string()).dictionary_encode(),
        "replicate": pa.array(np.full(n, probe.replicate, dtype=np.int16)),
        "seed": pa.array(np.full(n, probe.seed, dtype=np.uint32)),
        "warmup_s": pa.array(np.full(n, log.warmup_s)),
        "window_s": pa.array(np.full(n, log.window_s)),
        "planned_s": pa.array(np.full(n, probe.planned_s)),
        "stopped": pa.array([log.stopped] * n, type=pa.string()).dictionary_encode(),
        "rate_rps": pa.array([rate_rps] * n, type=pa.float64()),
        "users": pa.array([users] * n, type=pa.int32()),
        "request": pa.array(log.request.astype(np.int32)),
        "counted": pa.array(log.counted),
        "status": pa.array(statuses, type=pa.string()).dictionary_encode(),
        "due_s": pa.array(log.due_s),
        "sent_s": pa.array(log.sent_s),
        "first_s": pa.array(log.first_s),
        "last_s": pa.array(log.last_s),
        "ended_at_s": pa.array(log.ended_at_s),
        "prompt_tokens": pa.array(log.prompt_tokens.astype(np.int32)),
        "output_tokens": pa.array(log.output_tokens.astype(np.int32)),
        "wanted_tokens": pa.array(log.wanted_tokens.astype(np.int32)),
        "reusable_tokens": _known(log.reusable_tokens, n),
        "cached_tokens": _known(log.cached_tokens, n),
        "itl_p99_s": pa.array(own_itl_s(log)),
    }
    if with_chunks:
        columns["chunk_s"] = pa.ListArray.from_arrays(log.chunk_start.astype(np.int32), pa.array(log.chunk_s))
    return pa.table(columns)


_METRICS = pa.schema([
    ("probe", pa.int16()),
    ("at_s", pa.float64()),
    *((name, pa.float64()) for name in (*GAUGES, *COUNTERS)),
    ("queue_bounds_s", pa.list_(pa.float64())),
    ("queue_counts", pa.list_(pa.float64())),
])  # fmt: skip


def _metrics_row(number: int, scrape: Scrape) -> dict[str, object]:
    queue = {"queue_bounds_s": scrape.queue_bounds_s, "queue_counts": scrape.queue_counts}
    return {"probe": number, "at_s": scrape.at_s, **dict(scrape.values.items()), **queue}


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)


def _known(tokens: IntArray | None, n: int) -> pa.Array:
    return pa.nulls(n, pa.int32()) if tokens is None else pa.array(tokens.astype(np.int32))


def _level(load: Load) -> tuple[float | None, int | None]:
    return (load.rate_rps, None) if isinstance(load, OpenLoop) else (None, load.users)
