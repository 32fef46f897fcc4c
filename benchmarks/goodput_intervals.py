"""How often the 95 % intervals of a confirmation hold the truth: it is made again and again, on fresh seeds."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from goodput_cases import CASES, Case, open_case, plan_of
from goodput_truth import Truth, Windows, truth_of

from tuner.evaluate import measure
from tuner.finalists import Finalist, FinalistRun, Value, next_cells, paired_ratio, value_of
from tuner.probe import Prober
from tuner.seeds import Purpose, derive
from tuner.target import Target

SEEDS = 5
TRUTH_TRACES, TRUTH_SURE = (48, 96, 200), 0.005
PAIRS = tuple(
    (next(case for case in CASES if case.name == first), next(case for case in CASES if case.name == second))
    for first, second in (
        (
            "qwen-7b chat 0.9 · vllm token_budget=512 max_batch_size=128",
            "qwen-7b chat 0.9 · vllm token_budget=1024 max_batch_size=256",
        ),
        ("qwen-7b mlperf-8b-server 0.99 · vllm default", "qwen-7b mlperf-8b-server 0.99 · sglang default"),
        ("qwen-7b chat 0 · vllm token_budget=1024 max_batch_size=256", "qwen-7b chat 0 · sglang default"),
    )
)
# The level that a search found is taken to be off by as much as searches are: standard deviation of its logarithm.
SEARCH_ERROR = 0.05


@dataclass(frozen=True)
class Replication:
    """One confirmation of two finalists: their values, and what it cost in windows and server-seconds."""

    values: tuple[Value, Value]
    windows: int
    server_s: float


@dataclass(frozen=True)
class Coverage:
    """Of `what`: how many of `replications` intervals held the truth, and their median half-width (0.05: ±5 %).

    `bounded`: how many gave no interval, only a bound. `bias`: of the estimates, relative to the truth.
    """

    what: str
    replications: int
    holds: float
    half_width: float
    bias: float
    bounded: int


def coverage_of(
    pair: tuple[Case, Case], replications: int, folder: Path, workers: int
) -> tuple[list[Coverage], float]:
    """Coverage for both values and their paired ratio; and the median server-seconds of a confirmation."""
    first, second = (truth_of(Windows(case, folder), TRUTH_TRACES, TRUTH_SURE) for case in pair)
    truths = (first, second)
    with ProcessPoolExecutor(workers) as pool:
        found = list(pool.map(_confirm, [pair] * replications, [truths] * replications, range(replications)))
    rows = [_of_value(pair[i], truths[i], [one.values[i] for one in found]) for i in (0, 1)]
    rows.append(_of_ratio(pair, truths, [one.values for one in found]))
    return rows, float(np.median([one.server_s for one in found]))


def _confirm(pair: tuple[Case, Case], truths: tuple[Truth, Truth], replication: int) -> Replication:
    """What `tuner.confirm` does, without its files: levels added until the edges are bracketed."""
    off = np.random.default_rng(replication).normal(0.0, SEARCH_ERROR, 2)
    values, windows, server_s = [], 0, 0.0
    for number, (case, truth) in enumerate(zip(pair, truths, strict=True)):
        plan, target = plan_of(case), _target(case)
        level = float(f"{truth.level * np.exp(off[number]):.3g}")
        finalist = Finalist(number, level, case.gpus, counted=plan.slo.deciding_requests)
        runs: list[FinalistRun] = []
        since_s = target.clock_s()
        while cells := next_cells(finalist, runs, SEEDS, plan.slo.attainment):
            for cell in cells:
                seed = derive(1000 + replication, Purpose.CONFIRM, cell.replicate)
                prober = Prober(target, plan.workload, plan.slo, seed, stage="confirm", replicate=cell.replicate)
                score = measure(prober, cell.level, cell.counted, plan)
                runs.append(FinalistRun(number, cell.replicate, cell.level, score))
        values.append(value_of(finalist, runs, plan.slo.attainment))
        windows += len(runs)
        server_s += target.clock_s() - since_s
    return Replication((values[0], values[1]), windows, server_s)


@cache
def _target(case: Case) -> Target:
    return open_case(case)


def _of_value(case: Case, truth: Truth, values: Sequence[Value]) -> Coverage:
    true = truth.value_rps / case.gpus
    intervals = [(value.mean, value.ci95) for value in values if value.is_settled and value.ci95]
    return _coverage(case.name, true, [(mean, ci) for mean, ci in intervals if ci], len(values))


def _of_ratio(
    pair: tuple[Case, Case], truths: tuple[Truth, Truth], values: Sequence[tuple[Value, Value]]
) -> Coverage:
    true = truths[1].value_rps / pair[1].gpus / (truths[0].value_rps / pair[0].gpus)
    settled = [two for two in values if all(value.holds and value.is_settled for value in two)]
    ratios = [paired_ratio(second, first)[:2] for first, second in settled]
    return _coverage("ratio of the second to the first", true, ratios, len(values))


def _coverage(what: str, true: float, found: Sequence[tuple[float, tuple[float, float]]], of: int) -> Coverage:
    holds = np.mean([low <= true <= high for _, (low, high) in found])
    half_width = np.median([np.log(high / low) / 2 for _, (low, high) in found])
    bias = np.mean([np.log(mean / true) for mean, _ in found])
    return Coverage(what, len(found), float(holds), float(half_width), float(bias), of - len(found))
