"""A study from end to end, in virtual time: what it records and concludes, and that it is reproducible."""

import json
import threading
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pyarrow.parquet as pq
import pytest
from optuna.trial import TrialState

from tests.quickstudies import a_finished_study, a_plan, a_run, conclusions
from tuner import record
from tuner.config.plan import Plan
from tuner.errors import BoxUnusable
from tuner.events import ConfirmProgress, Event, StudyEnded, StudyStarted, TrialEnded
from tuner.rescore import rescore
from tuner.study import StudyOptions, run_study
from tuner.summary import Summary


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Summary, list[Event]]:
    return a_finished_study(tmp_path_factory.mktemp("finished"))


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


def test_a_search_that_is_told_enough_ends_with_what_is_running_and_the_study_concludes(tmp_path: Path) -> None:
    enough = threading.Event()

    def told_at_the_first_end(event: Event) -> None:
        if isinstance(event, TrialEnded):
            enough.set()

    options = StudyOptions(workers=1, seeds=2, enough=enough)
    summary = run_study(a_plan(tmp_path), options, told_at_the_first_end)
    assert summary.trials.total == 1
    assert summary.verdict != "interrupted"


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
