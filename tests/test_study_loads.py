"""Studies whose workload says how load is offered: all at once, by users, or as a trace came."""

from pathlib import Path

import pytest

from tests import builders
from tests.quickstudies import a_plan, a_run
from tuner import record
from tuner.goodput import level_of
from tuner.target import ClosedLoop, OpenLoop
from tuner.wording.conclusion import cautions


@pytest.mark.parametrize(("arrivals", "attainment", "slo_scale"), [("at_once", 0.0, 10), ("closed", 0.9, 0.6)])
def test_offline_and_closed_loop_workloads_are_valued_too(
    arrivals: str, attainment: float, slo_scale: float, tmp_path: Path
) -> None:
    workload = tmp_path / "workload.yaml"
    workload.write_text(
        f"title: w\nsource: a test\nprompt: {{fixed: 128}}\noutput: {{fixed: 16}}\narrivals: {{kind: {arrivals}}}\n"
    )
    summary = a_run(a_plan(tmp_path, workload=str(workload), trials=2, attainment=attainment, slo_scale=slo_scale))
    assert summary.best is not None and "users" in summary.best.load


def test_a_ramp_keeps_its_best_step_and_measures_it_again(tmp_path: Path) -> None:
    workload = tmp_path / "ramp.yaml"
    workload.write_text(
        "title: w\nsource: a test\nprompt: {fixed: 128}\noutput: {fixed: 16}\n"
        "arrivals: {kind: closed, ramp: {every_s: 1, users: 8}}\n"
    )
    plan = a_plan(tmp_path, workload=str(workload), trials=2)
    summary = a_run(plan)
    first, _ = record.read_outcomes(plan.out)
    assert [probe.load for probe in first.probes] == [ClosedLoop(users) for users in range(1, 9)]
    assert first.best is not None
    assert first.best.goodput_rps == max(one.goodput_rps for one in first.probes if one.attainment >= 0.9)
    assert {run.rate for run in record.read_runs(plan.out)} >= {float(level_of(first.best.load))}
    assert any("too good by chance" in said for said in cautions(summary, plan))


def test_a_trace_is_replayed_at_the_given_multiple_of_its_own_speed(tmp_path: Path) -> None:
    rows = [f"2023-11-16 18:17:{second:02d}.5,256,32" for second in range(41)]
    (tmp_path / "trace.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    workload = tmp_path / "replayed.yaml"
    workload.write_text(
        f"title: w\nsource: a test\ntrace: {tmp_path / 'trace.csv'}\narrivals: {{kind: trace, speed: 2.5}}\n"
    )
    plan = a_plan(tmp_path, workload=str(workload), trials=2)
    assert plan.workload.trace_rate_rps == 1.0
    summary = a_run(plan)
    assert {probe.load for one in record.read_outcomes(plan.out) for probe in one.probes} == {OpenLoop(2.5)}
    assert {run.rate for run in record.read_runs(plan.out)} == {2.5}
    assert summary.best is not None and summary.best.load == {"rate_rps": 2.5}
    assert any("2.5 times its own speed" in said for said in cautions(summary, plan))


@pytest.mark.parametrize("real_text", [True, False])
def test_a_simulation_says_that_it_does_not_know_where_a_model_ends(real_text: bool) -> None:
    plan = builders.a_plan(workload=builders.a_workload().model_copy(update={"real_text": real_text}))
    said = cautions(builders.a_summary(best=builders.a_point(configuration={})), plan)
    assert any("a real model may end them sooner" in one for one in said) == real_text
