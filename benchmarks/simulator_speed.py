"""How many requests a second the simulated engine replays in virtual time, on one core.

    taskset -c 0 python benchmarks/simulator_speed.py [--out benchmarks/simulator_speed.md] [--repeats 9]

Qwen2.5-7B on one simulated H100. For open loops the saturated throughput is found first (every request offered at
once), and the workload replayed at 80 % of it. Counted is all that `VirtualTarget.replay` does: the scheduler, the
RequestLog and the eight interim ones that a probe looks at. Not counted: drawing the requests, and the score. Seconds
are those of the processor, since other processes may want the core.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from launchers.sim.speculation import guesses
from launchers.sim.virtual import VirtualTarget, virtual_target
from tuner.config.catalog import load, load_model
from tuner.config.engine import KnobValue
from tuner.config.gpu import Gpu
from tuner.config.workload import Lengths, Workload
from tuner.configuration import Configuration
from tuner.requestlog import RequestLog, Status
from tuner.requests import Requests
from tuner.target import ClosedLoop, Load, OpenLoop, Window
from tuner.workload.build import build

MODEL, GPU, SEED = "qwen-7b", "h100", 20261121
LOAD_FRAC = 0.8
FOR_EVER_S = 1e9
BAR_RPS = 50_000


@dataclass(frozen=True)
class Case:
    """A workload by name, or of fixed lengths; `users` makes it a closed loop."""

    title: str
    workload: str | tuple[int, int]
    requests: int = 4000
    engine: str = "vllm"
    knobs: Mapping[str, KnobValue] = field(default_factory=dict)
    users: int | None = None


CASES = (
    Case("1024 in, 256 out", (1024, 256)),
    Case("1024 in, 256 out, SGLang", (1024, 256), engine="sglang"),
    Case("chat", "chat"),
    Case("chat, n-gram speculation of 3", "chat", knobs={"speculation": "ngram-3"}),
    Case("shared documents (rag)", "rag"),
    Case("agent sessions, 30 users", "agent", requests=1000, users=30),
)


@dataclass(frozen=True)
class Speed:
    """`seconds` of every repetition for `requests` requests and `steps` steps that gave tokens."""

    case: Case
    load: Load
    requests: int
    steps: int
    seconds: tuple[float, ...]


def main() -> None:
    """Measure, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    text = table([measured(case, options.repeats) for case in CASES], options.repeats)
    options.out.write_text(text, encoding="utf-8")
    print(text)


def measured(case: Case, repeats: int) -> Speed:
    workload = a_workload(case)
    settings = Configuration(case.engine, case.knobs)
    target = virtual_target(settings, load_model(MODEL), load(Gpu, GPU), workload.acceptance.ngram)
    requests = build(workload, SEED, case.requests)
    offered: Load = ClosedLoop(case.users) if case.users else OpenLoop(LOAD_FRAC * saturated_rps(target, requests))
    whole_s = replayed(target, requests, offered, FOR_EVER_S)[0].ended_s
    seconds = []
    for _ in range(repeats):
        log, took_s = replayed(target, requests, offered, whole_s)
        seconds.append(took_s)
    assert (log.status == Status.OK).all() and len(log) == len(requests)
    return Speed(case, offered, len(log), len(np.unique(log.chunk_s)), tuple(seconds))


def a_workload(case: Case) -> Workload:
    if isinstance(case.workload, str):
        return load(Workload, case.workload)
    prompt, output = (Lengths(fixed=tokens) for tokens in case.workload)
    return Workload(title="fixed lengths", source="fixed lengths", prompt=prompt, output=output)


def saturated_rps(target: VirtualTarget, requests: Requests) -> float:
    """Completions per second while the queue is full: from one half to nine tenths of them, behind the start."""
    log, _ = replayed(target, requests, OpenLoop(1e6), FOR_EVER_S)
    early_s, late_s = np.quantile(log.ended_at_s, (0.5, 0.9))
    return 0.4 * len(log) / float(late_s - early_s)


def replayed(target: VirtualTarget, requests: Requests, offered: Load, window_s: float) -> tuple[RequestLog, float]:
    """Every request to its end, and the seconds it took here. There are eight interim looks in `window_s`."""
    window = Window(0.0, window_s, FOR_EVER_S)
    guesses.cache_clear()
    started_s = time.process_time()
    log = target.replay(requests, offered, window, lambda log: None)
    return log, time.process_time() - started_s


def table(speeds: list[Speed], repeats: int) -> str:
    """The result as Markdown."""
    rows = "\n".join(
        f"| {speed.case.title} | {_loaded(speed.load)} | {speed.requests / min(speed.seconds):,.0f} "
        f"| {speed.requests / statistics.median(speed.seconds):,.0f} "
        f"| {speed.steps / min(speed.seconds):,.0f} |"
        for speed in speeds
    )
    machine = (
        f"{platform.system()} {platform.machine()}, one core of {os.cpu_count()}, Python {platform.python_version()}"
    )
    return (
        "# Speed of the simulated engine in virtual time\n\n"
        "qwen-7b on a simulated H100, engine defaults; "
        f"open loops (Poisson) at {LOAD_FRAC:.0%} of saturated throughput.\n"
        "Every request to its end, its RequestLog and eight interim ones built; no compiler.\n"
        f"The bar for 1024 in, 256 out is {BAR_RPS:,} requests/s. Best and median of {repeats} repetitions.\n\n"
        f"{machine}; {date.today().isoformat()}; `python benchmarks/simulator_speed.py`\n\n"
        "| | load | requests/s, best | median | steps/s, best |\n|---|---|---|---|---|\n" + rows + "\n"
    )


def _loaded(offered: Load) -> str:
    return f"{offered.rate_rps:.1f} req/s" if isinstance(offered, OpenLoop) else f"{offered.users} users"


if __name__ == "__main__":
    main()
