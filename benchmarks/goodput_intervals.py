"""How often the 95 % intervals of a confirmation hold the truth: it is made again and again, on fresh seeds."""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
from goodput_cases import CASES, Case, open_case, plan_of
from goodput_truth import Windows, fingerprint, truth_of

from tuner.evaluate import measure
from tuner.finalists import Finalist, next_cells, usual_variance, value_of
from tuner.finalruns import FinalistRun
from tuner.finalvalue import Value, paired_ratio
from tuner.probe import Prober
from tuner.seeds import Purpose, derive
from tuner.target import Target

SEEDS, MORE_SEEDS = 5, 10
TRUTH_TRACES, TRUTH_SURE = (48, 96, 200), 0.005
PAIRS = tuple(
    (next(case for case in CASES if case.name == first), next(case for case in CASES if case.name == second))
    for first, second in (
        (
            "qwen-7b chat 0.9 · vllm token_budget=512 max_batch_size=128",
            "qwen-7b chat 0.9 · vllm token_budget=1024 max_batch_size=256",
        ),
        ("qwen-7b mlperf-8b-server 0.99 · vllm default", "qwen-7b mlperf-8b-server 0.99 · sglang default"),
        ("qwen-7b chat 0 · sglang default", "qwen-7b chat 0 · vllm token_budget=1024 max_batch_size=256"),
        ("qwen-7b code 0.9 · vllm default", "qwen-7b code 0.9 · vllm token_budget=512 max_batch_size=128"),
    )
)
# The level that a search found is taken to be off by as much as searches are: standard deviation of its logarithm.
SEARCH_ERROR = 0.05
# Code that another confirmation would come of; what it measures is in the folder's own name.
CONFIRMED_BY = tuple(
    f"tuner/{name}.py"
    for name in ("crest", "finalists", "finalruns", "finalvalue", "horizon", "latencies", "probe", "score", "stride")
)


Estimate = tuple[float, float, float] | None
"""A value and its 95 % interval; None where there was only a bound."""


@dataclass(frozen=True)
class Replication:
    """One confirmation of two finalists: estimates of the first, of the second, of their ratio; server-seconds."""

    estimates: Sequence[Estimate]
    server_s: float


@dataclass(frozen=True)
class Coverage:
    """Of `what`: which share of `replications` intervals held the truth, and their half-widths (0.05: ±5 %).

    `bounded`: how many gave no interval, only a bound. `bias`: of the estimates, relative to the truth.
    """

    what: str
    replications: int
    holds: float
    half_widths: Sequence[float]
    bias: float
    bounded: int


def coverage_of(
    pair: tuple[Case, Case], seeds: int, replications: int, folder: Path, workers: int
) -> tuple[list[Coverage], float]:
    """Coverage for both values and their paired ratio on `seeds`; the median server-seconds of a confirmation.

    Every replication is kept in a file: the next run goes on from there. `replications` of 0: as many as are kept.
    """
    truths = tuple(truth_of(Windows(case, folder), TRUTH_TRACES, TRUTH_SURE) for case in pair)
    kept = folder / f"intervals-{fingerprint(*CONFIRMED_BY)}-{seeds}-{pair[0].key}-{pair[1].key}.json"
    known: dict[str, Replication] = {}
    if kept.exists():
        known = {number: Replication(**one) for number, one in json.loads(kept.read_text()).items()}
    missing = [number for number in range(replications) if str(number) not in known]
    levels = (truths[0].level, truths[1].level)
    with ProcessPoolExecutor(workers) as pool:
        confirmed = pool.map(_confirm, repeat(pair), repeat(levels), repeat(seeds), missing)
        for number, one in zip(missing, confirmed, strict=False):
            known[str(number)] = one
            kept.write_text(json.dumps({number: asdict(one) for number, one in known.items()}))
    found = list(known.values())[: replications or None]
    values = [truth.value_rps / case.gpus for truth, case in zip(truths, pair, strict=True)]
    names = [f"{name}, {seeds} seeds" for name in (*(case.name for case in pair), "ratio of the second to the first")]
    trues = [*values, values[1] / values[0]]
    rows = [_coverage(names[i], trues[i], [one.estimates[i] for one in found]) for i in range(3)]
    return rows, float(np.median([one.server_s for one in found]))


def _confirm(pair: tuple[Case, Case], true_levels: tuple[float, float], seeds: int, replication: int) -> Replication:
    """What `tuner.confirm` does, without its files: levels added until the edges are bracketed."""
    off = np.random.default_rng(replication).normal(0.0, SEARCH_ERROR, 2)
    values, server_s = [], 0.0
    for number, case in enumerate(pair):
        plan, target = plan_of(case), _target(case)
        level = float(f"{true_levels[number] * np.exp(off[number]):.3g}")
        counted, usual = plan.slo.deciding_requests, usual_variance(plan.workload)
        finalist = Finalist(number, level, case.gpus, counted=counted, usual_variance=usual)
        runs: list[FinalistRun] = []
        since_s = target.clock_s()
        while cells := next_cells(finalist, runs, seeds, plan.slo.attainment):
            for cell in cells:
                seed = derive(1000 + replication, Purpose.CONFIRM, cell.replicate)
                prober = Prober(target, plan.workload, plan.slo, seed, stage="confirm", replicate=cell.replicate)
                score = measure(prober, cell.level, cell.counted, plan)
                runs.append(FinalistRun(number, cell.replicate, cell.level, score))
        values.append(value_of(finalist, runs, plan.slo.attainment))
        server_s += target.clock_s() - since_s
    return Replication((*map(_estimate, values), _ratio(*values)), server_s)


@cache
def _target(case: Case) -> Target:
    return open_case(case)


def _estimate(value: Value) -> Estimate:
    return (value.mean, *value.ci95) if value.is_settled and value.ci95 else None


def _ratio(first: Value, second: Value) -> Estimate:
    if not all(value.holds and value.is_settled for value in (first, second)):
        return None
    ratio, interval, _ = paired_ratio(second, first)
    return (ratio, *interval)


def _coverage(what: str, true: float, found: Sequence[Estimate]) -> Coverage:
    estimates = [one for one in found if one]
    holds = np.mean([low <= true <= high for _, low, high in estimates])
    half_widths = [float(np.log(high / low) / 2) for _, low, high in estimates]
    bias = np.mean([np.log(mean / true) for mean, _, _ in estimates])
    bounded = len(found) - len(estimates)
    return Coverage(what, len(estimates), float(holds), half_widths, float(bias), bounded)
