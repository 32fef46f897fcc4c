"""Bench: a server that somebody else runs is measured as a trial's is. In virtual time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_score
from tests.fakes import openai_server as fake
from tests.remotes import remote_fake
from tuner.bench import bench
from tuner.benchorder import Bench
from tuner.cli.planning import Options, plan_from
from tuner.config.plan import Plan
from tuner.config.workload import Arrivals, Ramp
from tuner.errors import BoxUnusable, ConfigError, FailureKind, Fault, MeasurementVoid, ServerFailed
from tuner.requestlog import RequestLog
from tuner.requests import Requests
from tuner.space import spaces_of
from tuner.target import ClosedLoop, Load, OpenLoop, Target, Watch, Window
from tuner.terminal.benched import benched_text
from tuner.terminal.benching import idle_line, progress_line
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


class Failing:
    """A target whose replay of this number fails."""

    def __init__(self, target: Target, number: int, failure: Exception) -> None:
        self.reset_cache, self.facts, self.clock_s = target.reset_cache, target.facts, target.clock_s
        self._target, self._left, self._failure = target, number, failure

    def replay(self, requests: Requests, load: Load, window: Window, watch: Watch) -> RequestLog:
        self._left -= 1
        if not self._left:
            raise self._failure
        return self._target.replay(requests, load, window, watch)


LATE = MeasurementVoid("requests left 94 ms late")
GONE = ServerFailed(Fault(FailureKind.DIED_UNDER_LOAD), "http://127.0.0.1:8000: the server is gone")


@pytest.mark.parametrize(
    ("failure", "by", "words"),
    [
        pytest.param(GONE, "server", "the server died", id="it dies"),
        pytest.param(
            MeasurementVoid("requests left 94 ms late"), "client", "ended early", id="the client is too slow"
        ),
    ],
)
def test_what_ends_a_search_leaves_what_finished_probes_say_and_says_at_which_load(
    plan: Plan, failure: Exception, by: str, words: str
) -> None:
    order, heard = Bench(plan.workload, plan.slo), list[Load]()
    with open_for(an_order(plan)) as target:
        dying = Failing(target, 4, failure)
        found = bench(order, dying, "vllm", lambda probe: heard.append(probe.score.load))
    assert found.cut is not None and (found.cut.by, found.cut.why) == (by, str(failure))
    assert [probe.load for probe in found.outcome.probes] == heard[1:] and len(heard) == 3
    assert isinstance(found.cut.load, OpenLoop) and found.cut.load not in heard
    first = benched_text(found, order).splitlines()[0]
    assert first.startswith(f"  {words}".ljust(22) + f"at {found.cut.load.rate_rps:.3g} req/s, after 2 probes")


@pytest.mark.parametrize(("number", "failure"), [(1, GONE), (2, LATE)])
def test_where_nothing_was_measured_it_is_one_message(plan: Plan, number: int, failure: Exception) -> None:
    with open_for(an_order(plan)) as target, pytest.raises(BoxUnusable, match=str(failure)):
        bench(Bench(plan.workload, plan.slo), Failing(target, number, failure), "vllm", lambda probe: None)


def test_a_ramp_of_the_workload_is_one_pass_over_all_numbers_of_users(plan: Plan) -> None:
    ramp = plan.workload.model_copy(update={"arrivals": Arrivals(kind="closed", ramp=Ramp(every_s=2, users=12))})
    heard: list[tuple[str, Load]] = []
    order = Bench(ramp, plan.slo)
    with open_for(an_order(plan)) as target:
        found = bench(order, target, "vllm", lambda probe: heard.append((probe.stage, probe.score.load)))
    assert heard == [("idle", ClosedLoop(1)), ("ramp", ClosedLoop(12, 2.0))]
    assert [probe.load for probe in found.outcome.probes] == [ClosedLoop(users) for users in range(1, 13)]
    assert found.best is not None and found.best == found.outcome.best
    assert found.own_itl_s(found.best) is not None
    told = benched_text(found, order)
    assert "12 users; no higher load that misses it was offered" in told
    assert "best of many short steps; to confirm: --users " in told


def test_a_ramp_of_hours_is_refused(plan: Plan) -> None:
    ramp = plan.workload.model_copy(update={"arrivals": Arrivals(kind="closed", ramp=Ramp(every_s=100, users=100))})
    with open_for(an_order(plan)) as target, pytest.raises(ConfigError, match=r"its window would take 2.8 hours"):
        bench(Bench(ramp, plan.slo), target, "vllm", lambda probe: None)


def test_a_ramp_that_misses_the_slo_holds_up_to_the_last_step_that_did_not(plan: Plan) -> None:
    ramp = plan.workload.model_copy(update={"arrivals": Arrivals(kind="closed", ramp=Ramp(every_s=2, users=100))})
    order = Bench(ramp, plan.slo.model_copy(update={"limits": plan.slo.limits.model_copy(update={"tpot_s": 0.0088})}))
    with open_for(an_order(plan)) as target:
        found = bench(order, target, "vllm", lambda probe: None)
    assert found.edge is not None and found.edge == max(
        probe.load.users
        for probe in found.outcome.probes
        if probe.attainment >= 0.9 and isinstance(probe.load, ClosedLoop)
    )
    assert f"holds up to         {found.edge:.0f} users, the last step that did" in benched_text(found, order)
