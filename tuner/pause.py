"""Pause: when the box stops a study in its middle, and in which words. A paused study goes on with --resume."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tuner.errors import BoxUnusable, FailureKind, StudyPaused
from tuner.outcome import Failure, Outcome

# The timings of a trial are a few MiB, and an engine may say as much.
ROOM_MIB = 32
# So many servers, none of which could be measured, and the study pauses.
NOTHING_STARTED = 4
MAY_BE_THE_BOX = {
    FailureKind.EXITED_AT_START,
    FailureKind.START_TIMEOUT,
    FailureKind.UNSUPPORTED_GPU,
    FailureKind.COMPILE_FAILED,
    FailureKind.BAD_ANSWERS,
    FailureKind.KILLED,
}

ADVICE: dict[str, str] = {
    FailureKind.MODEL_MISSING: "download the model (a gated one needs HF_TOKEN), or give its folder with --model",
    FailureKind.PORT_IN_USE: "stop what listens there, or give another --port",
    FailureKind.GPU_LOST: "look at `dmesg` and `nvidia-smi`, reset the GPU or restart the machine; behind NVSwitch, "
    "the fabric manager has to run",
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


def check_something_starts(outcomes: Sequence[Outcome], folder: Path) -> None:
    """When no server could be measured yet in several trials, it is the box, not the configurations.

    Raises StudyPaused.
    """
    kinds = {outcome.failure.kind if outcome.failure else None for outcome in outcomes}
    if len(outcomes) < NOTHING_STARTED or not kinds <= MAY_BE_THE_BOX:
        return
    failure = outcomes[-1].failure
    assert failure, "they all failed"
    raise StudyPaused(
        f"none of {len(outcomes)} servers could be measured, the last because: {failure.message} "
        f"{failure.evidence}{f' (server log: {failure.log})' if failure.log else ''}\n"
        f"mend it and start anew with another --out than {folder}"
    )


def check_room(folder: Path) -> None:
    """Raise BoxUnusable before a trial that could not be written down."""
    free_mib = shutil.disk_usage(folder).free / 2**20
    if free_mib < ROOM_MIB:
        raise BoxUnusable(f"{folder}: {free_mib:.0f} MiB are free on this disk, a trial may take {ROOM_MIB}")
