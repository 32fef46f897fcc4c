"""Smoke test of a box: vLLM starts, streams, stops and gives the GPU's memory back, and each of that takes how long.

    python scripts/measure_start.py MODEL OUT [--where gpu|cpu|served]

Writes OUT/start.json. Exit code 1 where an answer was not whole, or memory was not back within BACK_WITHIN_S.
"""

import json
import sys
import time
from typing import Any

import numpy as np
import pynvml
from box_plan import about, default_of, parser_for, planned
from startup_phases import startup_phases

from launchers.open import LOG_NAME, open_target
from tuner.config.plan import Plan
from tuner.requestlog import RequestLog, Status
from tuner.requests import Requests
from tuner.target import ClosedLoop, Window
from tuner.workload.prompts import fresh_prompts

PROMPT_TOKENS, OUTPUT_TOKENS, REQUESTS, USERS = 512, 64, 16, 4
MIB = 2**20
BACK_WITHIN_S = 30.0
SPARE_MIB = 200.0
TIMEOUT_S = 120.0


def main() -> None:
    asked = parser_for(__doc__).parse_args()
    plan = planned(asked)
    before_mib = used_mib(plan)
    with open_target(plan, default_of(plan), plan.box.gpus, asked.out) as target:
        ready_s, serving_mib = target.clock_s(), used_mib(plan)
        log = target.replay(some_requests(), ClosedLoop(USERS), Window(0.0, TIMEOUT_S, TIMEOUT_S), lambda seen: None)
        stopping_s = time.perf_counter()
    stopped_s = time.perf_counter() - stopping_s
    back_s = until_back_s(plan, before_mib)
    phases = startup_phases((asked.out / LOG_NAME).read_text(encoding="utf-8", errors="replace"))
    memory = {"before_mib": before_mib, "serving_mib": serving_mib, "after_mib": used_mib(plan), "back_s": back_s}
    found = about(plan) | {"ready_s": ready_s, "phases": phases, "stopped_s": stopped_s} | streamed(log) | memory
    (asked.out / "start.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    sys.exit(0 if found["whole"] == REQUESTS and back_s is not None else 1)


def some_requests() -> Requests:
    prompts = np.full(REQUESTS, PROMPT_TOKENS)
    return Requests(
        seed=0,
        prompt_tokens=prompts,
        output_tokens=np.full(REQUESTS, OUTPUT_TOKENS),
        session=np.arange(REQUESTS),
        unit_gaps=np.zeros(REQUESTS),
        think_s=np.zeros(REQUESTS),
        segments=fresh_prompts(0, prompts),
    )


def streamed(log: RequestLog) -> dict[str, Any]:
    """How many answers were whole, and the pace of their tokens."""
    whole = log.status == Status.OK
    if not whole.any():
        return {"whole": 0, "errors": log.errors[:3]}
    ttft_s = (log.first_s - log.sent_s)[whole]
    tpot_s = ((log.last_s - log.first_s) / (OUTPUT_TOKENS - 1))[whole]
    chunks = np.diff(log.chunk_start)[whole]
    return {
        "whole": int(whole.sum()),
        "ttft_p50_s": float(np.median(ttft_s)),
        "tpot_p50_s": float(np.median(tpot_s)),
        "tokens_per_chunk": float(OUTPUT_TOKENS / chunks.mean()),
    }


def used_mib(plan: Plan) -> float | None:
    """What is taken of the first GPU's memory, by whomever; None where no real GPU serves."""
    if plan.box.simulation is not None or plan.box.gpu.is_cpu:
        return None
    pynvml.nvmlInit()
    try:
        return float(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(plan.box.gpus[0])).used) / MIB
    finally:
        pynvml.nvmlShutdown()


def until_back_s(plan: Plan, before_mib: float | None) -> float | None:
    """How long it takes until the memory is as it was, 0 where there is no GPU; None: not within BACK_WITHIN_S."""
    since_s = time.perf_counter()
    while (passed_s := time.perf_counter() - since_s) < BACK_WITHIN_S:
        now_mib = used_mib(plan)
        if now_mib is None or before_mib is None or now_mib <= before_mib + SPARE_MIB:
            return passed_s if now_mib is not None else 0.0
        time.sleep(0.1)
    return None


if __name__ == "__main__":
    main()
