"""The GPU driver, as far as it is asked what a GPU holds and for whom."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import psutil
import pynvml

GIB = 2**30


@dataclass(frozen=True)
class Occupant:
    """A process that computes on a GPU. Its name and its memory there are not always told."""

    pid: int
    name: str = ""
    memory_gib: float | None = None

    def __str__(self) -> str:
        """`python (pid 12, 3.4 GiB)`."""
        memory = f", {self.memory_gib:.1f} GiB" if self.memory_gib is not None else ""
        return f"{self.name or 'a process'} (pid {self.pid}{memory})"


@dataclass(frozen=True)
class GpuState:
    """One GPU now. `lost` is what the driver says of one that it cannot reach any more, '' of any other."""

    index: int
    title: str = ""
    memory_gib: float = 0.0
    used_gib: float = 0.0
    occupants: tuple[Occupant, ...] = ()
    lost: str = ""


# Of an idle GPU the driver keeps well below 1 GiB for itself, a desktop a little more.
IDLE_GIB = 4.0


def occupation(used_gib: float, occupants: Sequence[Occupant]) -> str:
    """Who is on a GPU of whose memory so much is in use, in words that go behind its name; "" if nobody is. Pure.

    Of processes in other containers the driver may tell nothing but their memory.
    """
    if occupants:
        return f"is in use by {', '.join(map(str, occupants))}"
    if used_gib > IDLE_GIB:
        return f"has {used_gib:.1f} GiB in use, and the driver names no process (another container's?)"
    return ""


class Driver(Protocol):
    """What is asked of a GPU driver."""

    def gpus(self) -> list[GpuState]:
        """Every GPU of this machine by number; [] where there is no driver, or none that answers."""


class Nvml:
    """NVIDIA's driver."""

    def gpus(self) -> list[GpuState]:
        """As `Driver.gpus` says."""
        with _nvml() as answers:
            return [_state(index) for index in range(_count())] if answers else []


@contextmanager
def _nvml() -> Iterator[bool]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield False
        return
    try:
        yield True
    finally:
        pynvml.nvmlShutdown()


def _count() -> int:
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def _state(index: int) -> GpuState:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        processes = _processes(handle)
        title = str(pynvml.nvmlDeviceGetName(handle))
    except pynvml.NVMLError as error:
        return GpuState(index, lost=str(error))
    return GpuState(index, title, memory.total / GIB, memory.used / GIB, tuple(map(_occupant, processes)))


def _processes(handle: Any) -> list[Any]:
    """Those that compute on a GPU; none where the driver does not tell, as under WSL or on a virtual GPU."""
    try:
        return list(pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission):
        return []


def _occupant(process: Any) -> Occupant:
    used_bytes = process.usedGpuMemory
    return Occupant(process.pid, _name(process.pid), used_bytes / GIB if used_bytes is not None else None)


def _name(pid: int) -> str:
    """A process of another container has a number here that names nothing, or something else's."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""
