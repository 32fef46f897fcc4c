"""Makes step tables from NVIDIA's measured kernels: a TableKey flows in, a StepTable flows out.

The only module that imports aiconfigurator-core (the extra `aic`; half a second, and 3 to 6 seconds for the first
table of a GPU and engine, whose measurements are read then). Import it where `library_installed()`.

A step of an engine is the sum of three things the library keeps apart, and so do the tables (milliseconds):
all operations that see only the number of tokens (`mixed_linear` where a prompt is in the batch, `decode_linear`
where none is, which runs as a CUDA graph), attention of prompt chunks (`prefill_attention`: by requests, tokens of
each, cached tokens of each) and attention of decoding requests (`decode_attention`: by requests, context of each).
"""

import json
import logging
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from aiconfigurator_core.sdk import EngineHandle

from launchers.sim.steptable import SYSTEMS, StepTable, TableKey
from tuner.errors import NotMeasured

# The library holds attention of answers at powers of two of requests and context, and is linear between them.
DECODES = [2**i for i in range(12)]
CONTEXT = [2**i for i in range(18)]
CHUNK_REQUESTS = [1, 2, 4, 8, 16, 64]
CHUNKS = [1, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384]
CHUNKS += [32768]
CACHED = [0, 16, 64, 256, 1024, 2048, 4096, 8192, 16384, 131072]

MOST_TOKENS = 32768
MOST_DECODES = 8192
KNOT_TOLERANCE = 0.004


def make_table(key: TableKey) -> StepTable:
    """The step times of `key`'s server. Raises NotMeasured where the library lacks what it would need."""
    logging.getLogger("aiconfigurator_core").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="goodtune-table-") as folder:
        try:
            return _table(_compiled(key, library_model(key, Path(folder))))
        except (RuntimeError, ValueError) as error:
            raise NotMeasured(_first_clause(error)) from error


def library_config(key: TableKey) -> dict[str, Any]:
    """What names `key`'s server in the library's calls, beside its model."""
    return {
        "system": SYSTEMS[key.gpu],
        "backend": key.engine,
        "backend_version": key.engine_version,
        "tp_size": key.tp,
        "gemm_quant_mode": "bfloat16" if key.weights == "bf16" else key.weights,
        "kvcache_quant_mode": "bfloat16" if key.kv == "bf16" else key.kv,
        # SGLang casts queries to the format of the cache; vLLM was measured with queries of 16 bits.
        "fmha_quant_mode": "fp8" if (key.engine, key.kv) == ("sglang", "fp8") else "bfloat16",
    }


def library_model(key: TableKey, folder: Path) -> str:
    """A directory with a config.json: the library knows few models by name, but any dense decoder by its sizes."""
    config = {
        "architectures": ["Qwen3ForCausalLM" if key.qk_norm else "LlamaForCausalLM"],
        "model_type": "qwen3" if key.qk_norm else "llama",
        "num_hidden_layers": key.layers,
        "hidden_size": key.hidden,
        "num_attention_heads": key.heads,
        "num_key_value_heads": key.kv_heads,
        "head_dim": key.head_dim,
        "intermediate_size": key.intermediate,
        "vocab_size": key.vocab,
        "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def _compiled(key: TableKey, model: str) -> EngineHandle:
    return EngineHandle.compile(model, **library_config(key))


def _table(handle: EngineHandle) -> StepTable:
    shared, _, _ = handle.mixed_step_breakdown_per_op(ctx_tokens=512, gen_tokens=64, isl=512, osl=2)
    prefill = handle.run_static_per_op(batch_size=1, isl=512, osl=2, mode="static_ctx")[0]
    prefill_linear, prefill_attention = _split(prefill)
    decode_linear, decode_attention = _split(handle.decode_step_per_op(gen_tokens=64, isl=1024, osl=2))
    assert {row[0] for row in shared} == {prefill[i][0] for i in prefill_linear}

    def context(operations: list[int], requests: int, tokens: int, cached: int) -> float:
        return _total(handle.evaluate_context_ops(operations, batch_size=requests, s=tokens, prefix=cached))

    def generation(operations: list[int], requests: int, tokens: int) -> float:
        return _total(handle.evaluate_generation_ops(operations, batch_size=requests, s=tokens))

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


def _split(operations: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Indices of the operations that see only tokens, and of attention."""
    attention = [i for i, row in enumerate(operations) if row[0].endswith("_attention")]
    return [i for i in range(len(operations)) if i not in attention], attention


def _total(operations: Sequence[Any]) -> float:
    return float(f"{sum(row[1] for row in operations):.4g}")


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


def _first_clause(error: Exception) -> str:
    """What is missing, without the library's paths and advice."""
    return re.split(r": tried |: either | at /|\n", str(error))[0].removeprefix("perf database error: ")
