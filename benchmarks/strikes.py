"""What strikes a study from outside: signals, a stolen port, a full disk, what a GPU's driver says. For faults.py."""

import json
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from faulty_studies import ROOT, Stage


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
