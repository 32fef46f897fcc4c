"""Pause: when the box stops a study in its middle, and in which words. A paused study goes on with --resume."""

import shutil
from pathlib import Path

from tuner.errors import BoxUnusable, FailureKind, StudyPaused
from tuner.outcome import Failure

# The timings of a trial are a few MiB, and an engine may say as much.
ROOM_MIB = 32

ADVICE: dict[str, str] = {
    FailureKind.MODEL_MISSING: "download the model, or give its folder with --model",
    FailureKind.PORT_IN_USE: "stop what listens there, or give another --port",
    FailureKind.GPU_LOST: "look at `dmesg` and `nvidia-smi`, reset the GPU or restart the machine",
    FailureKind.GPU_IN_USE: "see `nvidia-smi`; wait for the end of what uses the GPU, or stop it",
    FailureKind.NO_COMPILER: "install a C compiler and Python's headers, for CUDA kernels also nvcc and ninja",
    FailureKind.DISK_FULL: "make room on the disk that the log names (caches, /tmp, /dev/shm)",
    FailureKind.KILLED: "see `dmesg` for the kernel's out-of-memory killer; give the server more memory",
    FailureKind.NOT_GONE: "a GPU driver may hang; look at `dmesg`, then restart the machine",
    "void": "give the load generator CPU cores of its own, or look for what else runs here",
}


def paused_by(failure: Failure, times: int, folder: Path) -> StudyPaused:
    """The pause after the box spoilt `times` servers in a row, the last by `failure`."""
    said = "".join(f"\n  {line}" for line in (failure.before, failure.evidence) if line)
    log = f"\nserver log: {failure.log}" if failure.log else ""
    what = f"the study is paused: {failure.kind}, {times} times in a row; {failure.message}{said}{log}"
    advice = ADVICE.get(failure.kind, "mend it")
    return StudyPaused(f"{what}\n{advice}; nothing is lost, go on with --resume --out {folder}")


def paused(error: BoxUnusable, folder: Path) -> StudyPaused:
    """The same for what goes wrong outside of servers: a disk, a database, no more processes."""
    if isinstance(error, StudyPaused):
        return error
    return StudyPaused(f"the study is paused: {error}\nmend it; nothing is lost, go on with --resume --out {folder}")


def check_room(folder: Path) -> None:
    """Raise BoxUnusable before a trial that could not be written down."""
    free_mib = shutil.disk_usage(folder).free / 2**20
    if free_mib < ROOM_MIB:
        raise BoxUnusable(f"{folder}: {free_mib:.0f} MiB are free on this disk, a trial may take {ROOM_MIB}")
