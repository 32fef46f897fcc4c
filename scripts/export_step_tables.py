"""Make the step-time tables that are shipped, `launchers/sim/tables`, as `tune` makes those of other models.

    python scripts/export_step_tables.py                                   every preset, engine and GPU
    python scripts/export_step_tables.py --gpus a100 --check 1000          and their error against the library
    python scripts/export_step_tables.py --models llama-70b --gpus h100 --engines vllm --tp 4 --weights fp8 \\
        --folder benchmarks/tables                                         what simulator_fidelity.py needs besides

Needs `pip install aiconfigurator-core==0.12.0` (Apache-2.0) beside goodtune; the tables themselves do not.
"""

import argparse
import random
import statistics
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

from aiconfigurator_core.sdk import RustForwardPassPerfModel

from launchers.sim.aic import library_config, library_model, make_table
from launchers.sim.calibration import SHIPPED as SHIPPED_CALIBRATIONS
from launchers.sim.steptable import SHIPPED, SYSTEMS, StepTable, TableKey, keep_table, table_key
from launchers.sim.steptime import TableSteps
from tuner.config.catalog import load
from tuner.config.model import Model

MODELS = ["qwen-7b", "qwen3-8b", "qwen3-32b", "llama-8b", "llama-70b", "mistral-7b"]
GPUS = ["a100", "h100", "h200"]
ENGINES = ["vllm", "sglang"]
TENSOR_PARALLEL = (1, 2, 4, 8)
KERNELS_ALONE = SHIPPED_CALIBRATIONS["table"].model_copy(
    update={"per_step_s": 0.0, "prefill_scale": 1.0, "decode_scale": 1.0}
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Export step-time tables from aiconfigurator-core.")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--gpus", nargs="+", default=GPUS, choices=SYSTEMS)
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--tp", nargs="+", type=int, default=TENSOR_PARALLEL)
    parser.add_argument("--weights", default="bf16", choices=["bf16", "fp8"])
    parser.add_argument("--folder", type=Path, default=SHIPPED)
    parser.add_argument("--check", type=int, default=0, metavar="N", help="compare N random steps with the library")
    chosen = parser.parse_args()
    for gpu, engine, name, tp in product(chosen.gpus, chosen.engines, chosen.models, chosen.tp):
        model = _with_weights(load(Model, name), chosen.weights)
        key = table_key(engine, gpu, model.architecture, tp, 2.0)
        if key is None or not model.architecture.divides(tp):
            continue
        table = make_table(key)
        path = keep_table(key, table, chosen.folder, model.title)
        errors = _errors(table, key, chosen.check) if chosen.check else ""
        print(gpu, engine, name, f"TP{tp}", path.stat().st_size, "bytes", errors, flush=True)


def _with_weights(model: Model, weights: str) -> Model:
    if weights == "bf16":
        return model
    sizes = model.architecture.model_copy(update={"weight_bytes": 1.0, "weight_format": weights})
    return model.model_copy(update={"architecture": sizes})


def _perf_model(key: TableKey) -> RustForwardPassPerfModel:
    """The library's own answer to a whole step, by another way than the one the tables are made."""
    sizes = {"tp_size": key.tp, "pp_size": 1, "attention_dp_size": 1, "moe_tp_size": 1, "moe_ep_size": 1}
    with tempfile.TemporaryDirectory() as folder:
        which = {
            "model_name": library_model(key, Path(folder)),
            "system_name": SYSTEMS[key.gpu],
            "backend": key.engine,
            "backend_version": key.engine_version,
        }
        config = library_config(key)
        formats = {
            "weight_dtype": config["gemm_quant_mode"],
            "activation_dtype": config["fmha_quant_mode"],
            "kv_cache_dtype": config["kvcache_quant_mode"],
        }
        described: dict[str, Any] = {"schema_version": 1, **which, **sizes, **formats, "nextn": None, "extra": {}}
        return RustForwardPassPerfModel.from_native(described)


def _errors(table: StepTable, key: TableKey, steps: int) -> str:
    """Relative errors of `table` over random steps of the kinds an engine runs."""
    draw = random.Random(0)
    ours = TableSteps(table, KERNELS_ALONE, key.source).step_s
    library = _perf_model(key)
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
