"""Make the step-time tables of `launchers/sim/tables` from NVIDIA's measured kernel database.

    python scripts/export_step_tables.py                       every preset on H100
    python scripts/export_step_tables.py --gpu a100 --models mistral-7b --engines vllm --tp 1 2
    python scripts/export_step_tables.py --check 2000          and the tables' error against the library

Needs `pip install aiconfigurator-core==0.12.0` (Apache-2.0) beside goodtune; the tables themselves do not.

A step of an engine is the sum of three things the library keeps apart, and so do the tables (milliseconds):
all operations that see only the number of tokens (`mixed_linear` where a prompt is in the batch, `decode_linear`
where none is, which runs as a CUDA graph), attention of prompt chunks (`prefill_attention`: by requests, tokens of
each, cached tokens of each) and attention of decoding requests (`decode_attention`: by requests, context of each).
"""

import argparse
import json
import logging
import random
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from aiconfigurator_core.sdk import EngineHandle, RustForwardPassPerfModel

from launchers.sim.steptime import StepTable, TableSteps
from tuner.config.catalog import load
from tuner.config.model import Model

TABLES = Path(__file__).parent.parent / "launchers" / "sim" / "tables"
LIBRARY = "aiconfigurator-core 0.12.0"
SYSTEMS = {"h100": "h100_sxm", "a100": "a100_sxm"}
VERSIONS = {
    "h100": {"vllm": "0.24.0", "sglang": "0.5.14"},
    "a100": {"vllm": "0.14.0", "sglang": "0.5.10"},
}
BUNDLED = {
    "qwen3-8b": "Qwen/Qwen3-8B",
    "qwen3-32b": "Qwen/Qwen3-32B",
    "llama-8b": "meta-llama/Meta-Llama-3.1-8B",
    "llama-70b": "meta-llama/Meta-Llama-3.1-70B",
}
MODELS = ["qwen-7b", *BUNDLED, "mistral-7b"]
TENSOR_PARALLEL = (1, 2, 4, 8)

MOST_TOKENS = 32768
MOST_DECODES = 8192
KNOT_TOLERANCE = 0.004
DECODES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 224, 256, 320, 384, 512, 640, 768, 1024]
CONTEXT = [1, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768]
CONTEXT += [65536, 131072]
CHUNKS = [1, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384]
CHUNKS += [32768]
CHUNK_REQUESTS = [1, 2, 4, 8, 16, 32, 64]
CACHED = [0, 16, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 131072]


def main() -> None:
    parser = argparse.ArgumentParser(description="Export step-time tables from aiconfigurator-core.")
    parser.add_argument("--models", nargs="+", default=MODELS[:-1], choices=MODELS)
    parser.add_argument("--gpu", default="h100", choices=SYSTEMS)
    parser.add_argument("--engines", nargs="+", default=["vllm", "sglang"], choices=["vllm", "sglang"])
    parser.add_argument("--tp", nargs="+", type=int, default=TENSOR_PARALLEL)
    parser.add_argument("--check", type=int, default=0, metavar="N", help="compare N random steps with the library")
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for model in chosen.models:
        for engine in chosen.engines:
            servers = {tp: Server(model, chosen.gpu, engine, tp) for tp in chosen.tp if _divides(model, tp)}
            tables = {str(tp): _export(server) for tp, server in servers.items()}
            _write(servers[chosen.tp[0]], tables)
            for tp, server in servers.items() if chosen.check else ():
                print(model, chosen.gpu, engine, f"TP{tp}", _errors(tables[str(tp)], _perf_model(server), chosen.check))


@dataclass(frozen=True)
class Server:
    """Whose step times a table holds."""

    model: str
    gpu: str
    engine: str
    tp: int

    @property
    def version(self) -> str:
        """The version of the engine that was measured on this GPU."""
        return VERSIONS[self.gpu][self.engine]


def _divides(model: str, tp: int) -> bool:
    return load(Model, model).architecture.divides(tp)


def _library_model(model: str) -> str:
    """What the library calls `model`: an id it knows, or a directory with a config.json made from our own file."""
    if model in BUNDLED:
        return BUNDLED[model]
    architecture = load(Model, model).architecture
    directory = Path(tempfile.mkdtemp(prefix="goodtune-tables-")) / model
    directory.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": architecture.layers,
        "hidden_size": architecture.hidden,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "intermediate_size": architecture.intermediate,
        "vocab_size": architecture.vocab,
        "max_position_embeddings": architecture.max_context,
        "tie_word_embeddings": architecture.tied_embeddings,
        "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(directory)


def _export(server: Server) -> StepTable:
    handle = EngineHandle.compile(
        _library_model(server.model),
        SYSTEMS[server.gpu],
        server.engine,
        backend_version=server.version,
        tp_size=server.tp,
    )
    shared, _, _ = handle.mixed_step_breakdown_per_op(ctx_tokens=512, gen_tokens=64, isl=512, osl=2)
    prefill = handle.run_static_per_op(batch_size=1, isl=512, osl=2, mode="static_ctx")[0]
    decode = handle.decode_step_per_op(gen_tokens=64, isl=1024, osl=2)
    prefill_linear, prefill_attention = _split(prefill)
    decode_linear, decode_attention = _split(decode)
    assert {row[0] for row in shared} == {prefill[i][0] for i in prefill_linear}

    def context(indices: list[int], requests: int, tokens: int, cached: int) -> float:
        return _total(handle.evaluate_context_ops(indices, batch_size=requests, s=tokens, prefix=cached))

    def generation(indices: list[int], requests: int, tokens: int) -> float:
        return _total(handle.evaluate_generation_ops(indices, batch_size=requests, s=tokens))

    mixed = _knots(lambda tokens: context(prefill_linear, 1, tokens, 0), MOST_TOKENS)
    decoding = _knots(lambda tokens: generation(decode_linear, tokens, 1024), MOST_DECODES)
    return {
        "mixed_tokens": list(mixed),
        "mixed_linear": list(mixed.values()),
        "decode_tokens": list(decoding),
        "decode_linear": list(decoding.values()),
        "decodes": DECODES,
        "context": CONTEXT,
        "decode_attention": [[generation(decode_attention, n, length) for length in CONTEXT] for n in DECODES],
        "chunk_requests": CHUNK_REQUESTS,
        "chunks": CHUNKS,
        "cached": CACHED,
        "prefill_attention": [
            [[context(prefill_attention, n, tokens, cached) for cached in CACHED] for tokens in CHUNKS]
            for n in CHUNK_REQUESTS
        ],
    }


def _knots(milliseconds: Callable[[int], float], most: int) -> dict[int, float]:
    """Points of a curve over 1..`most` tokens between which straight lines are right within KNOT_TOLERANCE.

    Matrix kernels step up where a tile more is needed, so no fixed grid would do.
    """
    value = cache(milliseconds)
    points = {1, most}
    cells = [(1, most)]
    while cells:
        low, high = cells.pop()
        inside = sorted({low + (high - low) * part // 8 for part in range(1, 8)} - {low, high})
        if low == 1 or any(_bend(value, low, high, x) > KNOT_TOLERANCE for x in inside):
            middle = (low + high) // 2
            points.add(middle)
            cells += [(a, b) for a, b in ((low, middle), (middle, high)) if b - a > 1]
    return {x: value(x) for x in sorted(points)}


def _bend(value: Callable[[int], float], low: int, high: int, x: int) -> float:
    """How far the straight line over [low, high] misses the curve at `x`, relative."""
    straight = value(low) + (value(high) - value(low)) * (x - low) / (high - low)
    return abs(straight / value(x) - 1)


def _split(operations: list[Any]) -> tuple[list[int], list[int]]:
    """Indices of the operations that see only tokens, and of attention."""
    attention = [i for i, row in enumerate(operations) if row[0].endswith("_attention")]
    return [i for i in range(len(operations)) if i not in attention], attention


def _total(operations: list[Any]) -> float:
    return float(f"{sum(row[1] for row in operations):.5g}")


def _write(server: Server, tables: dict[str, StepTable]) -> None:
    source = f"table {LIBRARY} {server.engine} {server.version}"
    content = {"source": source, "gpu": server.gpu, "model": server.model, "tp": tables}
    path = TABLES / f"{server.gpu}-{server.engine}-{server.model}.json"
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
    print(path.name, path.stat().st_size, "bytes")


def _perf_model(server: Server) -> RustForwardPassPerfModel:
    sizes = {"tp_size": server.tp, "pp_size": 1, "attention_dp_size": 1, "moe_tp_size": 1, "moe_ep_size": 1}
    which = {
        "model_name": _library_model(server.model),
        "system_name": SYSTEMS[server.gpu],
        "backend": server.engine,
        "backend_version": server.version,
    }
    return RustForwardPassPerfModel.from_native({"schema_version": 1, **which, **sizes, "nextn": None, "extra": {}})


def _errors(table: StepTable, library: RustForwardPassPerfModel, steps: int) -> str:
    """Relative errors of `table` over random steps of the kinds an engine runs."""
    draw = random.Random(0)
    ours = TableSteps(table, overhead_s=0.0, source=LIBRARY).step_s
    errors: dict[str, list[float]] = {"prefill": [], "decode": [], "mixed": []}
    for _ in range(steps):
        for kind, found in errors.items():
            step = _random_step(draw, kind)
            found.append(abs(ours(*step) * 1e3 / _library_ms(library, step) - 1))
    return "  ".join(f"{kind} {_percentages(found)}" for kind, found in errors.items())


def _random_step(draw: random.Random, kind: str) -> tuple[int, int, int, int, int]:
    prompts = 0 if kind == "decode" else round(2 ** draw.uniform(0, 4))
    tokens = round(2 ** draw.uniform(4, 13.9))
    cached = draw.choice([0, round(2 ** draw.uniform(4, 14))])
    decodes = 0 if kind == "prefill" else round(2 ** draw.uniform(0, 9))
    context = round(2 ** draw.uniform(5, 13))
    if not prompts:
        return 0, 0, 0, decodes, decodes * context
    # The library rounds the number of prompts up where the tokens do not divide by it.
    return max(tokens // prompts, 1) * prompts, cached * prompts, prompts, decodes, decodes * context


def _library_ms(library: RustForwardPassPerfModel, step: tuple[int, int, int, int, int]) -> float:
    tokens, cached, prompts, decodes, context = step
    scheduled = {
        "num_prefill_requests": prompts,
        "sum_prefill_tokens": tokens,
        "sum_prefill_kv_tokens": cached,
        "num_decode_requests": decodes,
        "sum_decode_kv_tokens": context,
    }
    return float(library.estimate_forward_pass_time_ms({"version": 1, "scheduled_requests": scheduled}))


def _percentages(found: list[float]) -> str:
    cuts = statistics.quantiles(found, n=20)
    return f"median {statistics.median(found):.2%} p95 {cuts[-1]:.1%} max {max(found):.1%}"


if __name__ == "__main__":
    main()
