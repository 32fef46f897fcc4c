"""Measure what the token budget does: one server for each, the workload at the same loads against all of them.

    python scripts/measure_budgets.py MODEL OUT --rates 4 12 [--budgets 256 8192] [--where gpu|cpu|served]

Adds a line to OUT/budgets.jsonl for each budget and load that was not measured yet. All get the same requests.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from box_plan import about, add_row, default_of, parser_for, planned, read_rows

from launchers.open import open_target
from tuner.config.plan import Plan
from tuner.configuration import Configuration
from tuner.errors import MeasurementVoid, ServerFailed
from tuner.probe import Prober
from tuner.rawlog import write_requests
from tuner.score import Score
from tuner.seeds import Purpose, derive
from tuner.target import OpenLoop

ROWS = "budgets.jsonl"
BUDGETS = (256, 512, 1024, 2048, 4096, 8192)
WARMUP_S, WINDOW_S = 15.0, 45.0
# What a server takes to start, before one was seen to.
START_S = 60.0


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--rates", nargs="+", type=float, required=True, help="loads, requests per second")
    parser.add_argument("--budgets", nargs="+", type=int, default=BUDGETS, help="tokens per step")
    asked = parser.parse_args()
    plan = planned(asked)
    slo = plan.slo.model_copy(update={"warmup_s": WARMUP_S / 5} if asked.quick else {"warmup_s": WARMUP_S})
    plan = replace(plan, slo=slo)
    window_s = WINDOW_S / 5 if asked.quick else WINDOW_S
    path, since_s, start_s = asked.out / ROWS, time.perf_counter(), START_S
    known = {(row["token_budget"], row["rate_rps"]) for row in read_rows(path)}
    for budget in asked.budgets:
        rates = [rate for rate in asked.rates if (budget, rate) not in known]
        lasts_s = start_s + len(rates) * (slo.warmup_s + window_s + slo.limits.present().get("e2e_s", 10.0))
        if rates and time.perf_counter() - since_s + lasts_s > asked.limit:
            print(f"budget {budget} and what is behind it is left for the next time")
            break
        if rates:
            start_s = measure_budget(Job(plan, asked.out, window_s), budget, rates)
    print(f"{path}: {len(read_rows(path))} of {len(asked.budgets) * len(asked.rates)} rows")


@dataclass(frozen=True)
class Job:
    """What all budgets share."""

    plan: Plan
    out: Path
    window_s: float


def measure_budget(job: Job, budget: int, rates: Sequence[float]) -> float:
    """Add the rows of one budget; how long its server took to start. What cannot be measured is said and left out."""
    plan, folder = job.plan, job.out / f"budget-{budget}"
    try:
        with open_target(plan, with_budget(plan, budget), plan.box.gpus, folder) as target:
            start_s = target.clock_s()
            prober = Prober(target, plan.workload, plan.slo, derive(plan.seed, Purpose.CONFIRM), stage="confirm")
            for rate in rates:
                measure_rate(job, prober, budget, rate)
            loads = "-".join(f"{rate:g}" for rate in rates)
            write_requests(folder / f"requests-{loads}.parquet", prober.recorded, with_chunks=False)
            return start_s
    except ServerFailed as failed:
        print(f"budget {budget}: {failed}", flush=True)
        return START_S


def measure_rate(job: Job, prober: Prober, budget: int, rate: float) -> None:
    try:
        row = row_of(prober.measure_for(OpenLoop(rate), job.window_s))
    except MeasurementVoid as void:
        print(f"budget {budget} at {rate:g} req/s is left for the next time: {void}", flush=True)
        return
    add_row(job.out / ROWS, about(job.plan) | {"token_budget": budget, "rate_rps": rate} | row)
    print(f"budget {budget} at {rate:g} req/s: {row['attainment']:.1%} in SLO", flush=True)


def with_budget(plan: Plan, budget: int) -> Configuration:
    """The default with another budget; a batch may not be larger than that."""
    knobs = dict(default_of(plan).knobs)
    knobs["token_budget"] = budget
    knobs["max_batch_size"] = min(int(knobs["max_batch_size"]), budget)
    return Configuration("vllm", knobs)


def row_of(found: Score) -> dict[str, Any]:
    """What is worth keeping of a score; times in seconds."""
    times = {name: getattr(found, name) for name in ("ttft_s", "itl_s", "tpot_s", "e2e_s")}
    spread = {name: {"p50": each.p50, "p90": each.p90, "p99": each.p99} for name, each in times.items() if each}
    return {
        "counted": found.counted,
        "attainment": found.attainment,
        "goodput_rps": found.goodput_rps,
        "throughput_tok_s": found.throughput_tok_s,
        "missed": dict(found.missed),
        **spread,
    }


if __name__ == "__main__":
    main()
