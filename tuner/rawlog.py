"""Raw log: the request-by-request timings of a trial's probes, as one parquet file.

Served probes keep the time of every chunk. Those of a study in virtual time can be had again from the plan and its
seed, so there only the request's own P99 gap is kept, which is what limits are about.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tuner.probe import Recorded
from tuner.requestlog import Status
from tuner.requests import FloatArray, IntArray
from tuner.score import own_itl_s
from tuner.target import ClosedLoop, Load, OpenLoop

if TYPE_CHECKING:
    import pandas as pd


def write_requests(path: Path, probes: Sequence[Recorded], *, with_chunks: bool) -> None:
    """`requests.parquet`: one row for each request of each probe. Times are seconds since the probe began."""
    if not probes:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = [_table(number, probe, with_chunks) for number, probe in enumerate(probes)]
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(pa.concat_tables(tables), partial, compression="zstd")
    partial.replace(path)


@dataclass(frozen=True)
class RawProbe:
    """One probe of a file of timings, a row for each request, in order of due time. Times as in `RequestLog`.

    `ended_well` and `counted` are (n,) bool; `is_whole`: it was not stopped early.
    """

    stage: str
    replicate: int
    load: Load
    is_whole: bool
    request: IntArray
    counted: npt.NDArray[np.bool_]
    ended_well: npt.NDArray[np.bool_]
    due_s: FloatArray
    sent_s: FloatArray
    first_s: FloatArray
    last_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray


def read_probes(path: Path) -> list[RawProbe]:
    """The probes in a file that `write_requests` wrote, without their chunks. Raises OSError and ArrowException."""
    wanted = [name for name in pq.read_schema(path).names if name not in {"chunk_s", "itl_p99_s"}]
    frame = pq.read_table(path, columns=wanted).to_pandas()
    return [_probe(rows) for _, rows in frame.groupby("probe", sort=True)]


def _probe(rows: "pd.DataFrame") -> RawProbe:
    first = rows.iloc[0]
    users = first["users"]
    counted = rows["counted"].to_numpy(dtype=bool)
    status = rows["status"].astype(str).to_numpy()
    return RawProbe(
        stage=str(first["stage"]),
        replicate=int(first["replicate"]),
        load=OpenLoop(float(first["rate_rps"])) if np.isnan(users) else ClosedLoop(int(users)),
        is_whole=not bool((counted & (status == Status.UNFOLLOWED.name.lower())).any()),
        request=rows["request"].to_numpy(dtype=np.int64),
        counted=counted,
        ended_well=status == Status.OK.name.lower(),
        due_s=rows["due_s"].to_numpy(dtype=float),
        sent_s=rows["sent_s"].to_numpy(dtype=float),
        first_s=rows["first_s"].to_numpy(dtype=float),
        last_s=rows["last_s"].to_numpy(dtype=float),
        prompt_tokens=rows["prompt_tokens"].to_numpy(dtype=np.int64),
        output_tokens=rows["output_tokens"].to_numpy(dtype=np.int64),
    )


def _table(number: int, probe: Recorded, with_chunks: bool) -> pa.Table:
    log, n = probe.log, len(probe.log)
    rate_rps, users = _level(probe.score.load)
    columns: dict[str, pa.Array] = {
        "probe": pa.array(np.full(n, number, dtype=np.int16)),
        "stage": pa.array([probe.stage] * n).dictionary_encode(),
        "replicate": pa.array(np.full(n, probe.replicate, dtype=np.int16)),
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
        "reusable_tokens": _known(log.reusable_tokens, n),
        "cached_tokens": _known(log.cached_tokens, n),
        "itl_p99_s": pa.array(own_itl_s(log)),
    }
    if with_chunks:
        columns["chunk_s"] = pa.ListArray.from_arrays(log.chunk_start.astype(np.int32), pa.array(log.chunk_s))
    return pa.table(columns)


def _known(tokens: IntArray | None, n: int) -> pa.Array:
    return pa.nulls(n, pa.int32()) if tokens is None else pa.array(tokens.astype(np.int32))


def _level(load: Load) -> tuple[float | None, int | None]:
    return (load.rate_rps, None) if isinstance(load, OpenLoop) else (None, load.users)
