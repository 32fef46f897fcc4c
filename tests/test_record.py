"""Record: nothing that was measured is lost, and nobody writes beside us."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import a_calibration, a_crash, a_plan, a_score, an_outcome
from tuner import record
from tuner.errors import BoxUnusable, ConfigError
from tuner.finalruns import FinalistRun
from tuner.health import Health
from tuner.requestlog import ClientHealth

RUN = FinalistRun(3, 0, 8.0, a_score(8.0))


def test_outcomes_come_back_as_they_were_written(tmp_path: Path) -> None:
    client = ClientHealth(0.001, 0.2, 0.4, workers=2, cpu_frac=0.3, voided="late", wake_lag_p99_s=0.004)
    health = Health(client, 1000, 990, 980, reusable_frac=0.5, cached_frac=None)
    outcomes = [an_outcome(0), a_crash(1), an_outcome(2, probes=(a_score(health=health),))]
    for outcome in outcomes:
        record.write_outcome(tmp_path, outcome)
    assert record.read_outcomes(tmp_path) == outcomes


def test_a_line_that_a_crash_cut_off_is_left_out_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    record.append_run(tmp_path, RUN)
    with (tmp_path / "finalists.jsonl").open("ab") as file:
        file.write(b'{"trial": 3, "repl')
    assert record.read_runs(tmp_path) == [RUN]
    with record.locked(tmp_path):
        record.append_run(tmp_path, RUN)
    assert record.read_runs(tmp_path) == [RUN, RUN]


def test_two_tuners_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with (
        record.locked(tmp_path),
        pytest.raises(BoxUnusable, match="another tune is at work"),
        record.locked(tmp_path),
    ):
        pass


def test_the_calibrations_of_a_plan_are_written_down_and_held_to(tmp_path: Path) -> None:
    plan = a_plan(out=tmp_path, calibrations={"vllm": a_calibration()})
    assert record.planned_calibrations(tmp_path) == {}
    record.write_plan(plan)
    assert record.planned_calibrations(tmp_path) == plan.calibrations
    record.check_same_plan(plan)
    other = replace(plan, calibrations={"vllm": a_calibration(decode_scale=1.1)})
    with pytest.raises(ConfigError, match="another calibrations"):
        record.check_same_plan(other)


def test_a_half_written_file_never_takes_the_place_of_a_whole_one(tmp_path: Path) -> None:
    record.write_plan(a_plan(out=tmp_path))
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".partial")]
    record.check_same_plan(a_plan(out=tmp_path))
