"""Probe: how long one lasts. Measured on the simulated engine in virtual time."""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.builders import an_slo
from tuner.cli.planning import Options, plan_from
from tuner.config.plan import Plan
from tuner.config.slo import Limits
from tuner.configuration import Configuration
from tuner.probe import Prober
from tuner.rawlog import write_requests
from tuner.target import ClosedLoop, OpenLoop, Target
from tuner.trial import TrialOrder, open_for

RATE_RPS = 40.0
COUNTED = 100


def a_plan(folder: Path, workload: str = "128x16") -> Plan:
    options = Options("qwen-7b", "chat", workload=workload, simulate="virtual", gpus="1", out=folder / "study")
    return plan_from(options).plan


def a_server(plan: Plan) -> AbstractContextManager[Target]:
    knobs = {"max_batch_size": 64, "token_budget": 2048, "tp": 1}
    return open_for(TrialOrder(plan, 0, Configuration("vllm", knobs), (0,)))


def window_s(folder: Path, limits: Limits, warmup_s: float = 2.0) -> float:
    """The window of a probe of `COUNTED` requests at `RATE_RPS`, which would take 2.75 s."""
    slo = an_slo(limits=limits, attainment=0.9, warmup_s=warmup_s, window_s=10.0, timeout_s=20.0)
    plan = a_plan(folder)
    with a_server(plan) as target:
        prober = Prober(target, plan.workload, slo, seed=1)
        prober.measure(OpenLoop(RATE_RPS), COUNTED)
        return prober.recorded[0].log.window_s


@pytest.mark.parametrize(
    ("limits", "warmup_s", "expected_s"),
    [
        pytest.param(Limits(ttft_s=0.1, itl_s=0.05), 2.0, 2.75, id="as long as its requests take"),
        pytest.param(Limits(ttft_s=0.3), 2.0, 8.0 / 0.9, id="until 3 % too much load breaks it for one in ten"),
        pytest.param(Limits(e2e_s=0.3), 2.0, 8.0 / 0.9, id="where only the whole request is limited too"),
        pytest.param(Limits(ttft_s=0.3), 10.0, 2.75, id="the queue grows while the probe warms up"),
        pytest.param(Limits(ttft_s=5.0), 2.0, 10.0, id="never longer than the window of the SLO"),
        pytest.param(Limits(itl_s=0.1), 2.0, 10.0, id="without a limit on waiting the server has to keep up"),
    ],
)
def test_a_probe_lasts_long_enough_for_an_overload_to_show(
    limits: Limits, warmup_s: float, expected_s: float, tmp_path: Path
) -> None:
    assert window_s(tmp_path, limits, warmup_s) == pytest.approx(expected_s)


def test_a_probe_lasts_until_the_batch_is_full_however_few_requests_it_counts(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, workload="128x400")
    slo = an_slo(limits=Limits(ttft_s=0.05), attainment=0.9, warmup_s=1.0, window_s=60.0, timeout_s=60.0)
    with a_server(plan) as target:
        prober = Prober(target, plan.workload, slo, seed=1)
        idle = prober.idle()
        prober.measure(OpenLoop(RATE_RPS), 10)
    assert idle.e2e_s and idle.ttft_s
    answer_s = idle.e2e_s.p50 - idle.ttft_s.p50
    assert prober.recorded[-1].planned_s == pytest.approx(3 * answer_s - 1.0)


CLOSED_SLO = an_slo(attainment=0.9, warmup_s=1.0, window_s=4.0, timeout_s=20.0)


def of_users(folder: Path) -> Plan:
    """Users who pause for two seconds between turns, so that one of them brings half a request a second at most."""
    workload = folder / "users.yaml"
    workload.write_text(
        "title: w\nsource: a test\nprompt: {fixed: 128}\noutput: {fixed: 16}\narrivals: {kind: closed}\n"
        "turns: {per_session: 50, added_tokens: {fixed: 16}, think_s_mean: 2}\n"
    )
    return a_plan(folder, workload=str(workload))


@pytest.mark.parametrize(
    ("users", "counted", "expected_s"),
    [
        pytest.param(2, 0, 4.0, id="a quick one: the SLO's window, whatever comes in it"),
        pytest.param(2, 8, 8 * 1.1, id="as long as its requests take, pauses included"),
        pytest.param(2, 560, 20.0, id="never longer than five of the SLO's windows"),
        pytest.param(14, 560, 100 / 7, id="never longer than a finalist's, which counts 100"),
        pytest.param(100, 150, 4.0, id="many users bring enough"),
    ],
)
def test_a_probe_of_users_lasts_until_enough_requests_have_come(
    users: int, counted: int, expected_s: float, tmp_path: Path
) -> None:
    plan = of_users(tmp_path)
    with a_server(plan) as target:
        prober = Prober(target, plan.workload, CLOSED_SLO, seed=1)
        prober.idle()
        prober.measure(ClosedLoop(users), counted)
    assert prober.recorded[-1].planned_s == pytest.approx(expected_s, rel=0.12)


def test_how_many_requests_users_bring_is_taken_from_the_probe_of_the_nearest_number(tmp_path: Path) -> None:
    plan = of_users(tmp_path)
    with a_server(plan) as target:
        prober = Prober(target, plan.workload, CLOSED_SLO, seed=1)
        assert prober.expected_rps(ClosedLoop(3)) == 3 / prober.idle_e2e_s, "nothing is known but a guess"
        prober.idle()
        alone = prober.expected_rps(ClosedLoop(3))
        assert alone == pytest.approx(3 / 2.1, rel=0.1)
        for users in (2, 40):
            seen = prober.measure(ClosedLoop(users), 0)
            assert prober.expected_rps(ClosedLoop(users + 1)) == pytest.approx(seen.request_rps * (users + 1) / users)
    prober.turn_s = 5.0
    assert prober.expected_rps(ClosedLoop(40)) == 8.0, "what is known of the server beforehand counts"


def test_all_seeds_of_a_number_of_users_have_windows_of_one_length(tmp_path: Path) -> None:
    plan = of_users(tmp_path)
    with a_server(plan) as target:
        planned = []
        for seed in range(3):
            prober = Prober(target, plan.workload, CLOSED_SLO, seed, stage="confirm", turn_s=2.1)
            prober.measure_whole(ClosedLoop(12), 100)
            planned.append(prober.recorded[-1].planned_s)
    assert planned == pytest.approx([100 * 2.1 / 12] * 3)


def due_of_search_probes(folder: Path, with_idle: bool) -> list[list[float]]:
    """When the requests of two probes at one load were due, on a server that was looked at idle first or not."""
    plan = a_plan(folder)
    with a_server(plan) as target:
        prober = Prober(target, plan.workload, an_slo(window_s=10.0), seed=1)
        if with_idle:
            prober.idle()
        for _ in range(2):
            prober.measure(OpenLoop(RATE_RPS), COUNTED)
        return [one.log.due_s[:50].tolist() for one in prober.recorded if one.stage == "search"]


def test_every_probe_of_a_search_has_a_trace_of_its_own_and_every_server_the_same_ones(tmp_path: Path) -> None:
    first, second = due_of_search_probes(tmp_path, with_idle=True)
    assert first != second
    assert due_of_search_probes(tmp_path, with_idle=False) == [first, second]


def test_a_search_looks_no_further_ahead_than_the_estimand(tmp_path: Path) -> None:
    plan = a_plan(tmp_path)
    with a_server(plan) as target:
        prober = Prober(target, plan.workload, an_slo(attainment=0.9, window_s=10.0), seed=1)
        for rate_rps in (100.0, 2.0):
            prober.measure(OpenLoop(rate_rps), 10_000)
        assert [one.log.window_s for one in prober.recorded] == pytest.approx([10.0, 50.0])


def test_a_window_of_a_recording_in_which_nobody_comes_is_drawn_anew(tmp_path: Path) -> None:
    """Forty minutes of an hour are quiet: two windows in three would be empty, and say nothing of a server."""
    busy = [f"2026-11-16 09:{second // 60:02d}:{second % 60:02d},64,8" for second in range(1200)]
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens", *busy, "2026-11-16 10:00:00,64,8"]
    (tmp_path / "office.csv").write_text("\n".join(rows))
    (tmp_path / "office.yaml").write_text(
        f"title: office\ntrace: {tmp_path / 'office.csv'}\narrivals: {{kind: trace}}\n"
    )
    plan = a_plan(tmp_path, workload=str(tmp_path / "office.yaml"))
    slo = an_slo(limits=Limits(ttft_s=0.3), attainment=0.9, warmup_s=1.0, window_s=20.0, timeout_s=20.0)
    with a_server(plan) as target:
        probers = [Prober(target, plan.workload, slo, seed, stage="confirm") for seed in range(12)]
        counted = [prober.measure_for(OpenLoop(2.0), 20.0).counted for prober in probers]
        assert min(counted) > 0
        write_requests(
            tmp_path / "requests.parquet", [one for prober in probers for one in prober.recorded], with_chunks=False
        )
