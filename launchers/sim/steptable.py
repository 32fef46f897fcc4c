"""Step tables: whose step times one holds, where it lies, and how it is written and read.

Tables are made by `launchers.sim.aic` from kernels that NVIDIA measured. Some are shipped; others are made on this
machine when a study first needs them, and kept in the user's cache folder.
"""

import gzip
import json
import os
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypedDict

from tuner.config.model import Architecture

SHIPPED = Path(__file__).parent / "tables"

LIBRARY = "aiconfigurator-core"
LIBRARY_VERSION = "0.12.0"

SYSTEMS = {"a100": "a100_sxm", "h100": "h100_sxm", "h200": "h200_sxm", "l40s": "l40s"}
"""Our name of a GPU → the library's, for those whose kernels were measured."""

ENGINE_VERSIONS = {"vllm": "0.24.0", "sglang": "0.5.14"}
OTHER_VERSIONS = {("a100", "vllm"): "0.14.0", ("a100", "sglang"): "0.5.10"}
"""The version of an engine whose kernels the library carries: the same for every GPU but these."""

NumberFormat = Literal["bf16", "fp8", "fp8_static", "fp8_block"]


class StepTable(TypedDict):
    """Milliseconds over grids; `launchers.sim.aic` says what each part holds."""

    mixed_tokens: list[int]
    mixed_linear: list[float]
    decode_tokens: list[int]
    decode_linear: list[float]
    decodes: list[int]
    context: list[int]
    decode_attention: list[list[float]]
    chunk_requests: list[int]
    chunks: list[int]
    cached: list[int]
    prefill_attention: list[list[list[float]]]


@dataclass(frozen=True)
class TableKey:
    """All that decides the step times of a server, so models of the same sizes share a table.

    `qk_norm`: queries and keys are normalised, which the library counts; `weights` and `kv` are number formats.
    """

    gpu: str
    engine: str
    tp: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    qk_norm: bool
    weights: NumberFormat
    kv: NumberFormat

    @property
    def engine_version(self) -> str:
        """The version of the engine whose kernels were measured on this GPU."""
        return OTHER_VERSIONS.get((self.gpu, self.engine), ENGINE_VERSIONS[self.engine])

    @property
    def source(self) -> str:
        """Where the figures come from, for reports."""
        return f"table {LIBRARY} {LIBRARY_VERSION} {self.engine} {self.engine_version}"

    @property
    def file_name(self) -> str:
        """All of the key, so that a table made for another server is never taken for this one's."""
        attention = f"h{self.heads}-kv{self.kv_heads}x{self.head_dim}{'-qknorm' if self.qk_norm else ''}"
        sizes = f"L{self.layers}-d{self.hidden}-{attention}-f{self.intermediate}-v{self.vocab}"
        return (
            f"{self.gpu}-{self.engine}-{self.engine_version}-{sizes}-{self.weights}-kv_{self.kv}-tp{self.tp}.json.gz"
        )


def table_key(engine: str, gpu: str, architecture: Architecture, tp: int, kv_dtype_bytes: float) -> TableKey | None:
    """The key of a server's table, or None where the library has no kernels of that GPU or number format."""
    weights = "bf16" if architecture.weight_bytes == 2.0 else architecture.weight_format
    if gpu not in SYSTEMS or engine not in ENGINE_VERSIONS or weights is None:
        return None
    if (engine, weights) == ("vllm", "fp8_block"):
        # Every matrix takes 0.09 ms at least, as if measured without CUDA graphs: a decode step would be slower than
        # with 16 bits.
        return None
    return TableKey(
        gpu=gpu,
        engine=engine,
        tp=tp,
        layers=architecture.layers,
        hidden=architecture.hidden,
        heads=architecture.heads,
        kv_heads=architecture.kv_heads,
        head_dim=architecture.head_dim,
        intermediate=architecture.intermediate,
        vocab=architecture.vocab,
        qk_norm=architecture.qk_norm,
        weights=weights,
        kv="bf16" if kv_dtype_bytes == 2.0 else "fp8",
    )


def library_installed() -> bool:
    """Whether tables can be made here: the library is installed, in the version that the keys are about."""
    try:
        return metadata.version(LIBRARY) == LIBRARY_VERSION
    except metadata.PackageNotFoundError:
        return False


def find_table(key: TableKey) -> StepTable | None:
    """The table of `key`, shipped or kept from an earlier study, or None."""
    return next((_read(folder / key.file_name) for folder in (SHIPPED, kept_tables()) if _holds(folder, key)), None)


def kept_tables() -> Path:
    """The folder of the tables that were made on this machine."""
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache_folder / "goodtune" / "tables" / f"{LIBRARY}-{LIBRARY_VERSION}"


def keep_table(key: TableKey, table: StepTable, folder: Path, model: str) -> Path:
    """Write `table` into `folder`, whole or not at all; `model` is for people who look into it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"source": key.source, "model": model, **table}, separators=(",", ":"))
    path = folder / key.file_name
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(gzip.compress(content.encode(), compresslevel=9, mtime=0))
    unfinished.replace(path)
    return path


def _holds(folder: Path, key: TableKey) -> bool:
    return (folder / key.file_name).is_file()


@cache
def _read(path: Path) -> StepTable:
    content: Any = json.loads(gzip.decompress(path.read_bytes()))
    table: StepTable = {name: content[name] for name in StepTable.__annotations__}  # type: ignore[assignment]
    return table
