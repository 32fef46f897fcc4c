"""Vacancy: before a server starts, everything that an earlier one held is free again, or somebody is named."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import psutil

from launchers.driver import GIB, Driver, GpuState, Nvml
from launchers.supervisor import GIVEN_UP
from tuner.errors import FailureKind, Fault, ServerFailed

POLL_S = 0.2
WITHIN_S = 60.0
# A driver's own needs vary by about as much.
SLACK_GIB = 1.0


@dataclass(frozen=True)
class Vacancy:
    """What has to be free. `idle_gib`: GPU → what was in use on it when the study began; {} without GPUs."""

    idle_gib: Mapping[int, float] = field(default_factory=dict)
    driver: Driver = field(default_factory=Nvml)
    within_s: float = WITHIN_S

    def wait(self) -> None:
        """Return when processes and memory of earlier servers are gone. Raises ServerFailed, naming who is not."""
        fault = self._persisting(self._fault)
        if fault:
            raise ServerFailed(fault, "no server was started")

    def blamed(self, failed: ServerFailed) -> ServerFailed:
        """The failure of a server that has ended, or of the box: an engine only says that something broke.

        Its GPU may be lost, or somebody else may have taken the memory that ran out.
        """
        if failed.kind.is_box_fault:
            return failed
        fault = self._persisting(self._taken_gpu) if failed.kind.is_of_memory else self._lost_gpu()
        if fault is None:
            return failed
        return ServerFailed(replace(fault, before=failed.fault.evidence), failed.message, failed.log)

    def _persisting(self, look: Callable[[], Fault | None]) -> Fault | None:
        """What `look` still finds when the time is over; None as soon as it finds nothing. A lost GPU stays lost."""
        deadline_s = time.monotonic() + self.within_s
        while fault := look():
            if fault.kind is FailureKind.GPU_LOST or time.monotonic() >= deadline_s:
                return fault
            time.sleep(POLL_S)
        return None

    def _fault(self) -> Fault | None:
        left = remains()
        if left:
            still = f"of an earlier server there is still {'; '.join(left)}, {self.within_s:g} s behind its end"
            return Fault(FailureKind.NOT_GONE, still)
        return self._taken_gpu()

    def _taken_gpu(self) -> Fault | None:
        taken = [text for state in self._gpus() for text in self._taken(state)]
        return self._lost_gpu() or (Fault(FailureKind.GPU_IN_USE, "; ".join(taken)) if taken else None)

    def _lost_gpu(self) -> Fault | None:
        lost = next(self._lost_gpus(), None)
        return Fault(FailureKind.GPU_LOST, lost) if lost else None

    def _gpus(self) -> list[GpuState]:
        return [state for state in self.driver.gpus() if state.index in self.idle_gib] if self.idle_gib else []

    def _lost_gpus(self) -> Iterator[str]:
        found = {state.index: state for state in self._gpus()}
        for index in self.idle_gib:
            if index not in found:
                yield f"GPU {index}: the driver does not know it any more"
            elif found[index].lost:
                yield f"GPU {index}: {found[index].lost}"

    def _taken(self, state: GpuState) -> Iterator[str]:
        if state.occupants:
            yield f"GPU {state.index} is in use by {', '.join(map(str, state.occupants))}"
        elif state.used_gib > self.idle_gib[state.index] + SLACK_GIB:
            yield (
                f"GPU {state.index}: {state.used_gib:.1f} GiB are in use, {self.idle_gib[state.index]:.1f} GiB were "
                "when the study began, and the driver names no process"
            )


def remains() -> list[str]:
    """What of this process's earlier servers has not ended, though it got SIGKILL; [] when all are gone."""
    GIVEN_UP[:] = [guardian for guardian in GIVEN_UP if guardian.poll() is None]
    found = [_described(process) for guardian in GIVEN_UP for process in _descendants(guardian.pid)]
    return [text for text in found if text]


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _described(process: psutil.Process) -> str:
    try:
        with process.oneshot():
            return (
                f"{process.name()} (pid {process.pid}, {process.status()}, "
                f"{process.memory_info().rss / GIB:.1f} GiB of RAM)"
            )
    except psutil.Error:
        return ""
