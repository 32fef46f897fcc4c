"""A study from end to end, in virtual time: what it records, that it is reproducible, and that nothing is lost."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pyarrow.parquet as pq
import pytest
from optuna.trial import TrialState

from tests.processes import until
from tuner import record
from tuner.cli.planning import Options, plan_from
from tuner.config.plan import Plan
from tuner.errors import BoxUnusable, ConfigError, StudyPaused
from tuner.events import ConfirmProgress, Event, StageEntered, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from tuner.goodput import level_of
from tuner.record import summary_as_data
from tuner.rescore import rescore
from tuner.study import StudyOptions, run_study
from tuner.summary import Summary
from tuner.target import ClosedLoop, OpenLoop
from tuner.wording.conclusion import cautions

QUICK_SLO = """
title: quick
source: a test
workload: 256x32
attainment: 0.9
limits: {ttft_s: 0.3, tpot_s: 0.012}
warmup_s: 1
window_s: 4
timeout_s: 20
"""
WITHIN_S = 60.0


def a_plan(folder: Path, **overrides: Any) -> Plan:
    """A small study of qwen-7b on a simulated box of two H100s."""
    slo = folder / "quick.yaml"
    slo.write_text(QUICK_SLO)
    typed = {
        "model": "qwen-7b",
        "slo": str(slo),
        "workload": "256x32",
        "simulate": "virtual",
        "gpus": "2",
        "trials": 10,
    }
    return plan_from(Options(**{**typed, "out": folder / "study", **overrides})).plan  # type: ignore[arg-type]


def a_run(
    plan: Plan, workers: int = 1, *, resume: bool = False, listener: Callable[[Event], None] | None = None
) -> Summary:
    return run_study(plan, StudyOptions(workers, resume, seeds=2), listener or (lambda event: None))


def conclusions(summary: Summary) -> dict[str, Any]:
    """All of a summary but what differs from run to run by right."""
    return {key: value for key, value in summary_as_data(summary).items() if key not in {"cost", "dir", "study"}}


def a_stopper(after: int) -> Callable[[Event], None]:
    """Ctrl-C when so many trials are done."""

    def listen(event: Event) -> None:
        if isinstance(event, TrialEnded) and event.done == after:
            raise KeyboardInterrupt

    return listen


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Summary, list[Event]]:
    plan = a_plan(tmp_path_factory.mktemp("finished"))
    events: list[Event] = []
    return plan, a_run(plan, listener=events.append), events


def test_a_study_tries_the_engines_default_first_and_records_every_trial(finished: Any) -> None:
    plan, summary, _ = finished
    outcomes = record.read_outcomes(plan.out)
    assert [outcome.trial for outcome in outcomes] == list(range(10))
    assert [outcome.trial for outcome in outcomes if outcome.configuration.is_default] == [0]
    assert summary.trials.total == 10


def test_a_study_ends_with_a_verdict_a_command_and_a_frontier(finished: Any) -> None:
    _, summary, _ = finished
    assert summary.verdict in {"deploy", "keep-default", "inconclusive"}
    assert summary.best is not None
    assert summary.best.command[:3] == ("vllm", "serve", "Qwen/Qwen2.5-7B-Instruct")
    assert summary.gain is not None and summary.gain.ci95[0] <= summary.gain.ratio <= summary.gain.ci95[1]
    users = [point.tok_s_per_user for point in summary.frontier]
    gpus = [point.throughput_tok_s_per_gpu for point in summary.frontier]
    assert users == sorted(users) and gpus == sorted(gpus, reverse=True) and len(users) > 2


def test_winner_and_default_are_measured_again_on_fresh_seeds(finished: Any) -> None:
    plan, summary, _ = finished
    runs = record.read_runs(plan.out)
    assert {run.replicate for run in runs} == {0, 1}
    assert len({run.trial for run in runs}) == 2
    assert summary.default is not None and summary.default.ci95 is not None


def test_the_folder_holds_what_is_promised(finished: Any) -> None:
    plan, summary, _ = finished
    assert {path.name for path in plan.out.iterdir()} >= {"study.db", "plan.yaml", "summary.json", "trials.csv"}
    assert json.loads((plan.out / "summary.json").read_text())["schema"] == 1
    assert record.read_summary(plan.out) == summary
    assert len(pd.read_csv(plan.out / "trials.csv")) == 10
    requests = pq.read_table(plan.out / "trials" / "0000" / "requests.parquet")
    assert {"due_s", "first_s", "last_s", "status", "itl_p99_s", "rate_rps"} <= set(requests.column_names)


def test_optunas_storage_tells_the_same_story(finished: Any) -> None:
    plan, _, _ = finished
    study = optuna.load_study(study_name=plan.study, storage=f"sqlite:///{plan.out / 'study.db'}")
    assert len(study.trials) == 10
    assert all(trial.state in {TrialState.COMPLETE, TrialState.PRUNED} for trial in study.trials)
    outcomes = record.read_outcomes(plan.out)
    told = {trial.number: trial.value for trial in study.trials if trial.state == TrialState.COMPLETE}
    assert told == {one.trial: pytest.approx(one.value_rps_per_gpu) for one in outcomes if one.state == "measured"}


def test_events_tell_the_study_from_beginning_to_end(finished: Any) -> None:
    _, summary, events = finished
    assert isinstance(events[0], StudyStarted) and events[-1] == StudyEnded(summary)
    assert sum(isinstance(event, TrialEnded) for event in events) == 10
    assert any(isinstance(event, ConfirmProgress) for event in events)


def test_the_same_seed_gives_the_same_summary_with_one_worker_and_with_three(finished: Any, tmp_path: Path) -> None:
    _, summary, _ = finished
    assert conclusions(a_run(a_plan(tmp_path), workers=3)) == conclusions(summary)


def test_an_interrupted_study_concludes_from_what_it_has_and_resumes_to_the_same_end(
    finished: Any, tmp_path: Path
) -> None:
    _, uninterrupted, _ = finished
    plan = a_plan(tmp_path)
    interrupted = a_run(plan, listener=a_stopper(5))
    assert (interrupted.verdict, interrupted.trials.total) == ("interrupted", 5)
    before = record.read_outcomes(plan.out)
    assert conclusions(a_run(plan, resume=True)) == conclusions(uninterrupted)
    assert record.read_outcomes(plan.out)[:5] == before


def test_a_search_that_is_told_enough_ends_with_what_is_running_and_the_study_concludes(tmp_path: Path) -> None:
    enough = threading.Event()

    def told_at_the_first_end(event: Event) -> None:
        if isinstance(event, TrialEnded):
            enough.set()

    options = StudyOptions(workers=1, seeds=2, enough=enough)
    summary = run_study(a_plan(tmp_path), options, told_at_the_first_end)
    assert summary.trials.total == 1
    assert summary.verdict != "interrupted"


def killed_while_asking(plan: Plan, number: int) -> None:
    """Leave the study as a tuner does that is killed over trial `number`, in the midst of asking for a batch."""

    def stop_before_any(event: Event) -> None:
        if isinstance(event, TrialStarted) and event.trial > 0:
            raise KeyboardInterrupt

    a_run(plan, listener=stop_before_any)
    with closing(sqlite3.connect(plan.out / "study.db")) as database, database:
        later = "SELECT trial_id FROM trials WHERE number > ?"
        for table in ("trial_params", "trial_user_attributes", "trial_system_attributes", "trials"):
            database.execute(f"DELETE FROM {table} WHERE trial_id IN ({later})", (number,))
        this_one = "SELECT trial_id FROM trials WHERE number = ?"
        database.execute(f"DELETE FROM trial_user_attributes WHERE trial_id IN ({this_one})", (number,))


def test_a_tuner_killed_while_it_asks_for_a_batch_resumes_to_the_same_end(finished: Any, tmp_path: Path) -> None:
    _, unbroken, _ = finished
    plan = a_plan(tmp_path)
    killed_while_asking(plan, 4)
    assert conclusions(a_run(plan, resume=True)) == conclusions(unbroken)
    assert [outcome.trial for outcome in record.read_outcomes(plan.out)] == list(range(10))


def test_what_a_session_took_is_counted_even_where_ctrl_c_cut_a_server_off(tmp_path: Path) -> None:
    def stop_in_the_third_trial(event: Event) -> None:
        if isinstance(event, StageEntered) and event.trial == 2 and event.stage == "probing":
            raise KeyboardInterrupt

    plan = a_plan(tmp_path, trials=4)
    stopped = a_run(plan, listener=stop_in_the_third_trial)
    finished_gpu_s = sum(one.cost.total_s * one.configuration.gpus for one in record.read_outcomes(plan.out))
    assert stopped.cost.gpu_s > finished_gpu_s
    assert stopped.cost.gpu_s == pytest.approx(stopped.cost.startup_gpu_s + stopped.cost.measuring_gpu_s)
    resumed = a_run(plan, resume=True)
    first, second = record.read_sessions(plan.out)
    assert first.cut_startup_gpu_s > 0 and second.cut_startup_gpu_s == 0
    assert resumed.cost.wall_s == first.wall_s + second.wall_s


def test_a_study_that_finds_no_room_pauses_and_resumes_to_the_same_end(finished: Any, tmp_path: Path) -> None:
    full = tmp_path / "study" / "trials" / "0003" / ".outcome.json.partial"
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    with pytest.raises(StudyPaused, match=r"cannot be written: No space left.*\n.*--resume --out"):
        a_run(a_plan(tmp_path))
    before = record.read_outcomes(tmp_path / "study")
    full.unlink()
    assert conclusions(a_run(a_plan(tmp_path), resume=True)) == conclusions(finished[1])
    assert record.read_outcomes(tmp_path / "study")[: len(before)] == before


def test_a_folder_with_a_study_is_not_overwritten(finished: Any) -> None:
    plan, _, _ = finished
    with pytest.raises(ConfigError, match="there is a study here already; add --resume"):
        a_run(plan)


def test_a_study_is_not_resumed_as_another_one(finished: Any) -> None:
    plan, _, _ = finished
    with pytest.raises(ConfigError, match=r"started with another seed, by: .*; resume it with these options"):
        a_run(a_plan(plan.out.parent, seed=7), resume=True)


def test_a_storage_that_knows_the_study_already_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    a_run(a_plan(tmp_path, storage=storage, trials=1))
    elsewhere = a_plan(tmp_path, storage=storage, trials=1, out=tmp_path / "elsewhere" / "study")
    with pytest.raises(ConfigError, match="it has a study named study; name --out anew"):
        a_run(elsewhere)
    assert not (elsewhere.out / "plan.yaml").exists(), "a study that did not begin is not there to be resumed"


def test_a_tuner_killed_before_it_had_a_database_is_resumed(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, trials=1)
    record.prepare(plan.out, resume=False)
    record.write_plan(plan)
    assert a_run(plan, resume=True).trials.total == 1


def test_trials_whose_database_is_lost_are_not_measured_over(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, trials=1)
    a_run(plan)
    (plan.out / "study.db").unlink()
    with pytest.raises(ConfigError, match=r"it has trials up to t0, but .*study.db knows 0"):
        a_run(plan, resume=True)


def test_there_must_be_a_study_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no study here to resume"):
        a_run(a_plan(tmp_path), resume=True)


def test_an_unwritable_folder_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("a file is in the way")
    with pytest.raises(BoxUnusable, match="cannot be written"):
        a_run(a_plan(tmp_path))


def test_a_configuration_that_does_not_fit_is_infeasible_and_the_study_goes_on(tmp_path: Path) -> None:
    knobs = ("gpu_memory_utilization=0.2,0.9", "tp=1", "max_batch_size=64,128")
    summary = a_run(a_plan(tmp_path, knobs=knobs, trials=8))
    outcomes = record.read_outcomes(tmp_path / "study")
    crashed = [outcome for outcome in outcomes if outcome.state == "infeasible"]
    assert crashed and all(
        outcome.failure and outcome.failure.kind == "out-of-memory-kv-cache" for outcome in crashed
    )
    assert summary.trials.infeasible == len(crashed) and summary.best is not None


def test_both_engines_stand_in_one_study(tmp_path: Path) -> None:
    a_run(a_plan(tmp_path, engines="vllm,sglang", trials=12))
    outcomes = record.read_outcomes(tmp_path / "study")
    assert [one.configuration.engine for one in outcomes[:2]] == ["vllm", "sglang"]
    assert all(one.configuration.is_default for one in outcomes[:2])
    assert {one.command[0] for one in outcomes[2:]} == {"vllm", "sglang"}


def test_an_slo_that_nothing_meets_is_a_finding(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, slo_scale=0.01, trials=4)
    summary = a_run(plan)
    assert (summary.verdict, summary.best, summary.default, summary.gain) == ("nothing-meets-slo", None, None, None)
    needed = [one.needed_scale for one in record.read_outcomes(plan.out)]
    assert all(scale and scale > 1 for scale in needed)
    assert needed == [one.needed_scale for one in rescore(plan.out, plan.slo).outcomes], "from the stored timings too"


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


def test_a_killed_tuner_leaves_no_worker_and_resumes_with_every_finished_trial(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, trials=24)
    command = [sys.executable, "-m", "tuner", "--model", "qwen-7b", "--slo", str(tmp_path / "quick.yaml"), "--plain",
               "--workload", "256x32", "--gpus", "2", "--simulate", "virtual", "--trials", "24", "--workers", "2",
               "--out", str(plan.out)]  # fmt: skip
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until(lambda: len(list(plan.out.glob("trials/*/outcome.json"))) >= 3)
    killed.kill()
    killed.wait(WITHIN_S)
    until(lambda: not group_lives(killed.pid))
    before = record.read_outcomes(plan.out)
    a_run(plan, resume=True)
    after = record.read_outcomes(plan.out)
    assert after[: len(before)] == before
    assert [outcome.trial for outcome in after] == list(range(24))


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True
