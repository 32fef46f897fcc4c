"""What two readings of "50 ms between tokens" make of the same servers: goodput of `chat` by TP and token budget.

    python benchmarks/chat_limits.py [--out benchmarks/chat_limits.md] [--seeds 5]

Qwen2.5-7B on simulated H100s in virtual time. For each configuration the highest Poisson rate is searched at which,
over the mean of all seeds, 99 % of the requests meet TTFT ≤ 200 ms and 50 ms between tokens: as the mean gap of a
request (TPOT), or as the P99 of its own gaps. Rates are 5 % apart. Takes a minute or two.
"""

import argparse
import os
import platform
from datetime import date
from functools import cache
from pathlib import Path
from statistics import fmean

from launchers.sim.virtual import VirtualTarget, virtual_target
from tuner.config.catalog import load, load_model
from tuner.config.gpu import Gpu
from tuner.config.slo import Limits, Slo
from tuner.config.workload import Workload
from tuner.configuration import Configuration
from tuner.probe import Prober
from tuner.target import OpenLoop

MODEL, GPU, SEED = "qwen-7b", "h100", 20261121
ATTAINMENT, COUNTED = 0.99, 2000
READINGS = {
    "mean gap": Limits(ttft_s=0.2, tpot_s=0.05),
    "P99 of gaps": Limits(ttft_s=0.2, itl_s=0.05),
}
SERVERS = ((1, 8192), (1, 2048), (1, 512), (2, 4096), (4, 4096))
STEP, SLOWEST, FASTEST = 1.05, -62, 94
"""Rates are powers of STEP: 0.05 to 98 requests/s per GPU."""


def capacity_rps(target: VirtualTarget, tp: int, limits: Limits, seeds: int) -> float:
    """The highest rate per GPU at which the limits hold; 0 where they hold at none."""
    # An SLO that asks for nothing stops no probe early.
    slo = load(Slo, "chat").model_copy(update={"limits": limits, "attainment": 0.0})
    workload = load(Workload, "chat")

    @cache
    def holds(power: int) -> bool:
        rate_rps = tp * STEP**power
        probers = [Prober(target, workload, slo, seed) for seed in range(SEED, SEED + seeds)]
        window_s = max(slo.window_s, COUNTED / rate_rps)
        return fmean(one.measure_for(OpenLoop(rate_rps), window_s).attainment for one in probers) >= ATTAINMENT

    low, high = SLOWEST, FASTEST
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return STEP**low if holds(low) else 0.0


def report(seeds: int) -> str:
    """The table, as markdown."""
    lines = [
        "# Two readings of “50 ms between tokens”",
        "",
        f"{MODEL}, vLLM on {GPU}, workload `chat`, TTFT ≤ 200 ms, attainment {ATTAINMENT}; req/s per GPU in virtual",
        f"time: highest of rates {100 * (STEP - 1):.0f} % apart, mean over {seeds} seeds of {COUNTED} requests.",
        "",
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"{date.today()}; `python benchmarks/chat_limits.py`",
        "",
        "| TP | token budget | " + " | ".join(f"50 ms limit the {name}" for name in READINGS) + " |",
        "| --- | --- | --- | --- |",
    ]
    for tp, budget in SERVERS:
        # vLLM refuses a budget below its batch.
        configuration = Configuration("vllm", {"tp": tp, "token_budget": budget, "max_batch_size": min(1024, budget)})
        acceptance = load(Workload, "chat").acceptance.of("off")
        target = virtual_target(configuration, load_model(MODEL), load(Gpu, GPU), acceptance)
        cells = [f"{capacity_rps(target, tp, limits, seeds):.1f}" for limits in READINGS.values()]
        lines.append(f"| {tp} | {budget}{' (default)' if budget == 8192 else ''} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    text = report(asked.seeds)
    asked.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
