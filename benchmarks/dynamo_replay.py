"""Dynamo's side of `against_dynamo.py`: cases as JSON on stdin, what its offline replay reports on stdout.

Runs in an environment with `ai-dynamo` and imports nothing of ours.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

os.environ["DYNAMO_SKIP_PYTHON_LOG_INIT"] = "1"

from dynamo.llm import MockEngineArgs
from dynamo.replay import run_trace_replay


def write_step_time(path: Path, prompt_ms: float, token_ms: float) -> None:
    """A step takes `prompt_ms` if it computes prompts, and `token_ms` if anybody gets a token."""
    ends = np.array([0.0, 1e7])
    np.savez(
        path,
        prefill_ttft_ms=np.full(2, prompt_ms),
        decode_itl=np.full((2, 2), token_ms),
        prefill_isl=ends,
        decode_active_kv_tokens=ends,
        decode_context_length=ends,
    )


def replayed(case: dict[str, Any], folder: Path) -> dict[str, float]:
    """The report of one case: requests are [arrival in ms, prompt tokens, answer tokens, names of blocks]."""
    write_step_time(folder / "steps.npz", case["prompt_ms"], case["token_ms"])
    names = ("timestamp", "input_length", "output_length", "hash_ids")
    lines = [json.dumps(dict(zip(names, request, strict=True))) for request in case["requests"]]
    (folder / "trace.jsonl").write_text("\n".join(lines) + "\n")
    arguments = case["engine"] | {"planner_profile_data": str(folder / "steps.npz")}
    block = case["engine"]["block_size"]
    report: dict[str, float] = run_trace_replay(
        str(folder / "trace.jsonl"),
        extra_engine_args=MockEngineArgs.from_json(json.dumps(arguments)),
        trace_block_size=block,
    )
    return report


def main() -> None:
    """Replay every case."""
    with tempfile.TemporaryDirectory() as folder:
        reports = [replayed(case, Path(folder)) for case in json.load(sys.stdin)]
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
