"""A whole study with one fault in it: started, struck, watched to its end, and resumed. For benchmarks/faults.py."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

ROOT = Path(__file__).parent.parent
MARK = "GOODTUNE_FAULT_STUDY"
WITHIN_S = 240.0
LOOK_S = 0.02
SLO = """
title: easy
source: benchmarks/faults.py
workload: trace.yaml
attainment: 0.5
limits: {e2e_s: 5}
warmup_s: 0.1
window_s: 1
timeout_s: 8
"""
TRACE = "title: steady\nsource: benchmarks/faults.py\ntrace: trace.csv\narrivals: {kind: trace, speed: 10}\n"
STUDY = (
    *("--slo", "easy.yaml", "--trials", "3", "--seeds", "2", "--out", "study", "--plain"),
    *("--knob", "max_batch_size=64", "--knob", "speculation=off", "--knob", "prefix_caching=on"),
    *("--knob", "token_budget=1024,2048"),
)
SIMULATED = ("--model", "tiny", "--simulate", "served", "--gpus", "1")

End = Literal["finished", "paused", "refused", "interrupted", "killed"]
EXITS: dict[int, End] = {0: "finished", 4: "finished", 2: "paused", 130: "interrupted", -signal.SIGKILL: "killed"}


@dataclass
class Stage:
    """One study under way: its folder, its process, and what it was told."""

    folder: Path
    tuner: subprocess.Popen[str]
    opened: ExitStack

    @property
    def study(self) -> Path:
        return self.folder / "study"

    def outcomes(self) -> dict[int, dict[str, Any]]:
        """Finished trials by number."""
        paths = sorted(self.study.glob("trials/*/outcome.json"))
        return {int(path.parent.name): json.loads(path.read_bytes()) for path in paths}

    def until(self, holds: Callable[[], object]) -> None:
        """Wait for something to hold; fails where the tuner ends first."""
        while not holds():
            assert self.tuner.poll() is None, "the tuner ended before the fault could strike"
            time.sleep(LOOK_S)

    def processes(self, word: str) -> list[psutil.Process]:
        """Living processes of this study with `word` in their command line."""
        return [process for process, line in marked(self.folder) if word in line]


def nothing(_stage: Stage) -> None:
    """The fault was ordered of the server."""


@dataclass(frozen=True)
class Case:
    """One fault. `starts`: what each server is told to do wrong, in turn. `strike` does it from outside.

    `kind` is what the trial must be called that it strikes, '' where the study or the client takes it without a name;
    `state` how that trial ends. `mend` puts right what was wrong before the study is resumed.
    """

    name: str
    kind: str
    state: str
    end: End = "finished"
    starts: tuple[str, ...] = ()
    strike: Callable[[Stage], None] = nothing
    mend: Callable[[Stage], None] = nothing
    prepare: Callable[[Path], None] = lambda _folder: None
    options: tuple[str, ...] = SIMULATED
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What became of it."""

    case: Case
    kind: str
    state: str
    end: str
    resumed: str
    finished: int
    lost: int
    orphans: int
    said: str
    took_s: float

    @property
    def is_as_intended(self) -> bool:
        came_to_an_end = self.end in {"finished", "refused"} or self.resumed == "finished"
        named = (self.kind, self.state, self.end) == (self.case.kind, self.case.state, self.case.end)
        return named and came_to_an_end and not self.lost and not self.orphans


def run_case(case: Case) -> Row:
    """One study, its fault, and if it stops there its second part."""
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="goodtune-fault-") as name, ExitStack() as opened:
        folder = Path(name)
        _prepare(folder, case)
        stage = Stage(folder, _tune(folder, case), opened)
        try:
            case.strike(stage)
            _, said = stage.tuner.communicate(timeout=WITHIN_S)
        finally:
            stage.tuner.kill()
        end = _end(stage.tuner.returncode, stage)
        before, orphans, resumed = stage.outcomes(), _orphans(folder), "-"
        if end in {"paused", "interrupted", "killed"}:
            case.mend(stage)
            again = _tune(folder, case, "--resume")
            _, more = again.communicate(timeout=WITHIN_S)
            resumed = _end(again.returncode, stage)
            said += more if resumed != "finished" else ""
            orphans += _orphans(folder)
        after = stage.outcomes()
        struck = next((one for one in after.values() if one["failure"]), None)
        lost = sum(after.get(number) != one for number, one in before.items())
        return Row(
            case=case,
            kind=struck["failure"]["kind"] if struck else "",
            state=struck["state"] if struck else "measured" if len(after) >= 3 else "-",
            end=end,
            resumed=resumed,
            finished=sum(one["state"] in {"measured", "pruned"} for one in after.values()),
            lost=lost,
            orphans=orphans,
            said=_telling(said, struck),
            took_s=time.monotonic() - began_s,
        )


def marked(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Living processes that were started for the study in `folder`, with their command lines."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                yield process, " ".join(process.cmdline())
        except psutil.Error:
            continue


def _prepare(folder: Path, case: Case) -> None:
    (folder / "easy.yaml").write_text(SLO)
    (folder / "trace.yaml").write_text(TRACE)
    rows = [f"2026-11-16 18:17:{tenth // 10:02d}.{tenth % 10},64,8" for tenth in range(100)]
    (folder / "trace.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    (folder / "faults").write_text("".join(f"{line}\n" for line in case.starts))
    case.prepare(folder)


def _tune(folder: Path, case: Case, *more: str) -> subprocess.Popen[str]:
    own = {MARK: str(folder), "GOODTUNE_SIM_FAULT": "@faults", "XDG_DATA_HOME": str(folder / "data")}
    own |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    own |= {name: value.format(folder=folder, root=ROOT) for name, value in case.environment.items()}
    options = [option.format(folder=folder) for option in case.options]
    return subprocess.Popen(
        [sys.executable, "-m", "tuner", *options, *STUDY, *more],
        cwd=folder,
        env={**os.environ, **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end(exit_code: int, stage: Stage) -> str:
    if exit_code == 2 and not stage.study.exists():
        return "refused"
    return EXITS.get(exit_code, f"exit {exit_code}")


def _orphans(folder: Path) -> int:
    """What is still there two seconds behind the tuner's end: a guardian may have to kill after a killed tuner."""
    deadline_s = time.monotonic() + 15.0
    while (left := [line for _, line in marked(folder)]) and time.monotonic() < deadline_s:
        time.sleep(LOOK_S)
    return len(left)


def _telling(said: str, struck: dict[str, Any] | None) -> str:
    """The words a user gets: the message the study ended with, else those of the failed trial, else a note's."""
    message = (
        said[said.index("\ntune: ") :].strip() if "\ntune: " in said else said.strip() if "tune: " in said else ""
    )
    if message:
        return " ".join(message.removeprefix("tune: ").split())
    if struck:
        failure = struck["failure"]
        return " | ".join(part for part in (failure["message"], failure["before"], failure["evidence"]) if part)
    notes = re.findall(r'text="(t\d+: .*?)"', said)
    return notes[0] if notes else ""
