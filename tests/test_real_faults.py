"""Real engines that cannot start, are killed, or stop in their tracks, run with `--real-engines`."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from launchers.open import open_target
from launchers.served import ServedTarget
from tests.builders import a_plan
from tests.real_engines import WORKER, processes_of, real_engines, some_requests, without_sglang
from tests.test_supervisor import are_gone
from tuner.config.catalog import load, load_model
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.plan import Box
from tuner.configuration import Configuration
from tuner.errors import FailureKind, ServerFailed
from tuner.target import ClosedLoop, Target, Window

pytestmark = pytest.mark.real_engine

SMALL = {"max_batch_size": 8, "token_budget": 512}
PATIENCE_S = 120.0
FAULTS: dict[str, dict[str, tuple[dict[str, Any], FailureKind, str]]] = {
    "vllm": {
        "unknown flag": ({"extra_flags": ("--swap-space", "4")}, FailureKind.BAD_FLAG, "unrecognized arguments"),
        "impossible value": (
            {"extra_flags": ("--gpu-memory-utilization", "3")}, FailureKind.BAD_FLAG, "less than or equal to 1",
        ),
        "bad combination": ({"token_budget": 4}, FailureKind.BAD_COMBINATION, "max_num_batched_tokens (4) must be"),
        "KV cache above the memory": (
            {"extra_flags": ("--kv-cache-memory-bytes", str(2**42))}, FailureKind.KV_OUT_OF_MEMORY,
            "is less than requested memory for kv",
        ),
        "no such model": ({"path": "/no/such/model"}, FailureKind.MODEL_MISSING, "Repo id must be in the form"),
    },
    "sglang": {
        "unknown flag": ({"extra_flags": ("--swap-space", "4")}, FailureKind.BAD_FLAG, "unrecognized arguments"),
        "bad combination": (
            {"extra_flags": ("--context-length", "999999")}, FailureKind.BAD_COMBINATION, "greater than the derived",
        ),
        "no memory left": (
            {"extra_flags": ("--mem-fraction-static", "0.0001")}, FailureKind.KV_OUT_OF_MEMORY, "memory",
        ),
        "no such model": ({"path": "/no/such/model"}, FailureKind.MODEL_MISSING, ""),
    },
}  # fmt: skip


def open_faulty(
    engine: str, folder: Path, *, path: str = "", extra_flags: tuple[str, ...] = (), **knobs: Any
) -> AbstractContextManager[Target]:
    model = load_model("tiny")
    plan = a_plan(
        model=model.model_copy(update={"path": path}) if path else model,
        engines=(load(EngineSpec, engine),),
        box=Box(load(Gpu, "cpu"), (0,), None),
        extra_flags=extra_flags,
    )
    return open_target(plan, Configuration(engine, SMALL | knobs), (0,), folder)


@real_engines
def test_what_keeps_a_real_engine_from_starting_is_called_by_its_name(engine: str, tmp_path: Path) -> None:
    for number, (fault, (given, kind, evidence)) in enumerate(FAULTS[engine].items()):
        with pytest.raises(ServerFailed) as failed, open_faulty(engine, tmp_path / str(number), **given):
            pass
        print(f"{engine}: {fault}: {failed.value.kind}: {failed.value.fault.before} | {failed.value.fault.evidence}")
        assert failed.value.kind is kind, (fault, str(failed.value))
        assert evidence in failed.value.fault.evidence, fault


@contextmanager
def striking(strike: Callable[[psutil.Process], bool]) -> Iterator[None]:
    """Tries `strike` on every process that is started inside the block, until it says that it has struck."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if strike(child):
                        return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# Not SGLang: it asks itself for two minutes whether it is there before it ends, which is dear here.
def test_a_port_that_is_stolen_while_a_real_engine_starts_is_the_boxs_fault(tmp_path: Path) -> None:
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def steal(process: psutil.Process) -> bool:
            words = process.cmdline()
            if "--port" not in words:
                return False
            thief.bind(("127.0.0.1", int(words[words.index("--port") + 1])))
            thief.listen()
            return True

        with striking(steal), pytest.raises(ServerFailed) as failed, open_faulty("vllm", tmp_path):
            pass
    print(f"port stolen: {failed.value.kind}: {failed.value.fault.evidence}")
    assert failed.value.kind is FailureKind.PORT_IN_USE


@pytest.mark.parametrize(
    ("engine", "name"),
    [("vllm", "EngineCore"), ("vllm", "Worker"), pytest.param("sglang", "scheduler", marks=without_sglang)],
)
def test_a_process_of_a_real_engine_that_is_killed_while_it_starts_is_the_boxs_fault(
    engine: str, name: str, tmp_path: Path
) -> None:
    def kill(process: psutil.Process) -> bool:
        if name not in process.name():
            return False
        process.kill()
        return True

    with striking(kill), pytest.raises(ServerFailed) as failed, open_faulty(engine, tmp_path):
        pass
    print(f"{engine}: {name} killed: {failed.value.kind}: {failed.value.fault}")
    assert failed.value.kind is FailureKind.KILLED


@real_engines
def test_a_real_engine_that_stops_in_its_tracks_hangs_and_one_whose_worker_is_killed_dies(
    engine: str, tmp_path: Path
) -> None:
    for number, kind in ((signal.SIGSTOP, FailureKind.HUNG_UNDER_LOAD), (signal.SIGKILL, FailureKind.KILLED)):
        with open_faulty(engine, tmp_path / number.name) as opened:
            assert isinstance(opened, ServedTarget)
            target = replace(opened, serving=replace(opened.serving, silence_limit_s=3.0, reset_timeout_s=3.0))
            pids = processes_of(target)
            worker = next(pid for pid in pids if WORKER[engine] in psutil.Process(pid).name())
            timer = threading.Timer(1.0, os.kill, (worker, number))
            timer.start()
            with pytest.raises(ServerFailed) as failed:
                target.replay(some_requests(20_000), ClosedLoop(4), Window(0.0, 60.0, 30.0), lambda _log: None)
            timer.join()
        print(f"{engine}: {number.name}: {failed.value.kind}: {failed.value.message} | {failed.value.fault}")
        assert failed.value.kind is kind
        deadline_s = time.monotonic() + PATIENCE_S
        while not are_gone(pids) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert are_gone(pids)
