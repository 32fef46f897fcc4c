"""`tune doctor`: what this machine can do for a study, in plain words, and what to mend."""

import os
import shutil
from collections.abc import Iterator

from rich.console import Console

from launchers.containers import docker_for
from launchers.engine import Engine
from launchers.engines import ENGINES
from launchers.find import find_executable
from launchers.flags import fitted, installed, missing_python
from tuner.cli.executables import named_places
from tuner.cli.machine import Finding, Machine, about, about_driver, look
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.errors import EngineMissing, UserError
from tuner.gpus import Device, devices, gpu_of, visible

MARKS = {"good": "✓", "note": "·", "bad": "✗"}


def print_checkup(executables: tuple[str, ...]) -> int:
    """Print every finding. Returns 0 if a study can run here (a simulated one at least), else 1."""
    console = Console(highlight=False, soft_wrap=True)
    findings = list(_findings(named_places("--engine-bin", executables)))
    for finding in findings:
        console.print(f"{MARKS[finding.state]} {finding.text}", markup=False)
    bad = any(finding.state == "bad" for finding in findings)
    console.print("something needs mending, see ✗" if bad else "ready: tune --model qwen-7b --slo chat", markup=False)
    return 1 if bad else 0


def _findings(paths: dict[str, str]) -> Iterator[Finding]:
    machine = look()
    try:
        found = devices()
    except UserError as lost:
        yield Finding("bad", str(lost))
        found = []
    yield from about(machine, len(found))
    yield from _gpus(machine, found)
    for name, engine in ENGINES.items():
        yield from about_engine(name, engine, paths)
    yield from _docker()


def _gpus(machine: Machine, found: list[Device]) -> Iterator[Finding]:
    try:
        seen = visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))
    except UserError as wrong:
        yield Finding("bad", str(wrong))
        seen = found
    yield from about_driver(machine, len(found), len(seen))
    for device in seen:
        yield from about_gpu(device)


def about_gpu(device: Device) -> Iterator[Finding]:
    """What a study makes of a GPU, and who else is at work on it."""
    try:
        gpu = gpu_of(device)
        yield Finding("good", f"GPU {device.index}: {device.title}, {device.memory_gib:.0f} GiB, tuned as {gpu.name}")
    except UserError as unknown:
        yield Finding("bad", f"GPU {device.index}: {unknown}")
    if device.occupation:
        yield Finding("bad", f"GPU {device.index} {device.occupation}: wait for it, or choose others with --gpus")


def about_engine(name: str, engine: Engine, paths: dict[str, str]) -> Iterator[Finding]:
    """Whether an engine is there, and what it can; if it is there but does not work, why."""
    try:
        executable = find_executable(engine, paths)
    except EngineMissing as missing:
        yield Finding("bad" if name in paths else "note", str(missing))
        return
    python = missing_python(executable)
    if python:
        yield Finding("bad", f"{executable}: its Python, {python}, is gone: the environment was moved; make it anew")
        return
    try:
        there = installed(engine, executable)
    except EngineMissing as broken:
        yield Finding("bad", f"{executable} is there but does not start: {broken}")
        return
    spec, dropped = fitted(load(EngineSpec, name), there)
    untried = ", not run on hardware by us" if spec.hardware == "not-run" else ""
    yield Finding("good", f"{spec.title} {there.version}: {executable}, {len(spec.knobs)} knobs usable{untried}")
    for text in dropped:
        yield Finding("note", text)


def _docker() -> Iterator[Finding]:
    if shutil.which("docker") is None:
        return
    try:
        docker_for("...")
        yield Finding("good", "docker answers: --image runs an engine out of a container")
    except EngineMissing as silent:
        yield Finding("note", f"docker is there, but {str(silent).partition(': ')[2]}")
