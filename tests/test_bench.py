"""Bench: a server that somebody else runs is measured as a trial's is. In virtual time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_score
from tests.fakes import openai_server as fake
from tests.remotes import remote_fake
from tuner.bench import Bench, bench
from tuner.cli.planning import Options, plan_from
from tuner.config.plan import Plan
from tuner.config.workload import Arrivals
from tuner.errors import BoxUnusable, ConfigError
from tuner.space import spaces_of
from tuner.target import ClosedLoop, OpenLoop
from tuner.terminal.benched import benched_text, idle_line, progress_line
from tuner.trial import TrialOrder, open_for, run_trial

SLO = """
title: quick
source: a test
workload: 128x8
attainment: 0.9
limits: {ttft_s: 2.0, tpot_s: 0.5}
warmup_s: 0.2
window_s: 1
timeout_s: 20
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    slo = tmp_path / "quick.yaml"
    slo.write_text(SLO.replace("2.0", "0.3").replace("0.5", "0.02").replace("window_s: 1", "window_s: 4"))
    return plan_from(Options("qwen-7b", str(slo), simulate="virtual", gpus="2", out=tmp_path / "study")).plan


def an_order(plan: Plan) -> TrialOrder:
    default = spaces_of(plan)["vllm"].default
    return TrialOrder(plan, 0, default, plan.box.gpus[: default.gpus])


def test_the_load_search_gives_what_a_trial_on_the_same_server_gives(plan: Plan) -> None:
    order = an_order(plan)
    trial = run_trial(order, lambda event: None)
    with open_for(order) as target:
        found = bench(Bench(plan.workload, plan.slo, plan.seed), target, "vllm", lambda probe: None)
    assert trial.value_rps_per_gpu > 0
    assert found.outcome.value_rps_per_gpu == trial.value_rps_per_gpu
    assert (found.outcome.best, found.outcome.capacity_rps) == (trial.best, trial.capacity_rps)
    assert found.outcome.probes == trial.probes


def test_a_searched_goodput_says_that_it_is_not_confirmed_and_how_to_confirm_it(plan: Plan) -> None:
    order = Bench(plan.workload, plan.slo, seed=3)
    with open_for(an_order(plan)) as target:
        found = bench(order, target, "vllm", lambda probe: None)
    assert found.outcome.best is not None and isinstance(found.outcome.best.load, OpenLoop)
    told = benched_text(found, order)
    assert f"one search, unconfirmed; to confirm: --rate {found.outcome.best.load.rate_rps:.3g} --seed 4" in told
    assert "unconfirmed" not in benched_text(found, replace(order, load=found.outcome.best.load))
    assert max(len(line) for line in told.splitlines() if "--rate" in line) <= 80


def test_a_probe_under_way_says_how_far_it_is() -> None:
    assert progress_line(a_score(8.0, 0.995), 0.25).startswith("8.00 req/s: 25 % of the window, 99.50 % of ")
    idle = replace(a_score(8.0, 0.5), load=ClosedLoop(1), counted=6)
    assert idle_line(idle) == "one at a time: 6 of 12 requests, 50.0 % in SLO so far"


def test_figures_are_for_each_gpu_that_the_server_is_said_to_have(plan: Plan) -> None:
    values = []
    for gpus in (1, 2):
        with open_for(an_order(plan)) as target:
            order = Bench(plan.workload, plan.slo, gpus=gpus, load=OpenLoop(20.0), requests=200)
            values.append(bench(order, target, "vllm", lambda probe: None).outcome.value_rps_per_gpu)
    assert values[1] == pytest.approx(values[0] / 2)


@pytest.mark.parametrize("load_", [OpenLoop(40.0), ClosedLoop(8)], ids=["rate", "users"])
def test_one_load_is_one_whole_probe_of_about_as_many_requests_as_asked_for(
    plan: Plan, load_: OpenLoop | ClosedLoop
) -> None:
    heard: list[str] = []
    with open_for(an_order(plan)) as target:
        order = Bench(plan.workload, plan.slo, load=load_, requests=300)
        found = bench(order, target, "vllm", lambda probe: heard.append(probe.stage))
    assert heard == ["idle", "confirm"]
    (only,) = found.outcome.probes
    assert only.load == load_ and only.stopped is None
    assert only.counted == pytest.approx(300, rel=0.35)


def test_where_no_load_meets_the_slo_the_closest_is_shown(plan: Plan) -> None:
    slo = plan.slo.model_copy(update={"limits": plan.slo.limits.model_copy(update={"ttft_s": 1e-6})})
    order = Bench(plan.workload, slo)
    with open_for(an_order(plan)) as target:
        found = bench(order, target, "vllm", lambda probe: None)
    assert not found.outcome.holds_slo
    assert "no load met the SLO" in benched_text(found, order)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        pytest.param(
            {"load": OpenLoop(2.0), "workload": "batch"}, "all its requests at once", id="offline at a rate"
        ),
        pytest.param({"requests": 10}, "--rate or --users", id="requests of which load"),
    ],
)
def test_orders_that_make_no_sense_are_refused(plan: Plan, order: dict[str, Any], message: str) -> None:
    from tuner.workload.named import load_workload

    workload = load_workload(order.pop("workload", "128x8"))
    with pytest.raises(ConfigError, match=message):
        Bench(workload, plan.slo, **order).check()


def test_a_trace_at_a_given_speed_is_benched_at_that_speed_alone(plan: Plan) -> None:
    replayed = plan.workload.model_copy(update={"arrivals": Arrivals(kind="trace", speed=2.0), "trace_rate_rps": 5.0})
    with open_for(an_order(plan)) as target:
        found = bench(Bench(replayed, plan.slo), target, "vllm", lambda probe: None)
    assert [probe.load for probe in found.outcome.probes] == [OpenLoop(10.0)]


def test_a_server_that_refuses_every_request_is_one_message_that_says_why(plan: Plan) -> None:
    """The fake refuses prompts of this length with HTTP 500."""
    from tuner.workload.named import load_workload

    workload = load_workload(f"{fake.HTTP_500}x4")
    refused = pytest.raises(BoxUnusable, match=r"answers no request .*out of luck")
    with remote_fake() as (_, target), refused:
        bench(Bench(workload, plan.slo, load=OpenLoop(5.0)), target, "vllm", lambda probe: None)
