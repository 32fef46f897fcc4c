"""What has to be free before a server starts. The GPU driver is a fake one, a value or a module in its place."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from launchers.driver import GpuState, Occupant
from launchers.supervisor import KILLED_WITHIN_S, Guard, running
from launchers.vacancy import Vacancy, remains
from tests.processes import until
from tests.test_supervisor import a_launch
from tuner.errors import FailureKind, Fault, ServerFailed

ROOT = Path(__file__).parent.parent
IDLE = {0: 0.5, 1: 0.5}


class Answers:
    """A driver that gives these answers in turn, the last one for ever."""

    def __init__(self, *answers: Sequence[GpuState]) -> None:
        self._answers = list(answers)

    def gpus(self) -> list[GpuState]:
        return list(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])


def gpu(index: int, used_gib: float = 0.5, **overrides: object) -> GpuState:
    return GpuState(index, "H100", 79.6, used_gib, **overrides)  # type: ignore[arg-type]


def two(second: GpuState) -> list[GpuState]:
    return [gpu(0), second]


def test_a_server_waits_until_the_memory_of_the_one_before_is_back() -> None:
    full, half = gpu(1, 70.0, occupants=(Occupant(7, "python", 69.5),)), gpu(1, 30.0)
    Vacancy(IDLE, Answers(two(full), two(half), two(gpu(1)))).wait()


@pytest.mark.parametrize(
    ("state", "kind", "named"),
    [
        pytest.param(
            gpu(1, 9.0, occupants=(Occupant(7, "python", 8.5), Occupant(8))), FailureKind.GPU_IN_USE,
            r"GPU 1 is in use by python \(pid 7, 8.5 GiB\), a process \(pid 8\)", id="somebody computes there",
        ),
        pytest.param(
            gpu(1, 30.0), FailureKind.GPU_IN_USE,
            "GPU 1: 30.0 GiB are in use, 0.5 GiB were when the study began, and the driver names no process",
            id="memory does not come back",
        ),
        pytest.param(gpu(1, lost="GPU is lost"), FailureKind.GPU_LOST, "GPU 1: GPU is lost", id="lost"),
        pytest.param(gpu(2), FailureKind.GPU_LOST, "GPU 1: the driver does not know it any more", id="gone"),
    ],
)  # fmt: skip
def test_what_is_not_free_in_time_is_a_fault_of_the_box_that_names_who_has_it(
    state: GpuState, kind: FailureKind, named: str
) -> None:
    with pytest.raises(ServerFailed, match=named) as failed:
        Vacancy(IDLE, Answers(two(state)), within_s=0.0).wait()
    assert failed.value.kind is kind and kind.is_box_fault


def test_other_gpus_than_the_servers_own_do_not_matter() -> None:
    busy = gpu(1, 70.0, occupants=(Occupant(7, "python", 69.5),))
    Vacancy({0: 0.5}, Answers(two(busy)), within_s=0.0).wait()
    Vacancy({}, Answers(two(busy)), within_s=0.0).wait()


def test_a_server_that_dies_with_its_gpu_is_not_to_blame() -> None:
    died = ServerFailed(Fault(FailureKind.DIED_UNDER_LOAD, "RuntimeError: CUDA error"), "the server died")
    blamed = Vacancy(IDLE, Answers(two(gpu(1, lost="GPU is lost")))).blamed(died)
    assert blamed.fault == Fault(FailureKind.GPU_LOST, "GPU 1: GPU is lost", "RuntimeError: CUDA error")
    assert Vacancy(IDLE, Answers(two(gpu(1)))).blamed(died) is died


def test_a_server_whose_memory_somebody_else_has_taken_is_not_to_blame() -> None:
    short = ServerFailed(Fault(FailureKind.WEIGHTS_OUT_OF_MEMORY, "CUDA out of memory"), "the server did not start")
    taken = gpu(1, 70.0, occupants=(Occupant(7, "python", 69.5),))
    blamed = Vacancy(IDLE, Answers(two(taken)), within_s=0.0).blamed(short)
    assert blamed.fault == Fault(
        FailureKind.GPU_IN_USE, "GPU 1 is in use by python (pid 7, 69.5 GiB)", "CUDA out of memory"
    )
    # It may take a moment until the driver has noticed that the server itself is gone.
    assert Vacancy(IDLE, Answers(two(taken), two(gpu(1)))).blamed(short) is short
    died = ServerFailed(Fault(FailureKind.DIED_UNDER_LOAD, "KeyError: 'x'"), "the server died")
    assert Vacancy(IDLE, Answers(two(taken)), within_s=0.0).blamed(died) is died


def test_a_server_that_could_not_be_ended_is_named_with_its_memory(tmp_path: Path) -> None:
    guard = Guard(a_launch(tmp_path, "stubborn"))
    pid = guard.server_pid()
    until((tmp_path / "pids").exists)
    # No time at all for its end.
    guard.stop(-KILLED_WITHIN_S)
    try:
        (left,) = remains()
        assert f"(pid {pid}, " in left and "GiB of RAM)" in left
        with pytest.raises(ServerFailed, match="of an earlier server there is still") as failed:
            Vacancy(within_s=0.0).wait()
        assert failed.value.kind is FailureKind.NOT_GONE
    finally:
        os.kill(guard.pid, signal.SIGKILL)
    until(lambda: not remains())
    Vacancy(within_s=0.0).wait()


def test_a_server_that_is_meant_to_be_there_is_no_remains(tmp_path: Path) -> None:
    with running(a_launch(tmp_path, "healthy")):
        Vacancy(within_s=0.0).wait()


def asked_of_nvml(tmp_path: Path, box: object) -> list[str]:
    """The GPUs that NVML shows, a line each."""
    (tmp_path / "nvml.json").write_text(json.dumps(box))
    code = "from launchers.driver import Nvml; print(*Nvml().gpus(), sep='\\n')"
    path = f"{ROOT / 'tests' / 'fakes' / 'gpu_box'}:{ROOT}"
    environment = os.environ | {"PYTHONPATH": path, "FAKE_NVML": str(tmp_path / "nvml.json")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_driver_is_asked_for_memory_processes_and_gpus_that_are_lost(tmp_path: Path) -> None:
    first, second = asked_of_nvml(tmp_path, [{"used_gib": 2, "processes": [[os.getpid(), 1.5]]}, {"lost": True}])
    assert f"used_gib=2.0, occupants=(Occupant(pid={os.getpid()}, name=" in first and "memory_gib=1.5" in first
    assert "lost='GPU is lost'" in second


def test_a_gpu_is_not_lost_whose_driver_does_not_tell_who_computes_on_it(tmp_path: Path) -> None:
    (only,) = asked_of_nvml(tmp_path, [{"used_gib": 2, "processes": None}])
    assert "used_gib=2.0, occupants=(), lost=''" in only


def test_of_a_driver_that_answers_nothing_no_gpu_is_known(tmp_path: Path) -> None:
    assert asked_of_nvml(tmp_path, "broken") == [""]
