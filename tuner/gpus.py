"""GPUs: what this box has, and the box a study runs on."""

from dataclasses import dataclass

import pynvml

from tuner.config.catalog import load, names
from tuner.config.gpu import Gpu
from tuner.config.plan import Box, Simulation
from tuner.errors import BoxUnusable, ConfigError

SIMULATED_GPUS = 8
DEFAULT_GPU = "h100"
CPU = "cpu"
GIB = 2**30


@dataclass(frozen=True)
class Device:
    """One GPU as its driver names it."""

    index: int
    title: str
    memory_gib: float


def devices() -> list[Device]:
    """The NVIDIA GPUs of this machine; [] where there is no driver."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_device(index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def simulated_box(simulation: Simulation, gpu: str | None, gpus: str | None) -> Box:
    """A simulated box. Raises ConfigError."""
    kind = load(Gpu, gpu or DEFAULT_GPU)
    return Box(kind, chosen_gpus(gpus or str(SIMULATED_GPUS), None), simulation)


def cpu_box() -> Box:
    """This machine's CPU as one slot for a server."""
    return Box(load(Gpu, CPU), (0,), None)


def real_box(found: list[Device], gpus: str | None) -> Box:
    """The GPUs of this machine that the study may use. Raises ConfigError, BoxUnusable."""
    chosen = chosen_gpus(gpus or str(len(found)), len(found))
    kinds = {found[index].title for index in chosen}
    if len(kinds) > 1:
        raise BoxUnusable(f"--gpus: a study needs GPUs of one kind, these are {', '.join(sorted(kinds))}; name which")
    return Box(gpu_of(found[chosen[0]]), chosen, None)


def gpu_of(device: Device) -> Gpu:
    """The catalog's GPU for a device: by name, with the memory that the driver says."""
    for name in names(Gpu):
        if name != CPU and name in device.title.lower().replace(" ", "").replace("-", ""):
            return load(Gpu, name).model_copy(update={"memory_gib": device.memory_gib})
    known = ", ".join(name for name in names(Gpu) if name != CPU)
    raise BoxUnusable(f"{device.title}: a kind of GPU the tuner does not know; it knows {known}")


def chosen_gpus(text: str, available: int | None) -> tuple[int, ...]:
    """`8` → the first eight; `0,1,4-7` → those. Raises ConfigError if there are not so many (None: no bound)."""
    try:
        chosen = tuple(range(int(text))) if text.isdigit() else tuple(_listed(text))
    except ValueError as error:
        raise ConfigError(f"--gpus {text}: write a number (8) or which (0,1,4-7)") from error
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"--gpus {text}: at least one GPU, each named once")
    if available is not None and max(chosen) >= available:
        raise ConfigError(f"--gpus {text}: this box has {available}, numbered from 0")
    return chosen


def _listed(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found += range(int(first), int(last) + 1) if dash else [int(first)]
    return found


def _device(index: int) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory_gib = pynvml.nvmlDeviceGetMemoryInfo(handle).total / GIB
    return Device(index, str(pynvml.nvmlDeviceGetName(handle)), memory_gib)
