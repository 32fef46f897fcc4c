"""The plain view: one line per event, UTC, key=value, for logs, pipes and CI. No escape codes."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

from tuner.config.plan import Plan
from tuner.configuration import Configuration
from tuner.events import (
    ConfirmProgress,
    Event,
    Listener,
    Note,
    ProbeProgress,
    StageEntered,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialStarted,
)
from tuner.outcome import Outcome
from tuner.summary import Summary
from tuner.target import ClosedLoop, Load
from tuner.terminal.progress import Progress, advanced, beginning
from tuner.wording.naming import differences, trial_name, value_text
from tuner.wording.numbers import duration, number

HEARTBEAT_S = 60.0
NEEDS_QUOTES = frozenset(" \"'=\t")


@contextmanager
def plain_view(plan: Plan, stream: TextIO, heartbeat_s: float = HEARTBEAT_S) -> Iterator[Listener]:
    """A listener that writes lines to `stream`, and a heartbeat where nothing was written for `heartbeat_s`."""
    log = _Log(plan, stream)
    silence_ends = threading.Event()
    beating = threading.Thread(target=log.beat, args=(silence_ends, heartbeat_s), daemon=True)
    beating.start()
    try:
        yield log.hear
    finally:
        silence_ends.set()
        beating.join()


def event_line(event: Event, progress: Progress) -> str:
    """`trial.measured n=24 id=t24 …` for what is worth a line, else nothing. `progress` is that after the event."""
    name: str = ""
    values: dict[str, object] = {}
    match event:
        case StudyStarted(plan, resumed):
            name, values = "study.start", {**_study(plan), "resumed": resumed or None}
        case TrialStarted(trial, configuration):
            name, values = "trial.start", _beginning(trial, configuration, progress)
        case TrialEnded(outcome):
            name, values = f"trial.{outcome.state}", _outcome(outcome, progress)
        case ConfirmProgress(done, total, what):
            name, values = "confirm", {"done": done, "total": total, "what": what}
        case Note(text, log):
            name, values = "note", {"text": text, "log": log}
        case StudyEnded(summary):
            name, values = "study.done", _conclusion(summary)
        case StageEntered() | ProbeProgress():
            pass
    return fields(name, values) if name else ""


def heartbeat(progress: Progress, elapsed_s: float) -> str:
    """What is going on, where nothing else had to be said for a while."""
    running = next(iter(progress.running.values()), None)
    facts = {
        "done": progress.done,
        "id": trial_name(running.trial) if running else None,
        "stage": running.stage if running else None,
        **(_load(running.load) if running and running.load else {}),
        "progress": number(running.done_frac, 2) if running and running.done_frac else None,
        "elapsed": duration(elapsed_s),
    }
    return fields("heartbeat", {**facts, **_best(progress)})


def fields(name: str, values: Mapping[str, object]) -> str:
    """An event's name and its `key=value`s, quoted where they hold blanks; values that are None are left out."""
    return " ".join(
        [f"{name:<16}", *(f"{key}={_quoted(value)}" for key, value in values.items() if value is not None)]
    )


class _Log:
    """A stream that the study and the heartbeat both write to."""

    def __init__(self, plan: Plan, stream: TextIO) -> None:
        self._stream = stream
        self._progress = beginning(plan)
        self._began = self._spoke = time.perf_counter()
        self._lock = threading.Lock()
        # GitHub folds what stands between these lines; trials side by side cannot be folded.
        self._folds = os.environ.get("GITHUB_ACTIONS") == "true" and plan.box.simulation != "virtual"

    def hear(self, event: Event) -> None:
        with self._lock:
            self._progress = advanced(self._progress, event, time.perf_counter() - self._began)
            line = event_line(event, self._progress)
            if self._folds and isinstance(event, TrialStarted):
                self._stream.write(f"::group::{trial_name(event.trial)}\n")
            if line:
                self._write(line)
            if self._folds and isinstance(event, TrialEnded):
                self._stream.write("::endgroup::\n")

    def beat(self, silence_ends: threading.Event, heartbeat_s: float) -> None:
        """Runs in its own thread until `silence_ends`."""
        while not silence_ends.wait(max(0.0, self._spoke + heartbeat_s - time.perf_counter())):
            with self._lock:
                now = time.perf_counter()
                if now - self._spoke >= heartbeat_s:
                    self._write(heartbeat(self._progress, now - self._began))

    def _write(self, line: str) -> None:
        self._stream.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n")
        self._stream.flush()
        self._spoke = time.perf_counter()


def _study(plan: Plan) -> dict[str, object]:
    return {
        "id": plan.study,
        "model": plan.model.name,
        "slo": plan.slo.name,
        "engines": ",".join(engine.name for engine in plan.engines),
        "box": plan.box.title,
        "simulated": plan.box.simulation,
        "trials": plan.trials,
        "budget": duration(plan.budget_s) if plan.budget_s is not None else None,
        "seed": plan.seed,
    }


def _beginning(trial: int, configuration: Configuration, progress: Progress) -> dict[str, object]:
    changed = differences(progress.naming, configuration.engine, configuration.knobs)
    diff = " ".join(f"{knob}={value_text(value)}" for knob, value in changed.items()) or "default"
    return {"id": trial_name(trial), "engine": configuration.engine, "diff": diff}


def _outcome(outcome: Outcome, progress: Progress) -> dict[str, object]:
    best, failure = outcome.best, outcome.failure
    return {
        "n": progress.done,
        "id": trial_name(outcome.trial),
        "goodput_rps_per_gpu": number(outcome.value_rps_per_gpu) if outcome.state == "measured" else None,
        "in_slo": number(best.attainment, 4) if best else None,
        "ttft_p99_s": number(best.ttft_s.p99) if best and best.ttft_s else None,
        "tpot_p99_s": number(best.tpot_s.p99) if best and best.tpot_s else None,
        "reason": failure.kind if failure else None,
        "said": failure.evidence or None if failure else None,
        "before": failure.before or None if failure else None,
        "log": failure.log if failure else None,
        **_best(progress),
    }


def _best(progress: Progress) -> dict[str, object]:
    best = progress.best
    if best is None or not best.holds_slo:
        return {}
    return {"best": trial_name(best.trial), "best_goodput": number(best.value_rps_per_gpu)}


def _load(load: Load) -> dict[str, object]:
    return {"users": load.users} if isinstance(load, ClosedLoop) else {"rate_rps": number(load.rate_rps)}


def _conclusion(summary: Summary) -> dict[str, object]:
    best, gain = summary.best, summary.gain
    return {
        "verdict": summary.verdict,
        "how_sure": summary.how_sure,
        "best": trial_name(best.trial) if best else None,
        "goodput_rps_per_gpu": number(best.goodput_rps_per_gpu) if best else None,
        "gain": number(gain.ratio) if gain else None,
        "gain_ci95": f"{number(gain.ci95[0])}..{number(gain.ci95[1])}" if gain else None,
        "why": summary.why,
        "dir": summary.dir,
    }


def _quoted(value: object) -> str:
    text = " ".join(str(value).split())
    if text and NEEDS_QUOTES.isdisjoint(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
