"""The library's calls that `launchers.sim.aic` makes, with times that a person can work out.

On 1 GPU a step of n tokens takes 1 ms and 0.01 ms per token; attention 0.1 ms per request and 0.001 ms per token that
one sees. Half of it on 2 GPUs. Heads of 80 were not measured. Every compilation is noted in `$FAKE_KERNEL_LOG`.
"""

import json
import os
from pathlib import Path
from typing import Any

Row = tuple[str, float, float, str]
NAMES = ("gemm", "attention")


class EngineHandle:
    """A model compiled for a system."""

    def __init__(self, tp: int) -> None:
        self.tp = tp

    @classmethod
    def compile(cls, model_path: str, system: str, backend: str, **options: Any) -> "EngineHandle":
        config = json.loads((Path(model_path) / "config.json").read_text())
        if log := os.environ.get("FAKE_KERNEL_LOG"):
            with Path(log).open("a") as file:
                file.write(json.dumps({"system": system, "backend": backend, "model": config, **options}) + "\n")
        if config["head_dim"] == 80:
            raise RuntimeError("perf database error: no attention of head_size: 80: tried every lane at /some/path")
        return cls(options["tp_size"])

    def mixed_step_breakdown_per_op(self, **_shape: int) -> tuple[list[Row], list[Row], list[Row]]:
        return [("context_gemm", 1.0, 0.0, "silicon")], [], []

    def run_static_per_op(self, **_shape: Any) -> tuple[list[Row], list[Row]]:
        return [(f"context_{name}", 1.0, 0.0, "silicon") for name in NAMES], []

    def decode_step_per_op(self, **_shape: int) -> list[Row]:
        return [(f"generation_{name}", 1.0, 0.0, "silicon") for name in NAMES]

    def evaluate_context_ops(self, indices: list[int], batch_size: int, s: int, prefix: int = 0) -> list[Row]:
        return [self._row(index, batch_size, s, prefix + s) for index in indices]

    def evaluate_generation_ops(self, indices: list[int], batch_size: int, s: int) -> list[Row]:
        return [self._row(index, batch_size, 1, s) for index in indices]

    def _row(self, index: int, requests: int, tokens: int, seen: int) -> Row:
        linear_ms, attention_ms = 1 + 0.01 * requests * tokens, requests * (0.1 + 0.001 * seen)
        return (NAMES[index], (linear_ms, attention_ms)[index] / self.tp, 0.0, "silicon")
