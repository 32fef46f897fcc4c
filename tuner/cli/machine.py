"""What of this machine a study on real engines rests on, looked up; and what is wrong with it, in plain words."""

import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

from launchers.ports import HOST

GIB = 2**30
# Engines on several GPUs talk through shared memory; docker gives a container 64 MiB of it.
SHARED_MEMORY_GIB = 1.0
# A request under load is an open file here, and one more at the server.
OPEN_FILES, FEWEST_OPEN_FILES = 8192, 1024
PORTS = 4096
MEMORY_GIB = 8.0
ROOM_GIB, MODEL_ROOM_GIB, SCRATCH_ROOM_GIB = 5.0, 20.0, 1.0
NVIDIA = "0x10de"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    state: State
    text: str


@dataclass(frozen=True)
class Machine:
    """This machine. GiB and counts; `rooms` are free GiB by folder; `hub` is the folder of the Hugging Face cache and
    `hub_models` how many models are in it; `nvidia` are the NVIDIA GPUs on the bus, whatever a driver says."""

    cores: int = 64
    memory_gib: float = 512.0
    shared_memory_gib: float = 64.0
    open_files: int = 1_048_576
    ports: int = 28_232
    loopback: bool = True
    results: str = "results"
    results_writable: bool = True
    rooms: Mapping[str, float] = field(default_factory=dict)
    scratch: str = "/tmp"
    hub: str = "~/.cache/huggingface"
    hub_models: int = 0
    hub_writable: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    nvidia: int = 0
    driver: bool = False


def look() -> Machine:
    """The machine this runs on."""
    results = Path("results") if Path("results").is_dir() else Path()
    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    scratch = Path(tempfile.gettempdir())
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        memory_gib=psutil.virtual_memory().available / GIB,
        shared_memory_gib=_total_gib(Path("/dev/shm")),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        ports=_ports(),
        loopback=_has_loopback(),
        results=str(results.absolute()),
        results_writable=os.access(results, os.W_OK),
        rooms={str(folder.absolute()): _free_gib(folder) for folder in (results, hub, scratch)},
        scratch=str(scratch.absolute()),
        hub=str(hub.absolute()),
        hub_models=len(list((hub / "hub").glob("models--*"))),
        hub_writable=os.access(_existing(hub), os.W_OK),
        environment=dict(os.environ),
        nvidia=_nvidia_on_the_bus(),
        driver=Path("/proc/driver/nvidia/version").exists(),
    )


def about(machine: Machine, gpus: int) -> Iterator[Finding]:
    """What is to be said of `machine`, whose driver shows `gpus` GPUs. What only real engines need is bad where there
    are GPUs, and worth a word where there are none. Pure."""
    needed: State = "bad" if gpus else "note"
    yield from _computing(machine, needed)
    yield from _files(machine, needed)
    yield from _network(machine)


def about_driver(machine: Machine, gpus: int, visible: int) -> Iterator[Finding]:
    """Why there are fewer GPUs to use than there might be. Pure."""
    if machine.nvidia and not gpus and not machine.driver:
        yield Finding("bad", f"{machine.nvidia} NVIDIA GPU(s) on the bus, but no driver is loaded: install NVIDIA's")
    elif machine.driver and not gpus:
        why = "as after an upgrade without a restart, or in a container started without --gpus all"
        yield Finding("bad", f"an NVIDIA driver is loaded, but shows no GPU ({why}); `nvidia-smi` says more")
    elif not gpus:
        yield Finding("note", "no NVIDIA GPU: studies are simulated, unless a CPU build of an engine is named")
    elif visible < gpus:
        value = machine.environment.get("CUDA_VISIBLE_DEVICES", "")
        state: State = "note" if visible else "bad"
        yield Finding(
            state, f"CUDA_VISIBLE_DEVICES={value} leaves {visible} of {gpus} GPUs; unset it to use them all"
        )


def _computing(machine: Machine, needed: State) -> Iterator[Finding]:
    yield Finding("good", f"{machine.cores} CPU core{'s' if machine.cores > 1 else ''} for this process")
    if machine.cores < 4:
        yield Finding("note", "under load the client wants cores of its own: 4 or more beside a real server")
    if machine.memory_gib < MEMORY_GIB:
        yield Finding(
            "note",
            f"{machine.memory_gib:.1f} GiB of memory left: engines read weights through it, and the kernel kills "
            "what takes too much",
        )
    if machine.shared_memory_gib < SHARED_MEMORY_GIB:
        yield Finding(
            needed,
            f"/dev/shm has {machine.shared_memory_gib * 1024:.0f} MiB: engines on several GPUs talk through it and "
            "die without; in a container give --shm-size=8g or --ipc=host",
        )
    if machine.open_files < OPEN_FILES:
        state: State = "bad" if machine.open_files < FEWEST_OPEN_FILES else "note"
        yield Finding(
            state,
            f"{machine.open_files} open files at most: a load of many requests needs more; `ulimit -n 65536` in this "
            "shell",
        )


def _files(machine: Machine, needed: State) -> Iterator[Finding]:
    if not machine.results_writable:
        yield Finding("bad", f"{machine.results}: not writable; studies go there unless --out says otherwise")
    free_gib = machine.rooms.get(machine.results, ROOM_GIB)
    yield Finding("good" if free_gib >= ROOM_GIB else "bad", f"{free_gib:.0f} GiB free in {machine.results}")
    if machine.rooms.get(machine.scratch, SCRATCH_ROOM_GIB) < SCRATCH_ROOM_GIB:
        yield Finding(needed, f"{machine.scratch} is nearly full: engines compile there; free some, or set TMPDIR")
    offline = machine.environment.get("HF_HUB_OFFLINE", "") not in {"", "0"}
    if offline:
        yield Finding(
            "note", f"HF_HUB_OFFLINE is set: only the {machine.hub_models} models in {machine.hub} are served"
        )
        return
    if not machine.hub_writable:
        yield Finding(
            needed, f"{machine.hub}: not writable, so no model can be fetched; set HF_HOME to another folder"
        )
    elif machine.rooms.get(machine.hub, MODEL_ROOM_GIB) < MODEL_ROOM_GIB:
        room = machine.rooms[machine.hub]
        yield Finding(
            "note", f"{room:.0f} GiB free for models in {machine.hub}: one of 7 B takes 15; HF_HOME names another"
        )


def _network(machine: Machine) -> Iterator[Finding]:
    if not machine.loopback:
        yield Finding("bad", f"nothing can listen on {HOST}: servers do; is the loopback interface up (`ip link`)?")
    if machine.ports < PORTS:
        yield Finding(
            "note",
            f"{machine.ports} ports for connections: many requests a second use them up; widen "
            "net.ipv4.ip_local_port_range",
        )
    proxies = [name for name in PROXIES if machine.environment.get(name) or machine.environment.get(name.lower())]
    if proxies:
        yield Finding(
            "note", f"{', '.join(proxies)}: engines fetch models through it; what is measured never goes that way"
        )


def _existing(folder: Path) -> Path:
    """`folder`, or the nearest one above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())


def _free_gib(folder: Path) -> float:
    return shutil.disk_usage(_existing(folder)).free / GIB


def _total_gib(folder: Path) -> float:
    return shutil.disk_usage(folder).total / GIB if folder.is_dir() else 0.0


def _ports() -> int:
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return PORTS
    return int(high) - int(low) + 1


def _has_loopback() -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, 0))
        except OSError:
            return False
    return True


def _nvidia_on_the_bus() -> int:
    """How many devices of NVIDIA's that show or compute (PCI class 03) the kernel sees."""
    vendors = Path("/sys/bus/pci/devices").glob("*/vendor")
    mine = [path.parent for path in vendors if path.read_text().strip() == NVIDIA]
    return sum((device / "class").read_text().startswith("0x03") for device in mine)
