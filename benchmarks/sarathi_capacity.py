"""The experiment behind `sarathi.py`: rows, workloads and limits in, capacities out.

Capacity is the paper's: the highest Poisson rate at which the P99 of all gaps between tokens (pooled) is within the
limit and the median TTFT within 2 s; its own criterion is the median scheduling delay, which a client does not see.
As in its artifact (osdi-experiments/figure-5-6): 2048 requests a probe, batch 128 (Orca 16), memory share 0.85, and
prefill-first's budget is the longest request. The rate is searched to 1 %; all rows get the same requests.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

from shipped_calibrations import KERNELS

from launchers.sim.calibration import SHIPPED
from launchers.sim.settings import Policy, settings_of
from launchers.sim.steptime import step_time
from launchers.sim.virtual import VirtualTarget, under_policy
from tuner.config.calibration import Calibration
from tuner.config.catalog import load, load_model
from tuner.config.engine import KnobValue
from tuner.config.gpu import Gpu
from tuner.config.slo import Slo
from tuner.config.workload import Workload
from tuner.configuration import Configuration
from tuner.probe import Prober
from tuner.score import Score
from tuner.target import OpenLoop

MODEL, GPU = "mistral-7b", "a100"
LONGEST = {"sarathi-sharegpt": 8192, "sarathi-arxiv": 16384}
LIMITS_S = {"strict": 0.1, "relaxed": 0.5}
WHERE = [(workload, limit) for workload in LONGEST for limit in LIMITS_S]

REQUESTS = 2048
FIRST_SEED = 20240710
BATCH, ORCA_BATCH, MEMORY_FRAC = 128, 16, 0.85
BUDGETS = (256, 512, 1024, 2048, 4096, 8192)
STEP, SLOWEST = 1.01, -300
"""Rates are powers of `STEP`: from 0.05 requests per second."""

SIDE_SEEDS = 2


@dataclass(frozen=True)
class Row:
    """One line of the table: an order of scheduling with its limits. No `budget`: the longest request."""

    name: str
    policy: Policy
    batch: int
    budget: int | None = None


ROWS = (
    Row("prefill-first", "prefill-first", BATCH),
    Row("orca", "orca", ORCA_BATCH),
    *(Row(str(budget), "vllm", BATCH, budget) for budget in BUDGETS),
)


@dataclass(frozen=True)
class Assumptions:
    """What might have been taken differently: what an engine adds to its kernels, the limit on the median TTFT."""

    name: str
    calibration: Calibration = SHIPPED["table"]
    median_ttft_s: float = 2.0


def slower(added_s: float) -> Calibration:
    """The shipped calibration with `added_s` more in every step."""
    shipped = SHIPPED["table"]
    return shipped.model_copy(update={"per_step_s": shipped.per_step_s + added_s})


STATED = Assumptions("as shipped")
# Engines as slow as Sarathi-Serve's may have been; the second that an arXiv prompt itself takes, so that the limit is
# rather one on the delay before it.
OTHERS = (
    Assumptions("kernels alone", KERNELS),
    Assumptions("2 ms more per step", slower(0.002)),
    Assumptions("8 ms more per step", slower(0.008)),
    Assumptions("median TTFT within 3 s", median_ttft_s=3.0),
)


@dataclass(frozen=True)
class Job:
    """The searches of one row under one workload, for so many seeds."""

    row: Row
    workload: str
    seeds: int
    assumed: Assumptions = STATED


Found = dict[tuple[str, str, str, Assumptions], list[float]]
"""(workload, limit, row, assumptions) → the capacity under each seed, requests per second."""


def search_all(seeds: int, workers: int) -> Found:
    """Every row and workload, and the same under other assumptions with fewer seeds."""
    todo = list(_jobs(seeds))
    found: Found = {}
    with ProcessPoolExecutor(workers) as pool:
        for job, capacities in zip(todo, pool.map(search, todo), strict=True):
            for limit, rates_rps in capacities.items():
                found[job.workload, limit, job.row.name, job.assumed] = rates_rps
    return found


def search(job: Job) -> dict[str, list[float]]:
    """The capacity under each limit and seed, requests per second; 0 where even the slowest rate is too much."""
    target = a_target(job)
    workload = load(Workload, job.workload).fitted(LONGEST[job.workload])
    # Nothing stops a probe early, and only a request that outlasts the longest answer many times over is given up.
    slo = load(Slo, "sarathi-strict").model_copy(update={"attainment": 0.0, "warmup_s": 60.0, "timeout_s": 300.0})
    powers = dict.fromkeys(LIMITS_S, 0)
    rates: dict[str, list[float]] = {name: [] for name in LIMITS_S}
    for seed in range(FIRST_SEED, FIRST_SEED + job.seeds):

        @cache
        def probe(power: int, seed: int = seed) -> Score:
            rate_rps = STEP**power
            return Prober(target, workload, slo, seed).measure_for(OpenLoop(rate_rps), REQUESTS / rate_rps)

        for name, limit_s in LIMITS_S.items():
            powers[name] = highest(partial(holds, probe, limit_s, job.assumed), powers[name])
            rates[name].append(STEP ** powers[name] if powers[name] > SLOWEST else 0.0)
    return rates


def a_target(job: Job) -> VirtualTarget:
    """The simulated server of one row."""
    longest = LONGEST[job.workload]
    knobs: dict[str, KnobValue] = {
        "max_batch_size": job.row.batch,
        "token_budget": job.row.budget or longest,
        "gpu_memory_utilization": MEMORY_FRAC,
        "prefix_caching": "off",
    }
    model, gpu = load_model(MODEL), load(Gpu, GPU)
    settings = settings_of(Configuration("vllm", knobs), model, gpu, 0.0, longest)
    steps = step_time(settings, model, gpu, job.assumed.calibration)
    return under_policy(VirtualTarget(settings, steps), job.row.policy)


def highest(holds_at: Callable[[int], bool], near: int) -> int:
    """The highest power that holds: growing strides from `near`, then bisection; SLOWEST if none above it does."""
    low, high, stride = near, near, 2
    if holds_at(near):
        while holds_at(high := low + stride):
            low, stride = high, 4 * stride
    else:
        while high > SLOWEST and not holds_at(low := max(high - stride, SLOWEST)):
            high, stride = low, 4 * stride
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds_at(middle) else (low, middle)
    return low


def holds(probe: Callable[[int], Score], limit_s: float, assumed: Assumptions, power: int) -> bool:
    """Whether a rate is within capacity."""
    score = probe(power)
    if score.missed["failed"] or not score.itl_s or not score.ttft_s:
        return False
    return score.itl_s.p99 <= limit_s and score.ttft_s.p50 <= assumed.median_ttft_s


def _jobs(seeds: int) -> Iterator[Job]:
    for workload in LONGEST:
        for row in ROWS:
            yield Job(row, workload, seeds)
            for assumed in OTHERS:
                yield Job(row, workload, min(seeds, SIDE_SEEDS), assumed)
