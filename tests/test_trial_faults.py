"""What becomes of a trial whose server goes wrong: simulated servers in real time, each told to do something else."""

from pathlib import Path

import pytest

from tuner.cli.planning import Options, plan_from
from tuner.config.plan import Plan
from tuner.errors import FailureKind, Interrupted, ServerFailed
from tuner.evaluate import Visit, run_visit
from tuner.events import Event, Note, StageEntered
from tuner.finalists import Cell
from tuner.outcome import Outcome
from tuner.space import spaces_of
from tuner.trial import TrialOrder, run_trial

SLO = """
title: easy
source: a test
workload: {folder}/trace.yaml
attainment: 0.5
limits: {{ttft_s: 5}}
warmup_s: 0.1
window_s: 1
timeout_s: 4
"""
TRACE = "title: steady\nsource: a test\ntrace: {folder}/trace.csv\narrivals: {{kind: trace, speed: 5}}\n"


def a_plan(folder: Path, **overrides: object) -> Plan:
    """A trial of a second, at a given load, without a search; its limit lets the client be late on a busy machine."""
    rows = [f"2026-11-16 18:17:{tenth // 10:02d}.{tenth % 10},64,8" for tenth in range(100)]
    (folder / "trace.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    (folder / "trace.yaml").write_text(TRACE.format(folder=folder))
    (folder / "easy.yaml").write_text(SLO.format(folder=folder))
    typed = {"model": "tiny", "slo": str(folder / "easy.yaml"), "simulate": "served", "gpus": "1"}
    knobs = ("max_batch_size=64", "gpu_memory_utilization=0.9")
    options = {**typed, "knobs": knobs, "out": folder / "study", "trials": 1, **overrides}
    return plan_from(Options(**options)).plan  # type: ignore[arg-type]


def an_order(plan: Plan) -> TrialOrder:
    # With an incumbent there is no warming up with one request at a time.
    return TrialOrder(plan, 0, spaces_of(plan)["vllm"].default, (0,), incumbent_rps_per_gpu=1.0)


def outcome_of(plan: Plan) -> Outcome:
    return run_trial(an_order(plan), lambda _event: None)


@pytest.mark.parametrize(
    ("fault", "kind", "evidence"),
    [
        ("oom-at-kv", FailureKind.KV_OUT_OF_MEMORY, "torch.OutOfMemoryError: CUDA out of memory"),
        ("crash-at-step:20", FailureKind.DIED_UNDER_LOAD, "illegal memory access"),
        ("gpu-lost-at-step:20", FailureKind.GPU_LOST, "uncorrectable ECC error"),
        ("kill-at-step:20", FailureKind.KILLED, "killed by SIGKILL"),
        ("truncate", FailureKind.BAD_ANSWERS, "finish_reason 'abort' with a wrong number of tokens"),
        ("garbage", FailureKind.BAD_ANSWERS, "a chunk is not"),
        ("errors:1", FailureKind.BAD_ANSWERS, "HTTP 500: EngineCore encountered an issue"),
    ],
)
def test_a_fault_is_called_by_its_name_and_told_by_its_log(
    fault: str, kind: FailureKind, evidence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOODTUNE_SIM_FAULT", fault)
    outcome = outcome_of(a_plan(tmp_path))
    assert outcome.failure and outcome.failure.kind is kind
    assert outcome.state == ("failed" if kind.is_box_fault else "infeasible")
    assert evidence in outcome.failure.evidence
    assert outcome.failure.log and Path(outcome.failure.log).is_file()
    assert outcome.cost.total_s > 0


def test_a_log_that_cannot_be_written_is_the_boxs_fault(tmp_path: Path) -> None:
    plan = a_plan(tmp_path)
    folder = plan.out / "trials" / "0000"
    folder.mkdir(parents=True)
    (folder / "server.log").symlink_to("/dev/full")
    outcome = outcome_of(plan)
    assert outcome.failure and outcome.failure.kind is FailureKind.DISK_FULL
    assert "No space left on device" in outcome.failure.evidence


def test_a_trial_whose_raw_timings_find_no_room_is_measured_all_the_same(tmp_path: Path) -> None:
    plan = a_plan(tmp_path, simulate="virtual")
    folder = plan.out / "trials" / "0000"
    folder.mkdir(parents=True)
    (folder / "requests.partial").symlink_to("/dev/full")
    heard: list[Event] = []
    assert run_trial(an_order(plan), heard.append).state == "measured"
    assert any(isinstance(event, Note) and "its raw timings could not be kept" in event.text for event in heard)


def test_a_finalist_that_answers_nothing_as_it_should_has_failed_and_is_not_called_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOODTUNE_SIM_FAULT", "errors:1")
    order = an_order(a_plan(tmp_path))
    with pytest.raises(ServerFailed, match=r"none of .* requests was answered as it should be") as failed:
        list(run_visit(Visit(order, (Cell(0, 0, 50.0, counted=40),)), lambda _event: None))
    assert failed.value.kind is FailureKind.BAD_ANSWERS
    assert list((order.plan.out / "trials" / "0000" / "confirm").glob("*.parquet")), "its raw timings are kept"


def test_what_went_wrong_in_a_finalists_window_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOODTUNE_SIM_FAULT", "errors:30")
    heard: list[Event] = []
    (run,) = run_visit(Visit(an_order(a_plan(tmp_path)), (Cell(0, 0, 50.0, counted=40),)), heard.append)
    assert 0 < run.score.good < run.score.counted
    assert any(isinstance(event, Note) and "t0: some requests failed: HTTP 500" in event.text for event in heard)


def test_ctrl_c_says_what_the_server_had_cost_until_then(tmp_path: Path) -> None:
    def stop_at_the_load(event: Event) -> None:
        if isinstance(event, StageEntered) and event.stage == "probing":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stopped:
        run_trial(an_order(a_plan(tmp_path)), stop_at_the_load)
    assert stopped.value.startup_gpu_s > 0 and stopped.value.measuring_gpu_s >= 0
