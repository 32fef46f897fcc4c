"""A study that was stopped, killed or paused: nothing is lost, and it resumes to the same end."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.processes import until
from tests.quickstudies import a_finished_study, a_plan, a_run, conclusions
from tuner import record
from tuner.config.plan import Plan
from tuner.errors import ConfigError, StudyPaused
from tuner.events import Event, StageEntered, TrialEnded, TrialStarted
from tuner.summary import Summary

WITHIN_S = 60.0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Summary, list[Event]]:
    return a_finished_study(tmp_path_factory.mktemp("finished"))


def a_stopper(after: int) -> Callable[[Event], None]:
    """Ctrl-C when so many trials are done."""

    def listen(event: Event) -> None:
        if isinstance(event, TrialEnded) and event.done == after:
            raise KeyboardInterrupt

    return listen


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
