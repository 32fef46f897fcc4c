"""GPUs: what this box has, and the box a study runs on."""

from collections.abc import Sequence
from dataclasses import dataclass

from launchers.driver import Driver, GpuState, Nvml, Occupant, occupation
from tuner.config.catalog import load, names
from tuner.config.gpu import Gpu
from tuner.config.plan import Box, Simulation
from tuner.errors import BoxUnusable, ConfigError

SIMULATED_GPUS = 8
DEFAULT_GPU = "h100"
CPU = "cpu"


@dataclass(frozen=True)
class Device:
    """One GPU as its driver names it; `used_gib` of its memory are in use, and `occupants` compute on it."""

    index: int
    title: str
    memory_gib: float
    used_gib: float = 0.0
    occupants: tuple[Occupant, ...] = ()

    @property
    def occupation(self) -> str:
        """Who is on it, in words (`is in use by python (pid 7)`); "" if nobody is."""
        return occupation(self.used_gib, self.occupants)


def devices(driver: Driver | None = None) -> list[Device]:
    """The NVIDIA GPUs of this machine; [] where there is no driver. Raises BoxUnusable where one is lost."""
    return [_device(state) for state in (driver or Nvml()).gpus()]


def visible(found: list[Device], wanted: str | None) -> list[Device]:
    """Those of `found` that CUDA_VISIBLE_DEVICES (`0,1`; None: all) leaves to this process. Pure.

    Raises BoxUnusable where it names devices by anything but their numbers.
    """
    if wanted is None or not found:
        return found
    try:
        numbers = [int(part) for part in wanted.split(",") if part.strip()]
    except ValueError as error:
        raise BoxUnusable(f"CUDA_VISIBLE_DEVICES={wanted}: name the GPUs by number, as nvidia-smi does") from error
    return [device for device in found if device.index in numbers]


def simulated_box(simulation: Simulation, gpu: str | None, gpus: str | None) -> Box:
    """A simulated box. Raises ConfigError."""
    kind = load(Gpu, gpu or DEFAULT_GPU)
    return Box(kind, chosen_gpus(gpus or str(SIMULATED_GPUS)), simulation)


def cpu_box() -> Box:
    """This machine's CPU as one slot for a server."""
    return Box(load(Gpu, CPU), (0,), None)


def real_box(found: list[Device], gpus: str | None) -> Box:
    """The GPUs of this machine that the study may use; of a number of them, those that nobody uses.

    Raises ConfigError, and BoxUnusable where somebody uses them: his work would be measured too, and disturbed.
    """
    by_number = {device.index: device for device in found}
    wanted = gpus or str(len(found))
    asked = chosen_gpus(wanted)
    free = [device.index for device in found if not device.occupation]
    chosen = tuple([*free, *by_number.keys() - set(free)])[: len(asked)] if wanted.isdigit() else asked
    if len(chosen) < len(asked) or not set(chosen) <= set(by_number):
        raise ConfigError(f"--gpus {wanted}: this process has {', '.join(map(str, by_number))}")
    kinds = {by_number[index].title for index in chosen}
    if len(kinds) > 1:
        raise BoxUnusable(f"--gpus: a study needs GPUs of one kind, these are {', '.join(sorted(kinds))}; name which")
    gpu = gpu_of(by_number[chosen[0]])
    _refuse_occupied([by_number[index] for index in chosen], len(free))
    return Box(gpu, tuple(sorted(chosen)), None, {index: by_number[index].used_gib for index in sorted(chosen)})


def gpu_of(device: Device) -> Gpu:
    """The catalog's GPU for a device: by name, with the memory that the driver says."""
    for name in names(Gpu):
        if name != CPU and name in device.title.lower().replace(" ", "").replace("-", ""):
            return load(Gpu, name).model_copy(update={"memory_gib": device.memory_gib})
    known = ", ".join(name for name in names(Gpu) if name != CPU)
    raise BoxUnusable(f"{device.title}: a kind of GPU the tuner does not know; it knows {known}")


def chosen_gpus(text: str) -> tuple[int, ...]:
    """`8` → the first eight; `0,1,4-7` → those. Raises ConfigError."""
    try:
        chosen = tuple(range(int(text))) if text.isdigit() else tuple(_listed(text))
    except ValueError as error:
        raise ConfigError(f"--gpus {text}: write a number (8) or which (0,1,4-7)") from error
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"--gpus {text}: at least one GPU, each named once")
    return chosen


def _listed(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found += range(int(first), int(last) + 1) if dash else [int(first)]
    return found


def _refuse_occupied(chosen: Sequence[Device], free: int) -> None:
    taken = [device for device in chosen if device.occupation]
    if taken:
        by_whom = "; ".join(f"GPU {one.index} {one.occupation}" for one in taken)
        instead = f", or leave it with --gpus {free}" if free else ""
        raise BoxUnusable(f"{by_whom}; wait for the end of that{instead}, or simulate with --simulate virtual")


def _device(state: GpuState) -> Device:
    if state.lost:
        raise BoxUnusable(
            f"GPU {state.index}: {state.lost}; look at `dmesg`, then reset the GPU or restart the machine"
        )
    return Device(state.index, state.title, state.memory_gib, state.used_gib, state.occupants)
