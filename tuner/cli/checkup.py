"""`tune doctor`: what this machine can do for a study, in plain words, and what to mend."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from launchers.engines import ENGINES
from launchers.find import find_executable
from launchers.flags import fitted, installed
from tuner.cli.executables import named_places
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.errors import EngineMissing, UserError
from tuner.gpus import devices, gpu_of

GIB = 2**30
ROOM_GIB = 5.0
MARKS = {"good": "✓", "note": "·", "bad": "✗"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    state: Literal["good", "note", "bad"]
    text: str


def print_checkup(executables: tuple[str, ...]) -> int:
    """Print every finding. Returns 0 if a study can run here (a simulated one at least), else 1."""
    console = Console(highlight=False, soft_wrap=True)
    findings = [*_python(), *_gpus(), *_engines(named_places("--engine-bin", executables)), *_folder()]
    for finding in findings:
        console.print(f"{MARKS[finding.state]} {finding.text}", markup=False)
    bad = any(finding.state == "bad" for finding in findings)
    console.print("something needs mending, see ✗" if bad else "ready: tune --model qwen-7b --slo chat", markup=False)
    return 1 if bad else 0


def _python() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    yield Finding("good", f"{cores} CPU core{'s' if cores > 1 else ''} for this process")
    if cores < 4:
        yield Finding("note", "under load the client wants cores of its own: 4 or more beside a real server")


def _gpus() -> Iterator[Finding]:
    found = devices()
    if not found:
        yield Finding("note", "no NVIDIA GPU (no driver): studies are simulated, unless a CPU build of vLLM is named")
    for device in found:
        try:
            gpu = gpu_of(device)
            yield Finding(
                "good", f"GPU {device.index}: {device.title}, {device.memory_gib:.0f} GiB, tuned as {gpu.name}"
            )
        except UserError as unknown:
            yield Finding("bad", f"GPU {device.index}: {unknown}")


def _engines(paths: dict[str, str]) -> Iterator[Finding]:
    for name, engine in ENGINES.items():
        try:
            there = installed(engine, find_executable(engine, paths))
        except EngineMissing as missing:
            yield Finding("note", str(missing))
            continue
        spec, dropped = fitted(load(EngineSpec, name), there)
        yield Finding("good", f"{spec.title} {there.version}: {there.executable}, {len(spec.knobs)} knobs usable")
        for text in dropped:
            yield Finding("note", text)


def _folder() -> Iterator[Finding]:
    folder = Path("results") if Path("results").is_dir() else Path()
    if not os.access(folder, os.W_OK):
        yield Finding("bad", f"{folder.absolute()}: not writable; studies go there unless --out says otherwise")
    free_gib = shutil.disk_usage(folder).free / GIB
    state: Literal["good", "bad"] = "good" if free_gib >= ROOM_GIB else "bad"
    yield Finding(state, f"{free_gib:.0f} GiB free in {folder.absolute()}")
