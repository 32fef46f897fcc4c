"""The served simulation against the same simulation in virtual time: one workload, the same requests, both ways.

    python benchmarks/served_vs_virtual.py [--out benchmarks/served_vs_virtual.md]

Served means server processes over HTTP in real time, measured by the load generator. At half of capacity TTFT p50 and
p90 and TPOT p50 must agree within 10 %, and where attainment lies between 0.5 and 0.9 it must agree within 3 points.
Takes about 8 minutes; wants a machine with nothing else to do.
"""

import argparse
import operator
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TypeVar

from launchers.open import open_target
from tuner.cli.planning import Options, plan_from
from tuner.config.plan import Plan, Simulation
from tuner.configuration import Configuration
from tuner.goodput import Question, find_goodput
from tuner.probe import Prober
from tuner.score import Score
from tuner.space import spaces_of
from tuner.target import OpenLoop, Target

SEED = 20261121
# Chat prompts and answers under the limits of a 2-level chat SLO: TTFT 500 ms, mean gap 25 ms.
SLO = """
title: benchmark
source: benchmarks/served_vs_virtual.py
workload: chat
attainment: 0.9
limits: {ttft_s: 0.5, tpot_s: 0.025}
warmup_s: 15
window_s: 120
timeout_s: 60
"""
WANTED = 0.7
T = TypeVar("T")
LATENCY_BAR = 0.10
ATTAINMENT_BAR = 0.03


def main() -> None:
    """Measure, print, and write the table. Exits 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        plan = a_plan(Path(folder))
        default = spaces_of(plan)["vllm"].default
        capacity_rps = measured_in(plan, default, "virtual", capacity)
        contested_rps = measured_in(plan, default, "virtual", contested)
        half = [measured_in(plan, default, how, at(capacity_rps / 2)) for how in ("virtual", "served")]
        full = [measured_in(plan, default, how, at(contested_rps)) for how in ("virtual", "served")]
    text, passed = table((capacity_rps, contested_rps), half, full)
    out.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(0 if passed else 1)


def a_plan(folder: Path) -> Plan:
    (folder / "slo.yaml").write_text(SLO)
    options = Options(
        model="qwen-7b", slo=str(folder / "slo.yaml"), simulate="virtual", gpus="1", out=folder / "study"
    )
    return plan_from(options).plan


def measured_in(plan: Plan, configuration: Configuration, how: Simulation, job: Callable[[Prober], T]) -> T:
    """What `job` finds on a fresh target, in virtual time or served."""
    plan = replace(plan, box=replace(plan.box, simulation=how))
    with open_target(plan, configuration, (0,), plan.out / how) as target:
        return job(a_prober(plan, target))


def a_prober(plan: Plan, target: Target) -> Prober:
    return Prober(target, plan.workload, plan.slo, SEED)


def capacity(prober: Prober) -> float:
    """The highest rate that holds the SLO."""
    found = find_goodput(Question(0.9, 1000, start=4.0, least=0.5), prober.measure)
    assert found.edge, "the default holds this SLO at some load"
    return found.edge


def contested(prober: Prober) -> float:
    """A rate at which about WANTED of the requests meet the SLO, by bisection."""
    low, high = 1.0, 64.0
    while high / low > 1.005:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if score_at(prober, middle).attainment > WANTED else (low, middle)
    return low


def at(rate_rps: float) -> Callable[[Prober], Score]:
    return lambda prober: score_at(prober, rate_rps)


def score_at(prober: Prober, rate_rps: float) -> Score:
    return prober.measure_for(OpenLoop(rate_rps), prober.slo.window_s)


def table(rates_rps: tuple[float, float], half: list[Score], full: list[Score]) -> tuple[str, bool]:
    """The result as Markdown, and whether every bar is met; `rates_rps`: capacity, and that of `full`."""
    capacity_rps, contested_rps = rates_rps
    rows = [
        (f"{name} at {capacity_rps / 2:.2f} req/s, ms", *(1e3 * read(score) for score in half), LATENCY_BAR, True)
        for name, read in (
            ("TTFT p50", operator.attrgetter("ttft_s.p50")),
            ("TTFT p90", operator.attrgetter("ttft_s.p90")),
            ("TPOT p50", operator.attrgetter("tpot_s.p50")),
        )
    ]
    rows.append(
        (
            f"attainment at {contested_rps:.2f} req/s",
            *(score.attainment for score in full),
            ATTAINMENT_BAR,
            False,
        )
    )
    lines, passed = [], 0.5 <= full[0].attainment <= 0.9
    for name, virtual, served, bar, relative in rows:
        difference = served / virtual - 1 if relative else served - virtual
        shown = f"{difference:+.1%}" if relative else f"{100 * difference:+.1f} points"
        limit = f"{bar:.0%}" if relative else f"{100 * bar:.0f} points"
        lines.append(f"| {name} | {virtual:.4g} | {served:.4g} | {shown} | {limit} |")
        passed &= abs(difference) <= bar
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return (
        "# Served simulation against virtual time\n\n"
        f"qwen-7b on a simulated H100, vLLM's default, chat; {full[0].counted} requests at the higher rate.\n"
        f"Capacity {capacity_rps:.2f} req/s (90 % within TTFT 500 ms and TPOT 25 ms).\n\n"
        f"{machine}; {date.today().isoformat()}; `python benchmarks/served_vs_virtual.py`\n\n"
        "| | virtual | served | difference | bar |\n|---|---|---|---|---|\n" + "\n".join(lines) + "\n"
    ), passed


if __name__ == "__main__":
    main()
