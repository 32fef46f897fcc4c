"""Small studies of qwen-7b in virtual time, on a simulated box of two H100s."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuner.cli.planning import Options, plan_from
from tuner.config.plan import Plan
from tuner.events import Event
from tuner.record import summary_as_data
from tuner.study import StudyOptions, run_study
from tuner.summary import Summary

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


def a_plan(folder: Path, slo: str = QUICK_SLO, **overrides: Any) -> Plan:
    """A study of ten trials under `slo`, which is put beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quick.yaml").write_text(slo)
    typed = {
        "model": "qwen-7b",
        "slo": str(folder / "quick.yaml"),
        "workload": "256x32",
        "simulate": "virtual",
        "gpus": "2",
        "trials": 10,
    }
    return plan_from(Options(**{**typed, "out": folder / "study", **overrides})).plan  # type: ignore[arg-type]


def a_run(
    plan: Plan, workers: int = 1, *, resume: bool = False, listener: Callable[[Event], None] | None = None
) -> Summary:
    """The study, finalists measured on two fresh seeds."""
    return run_study(plan, StudyOptions(workers, resume, seeds=2), listener or (lambda event: None))


def conclusions(summary: Summary) -> dict[str, Any]:
    """All of a summary but what differs from run to run by right."""
    return {key: value for key, value in summary_as_data(summary).items() if key not in {"cost", "dir", "study"}}


def a_finished_study(folder: Path, slo: str = QUICK_SLO, **overrides: Any) -> tuple[Plan, Summary, list[Event]]:
    """A study that has run: its plan, what it concluded, and all that it told."""
    plan = a_plan(folder, slo, **overrides)
    events: list[Event] = []
    return plan, a_run(plan, listener=events.append), events
