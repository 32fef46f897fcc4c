"""The served simulation and virtual time are one engine; benchmarks/served_vs_virtual.py compares them strictly."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from launchers.open import open_target
from tests.builders import a_plan, an_slo
from tuner.config.catalog import load, load_model
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.plan import Box, Simulation
from tuner.config.slo import Limits
from tuner.configuration import Configuration
from tuner.latencies import latencies
from tuner.requestlog import RequestLog, Status
from tuner.target import ClosedLoop, Window
from tuner.workload.build import build
from tuner.workload.named import load_workload

REQUESTS = 24
# A busy machine makes the served one late, never early: the upper bound is wide, the lower one is not.
NEVER_FASTER, SELDOM_SLOWER = 0.9, 3.0


def replayed(how: Simulation, folder: Path) -> RequestLog:
    """24 requests by two users against vLLM's default for llama-8b on a simulated H100."""
    plan = replace(
        a_plan(),
        slo=an_slo(limits=Limits(ttft_s=60.0)),
        model=load_model("llama-8b"),
        engines=(load(EngineSpec, "vllm"),),
        box=Box(load(Gpu, "h100"), (0,), how),
    )
    requests = build(load_workload("2048x24"), seed=3, count=REQUESTS)
    configuration = Configuration("vllm", {"max_batch_size": 8, "token_budget": 512})
    with open_target(plan, configuration, (0,), folder / how) as target:
        return target.replay(requests, ClosedLoop(2), Window(0.0, 60.0, 60.0), lambda _log: None)


def test_the_served_engine_answers_as_the_virtual_one_does_only_in_real_time(tmp_path: Path) -> None:
    virtual, served = replayed("virtual", tmp_path), replayed("served", tmp_path)
    assert len(virtual) == len(served) == REQUESTS
    assert (served.status == Status.OK).all() and (virtual.status == Status.OK).all()
    assert (served.output_tokens == virtual.output_tokens).all()
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        ratio = median(served, metric) / median(virtual, metric)
        assert NEVER_FASTER < ratio < SELDOM_SLOWER, f"{metric}: served/virtual {ratio:.2f}"


def median(log: RequestLog, metric: str) -> float:
    return float(np.median(getattr(latencies(log, ClosedLoop(2)), metric)))
