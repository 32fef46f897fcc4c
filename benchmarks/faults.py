"""Faults on order: whole studies in which one thing goes wrong each, and what became of them.

    python benchmarks/faults.py [--only WORD] [--out benchmarks/faults.md]

Every study is a `tune` of three trials on simulated servers in real time (or on a box with fake GPUs), so small that
it takes 20 seconds. The fault strikes the second server unless it says otherwise. A study that pauses is resumed when
what was wrong is mended. Exits 1 unless every fault was called what it is, every study came to its end, no process
was left behind and no finished trial was measured again or lost. Takes about 15 minutes.
"""

import argparse
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
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


def kill(word: str, number: signal.Signals = signal.SIGKILL) -> Callable[[Stage], None]:
    """Signal the first process of the second trial whose command line has `word` in it."""

    def strike(stage: Stage) -> None:
        stage.until(stage.outcomes)
        stage.until(lambda: stage.processes("tuner.load.worker"))
        stage.processes(word)[0].send_signal(number)

    return strike


def stall_worker(stage: Stage) -> None:
    """The load generator does not get the CPU for a while, in every probe of the second trial's first try."""
    stage.until(stage.outcomes)
    stage.until(lambda: stage.processes("tuner.load.worker"))
    (worker,) = stage.processes("tuner.load.worker")
    time.sleep(0.5)
    worker.suspend()
    time.sleep(1.0)
    worker.resume()


def signal_tuner(number: signal.Signals) -> Callable[[Stage], None]:
    def strike(stage: Stage) -> None:
        stage.until(stage.outcomes)
        stage.until(lambda: stage.processes("tuner.load.worker"))
        stage.tuner.send_signal(number)

    return strike


def steal_port(stage: Stage) -> None:
    """Take the port as soon as the first server lets go of it, as a server that somebody starts would."""
    port = int(STOLEN)
    thief = socket.socket()
    stage.opened.enter_context(thief)
    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    stage.until(lambda: stage.processes("tuner.load.worker"))

    def taken() -> bool:
        try:
            thief.bind(("127.0.0.1", port))
            thief.listen()
        except OSError:
            return False
        return True

    stage.until(taken)


def give_back_port(stage: Stage) -> None:
    stage.opened.close()


def no_room_for(name: str) -> Callable[[Path], None]:
    """Writing this file of the second trial fails as on a full disk."""

    def prepare(folder: Path) -> None:
        path = folder / "study" / "trials" / "0001" / name
        path.parent.mkdir(parents=True)
        path.symlink_to("/dev/full")

    return prepare


def no_large_files(stage: Stage) -> None:
    """From the end of the first trial on, the tuner writes nothing beyond the beginning of a file."""
    stage.until(stage.outcomes)
    psutil.Process(stage.tuner.pid).rlimit(psutil.RLIMIT_FSIZE, (SMALL_FILE_BYTES, SMALL_FILE_BYTES))


def room_again(stage: Stage) -> None:
    for path in stage.study.glob("trials/*/*"):
        if path.is_symlink():
            path.unlink()
    for path in stage.study.glob("trials/*/.*"):
        if path.is_symlink():
            path.unlink()


def gpu_box(*gpus: dict[str, Any]) -> Callable[[Path], None]:
    """A box with these GPUs, by a fake driver, and an engine that is simulated behind the real command line."""

    def prepare(folder: Path) -> None:
        (folder / "nvml.json").write_text(json.dumps(gpus))
        engine = folder / "vllm"
        fake = ROOT / "tests" / "fakes" / "gpu_box" / "vllm.py"
        engine.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" "$@"\n')
        engine.chmod(0o755)

    return prepare


def driver_says(gpu: dict[str, Any]) -> Callable[[Stage], None]:
    """What the driver says of the GPU from the end of the first trial on."""

    def strike(stage: Stage) -> None:
        stage.until(stage.outcomes)
        _driver(stage, gpu)

    return strike


def all_well(stage: Stage) -> None:
    _driver(stage, IDLE)


def _driver(stage: Stage, gpu: dict[str, Any]) -> None:
    partial = stage.folder / "nvml.partial"
    partial.write_text(json.dumps([gpu]))
    partial.replace(stage.folder / "nvml.json")


IDLE: dict[str, Any] = {"used_gib": 0.5}
STOLEN = "18653"
SMALL_FILE_BYTES = 16 * 1024
GPU_OPTIONS = ("--model", "qwen-7b", "--engine-bin", "{folder}/vllm")
GPU_ENVIRONMENT = {"PYTHONPATH": "{root}/tests/fakes/gpu_box:{root}", "FAKE_NVML": "{folder}/nvml.json"}
OK = ""


def server(name: str, fault: str, kind: str, state: str = "infeasible", *more: str, **overrides: Any) -> Case:
    """A fault ordered of the second server, and of those behind it as told."""
    return Case(name, kind, state, starts=(OK, fault, *more), **overrides)


CASES = (
    server("no memory for the weights", "oom-at-start", "out-of-memory-weights"),
    server("no memory for the KV cache", "oom-at-kv", "out-of-memory-kv-cache"),
    server("no memory for the graphs", "oom-at-graphs", "out-of-memory-graphs"),
    server("exits at start without a known reason", "exit-at-start", "exited-at-start"),
    server("hangs at start", "hang-at-start", "start-timeout", options=(*SIMULATED, "--start-timeout", "5s")),
    server("drips its health, byte by byte", "drip", "start-timeout", options=(*SIMULATED, "--start-timeout", "5s")),
    server("crashes at its 20th step", "crash-at-step:20", "died-under-load"),
    server("hangs at its 20th step", "hang-at-step:20", "hung-under-load"),
    server("ends every answer at its half", "truncate", "bad-answers"),
    server("breaks off every answer", "cut", "bad-answers"),
    server("sends garbage for events", "garbage", "bad-answers"),
    server("answers HTTP 500", "errors:1", "bad-answers"),
    server("answers HTTP 500 from its 60th request on", "errors:60", "", "measured"),
    server("refuses connections from its 60th request on", "refuse:60", "", "measured"),
    server("GPU lost, by its log, once", "gpu-lost-at-step:20", "gpu-lost", "failed"),
    server(
        "GPU lost, by its log, twice", "gpu-lost-at-step:20", "gpu-lost", "failed", "gpu-lost-at-step:20",
        end="paused",
    ),
    Case("GPU lost while a finalist is measured again", "", "measured", starts=(OK, OK, OK, "gpu-lost-at-step:20")),
    Case(
        "GPU lost while a finalist is measured again, twice", "", "measured", "paused",
        starts=(OK, OK, OK, "gpu-lost-at-step:20", "gpu-lost-at-step:20"),
    ),
    server("SIGKILL, once", "kill-at-step:20", "killed", "failed"),
    server("SIGKILL under one configuration, twice", "kill-at-step:20", "killed", "failed", "kill-at-step:20"),
    Case("SIGKILL of the server from outside", "killed", "failed", strike=kill("launchers.sim.server")),
    Case("SIGKILL of the server's guardian", "killed", "failed", strike=kill("guardian.py")),
    Case("SIGKILL of a load worker", "", "measured", strike=kill("tuner.load.worker")),
    Case("load worker without CPU for 1 s", "", "measured", strike=stall_worker),
    Case("SIGKILL of the tuner", "", "measured", "killed", strike=signal_tuner(signal.SIGKILL)),
    Case("SIGTERM of the tuner", "", "measured", "interrupted", strike=signal_tuner(signal.SIGTERM)),
    Case("Ctrl-C", "", "measured", "interrupted", strike=signal_tuner(signal.SIGINT)),
    Case(
        "port stolen between two trials", "port-in-use", "failed", "paused", strike=steal_port, mend=give_back_port,
        options=(*SIMULATED, "--port", STOLEN),
    ),
    Case(
        "disk full: outcome.json", "", "measured", "paused", prepare=no_room_for(".outcome.json.partial"),
        mend=room_again,
    ),
    Case("disk full: raw timings", "", "measured", prepare=no_room_for("requests.partial"), mend=room_again),
    Case(
        "disk full: server.log", "disk-full", "failed", prepare=no_room_for("server.log"), mend=room_again,
    ),
    Case("disk full: study.db", "", "measured", "paused", strike=no_large_files),
    Case(
        "a GPU in use at the start", "", "-", "refused", options=GPU_OPTIONS, environment=GPU_ENVIRONMENT,
        prepare=gpu_box({"used_gib": 30.5, "processes": [[1, 30.0]]}),
    ),
    Case(
        "somebody computes on the GPU between two trials", "gpu-in-use", "failed", "paused", options=GPU_OPTIONS,
        environment=GPU_ENVIRONMENT, prepare=gpu_box(IDLE), mend=all_well,
        strike=driver_says({"used_gib": 9.0, "processes": [[1, 8.5]]}),
    ),
    Case(
        "GPU memory does not come back", "gpu-in-use", "failed", "paused", options=GPU_OPTIONS,
        environment=GPU_ENVIRONMENT, prepare=gpu_box(IDLE), strike=driver_says({"used_gib": 30.0}), mend=all_well,
    ),
    Case(
        "GPU lost, by its driver", "gpu-lost", "failed", "paused", options=GPU_OPTIONS, environment=GPU_ENVIRONMENT,
        prepare=gpu_box(IDLE), strike=driver_says({"lost": True}), mend=all_well,
    ),
)  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| fault | called | trial | study | resumed | measured | lost | orphans | s | what the user reads |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        said = row.said.replace("|", "·").replace("<", "&lt;")
        mark = "" if row.is_as_intended else " **not as intended**"
        lines.append(
            f"| {row.case.name}{mark} | {row.kind or '-'} | {row.state} | {row.end} | {row.resumed} | "
            f"{row.finished} | {row.lost} | {row.orphans} | {row.took_s:.0f} | {_short(said)} |"
        )
    return "\n".join(lines)


def _short(text: str) -> str:
    plain = re.sub(r"\S*goodtune-fault-\w+/", "", text)
    return plain if len(plain) <= 260 else f"{plain[:257]}..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases with this word in their name")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    # What a shell starts in the background ignores Ctrl-C, and so would the tuners.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rows: list[Row] = []
    for case in CASES:
        if asked.only in case.name:
            rows.append(run_case(case))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    good = sum(row.is_as_intended for row in rows)
    if asked.out:
        about = f"{date.today().isoformat()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        head = f"# Faults\n\nBy `python benchmarks/faults.py`, {about}: {good} of {len(rows)} as intended.\n\n"
        asked.out.write_text(f"{head}{EXPLAINED}\n\n{table(rows)}\n", encoding="utf-8")
    sys.exit(0 if good == len(rows) else 1)


EXPLAINED = """\
Each row is a study of three trials in which the fault strikes the second server, unless it says otherwise. *called*
and *trial*: what the first trial with a failure was called and how it ended (`infeasible`: the configuration's fault,
learned from; `failed`: the box's, tried again; `measured` without a name: the study took it). *measured*: trials with
a value at the end. *lost*: finished trials that were not there, or not the same, after the study was resumed."""


if __name__ == "__main__":
    main()
