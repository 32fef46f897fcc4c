"""Every error the program raises on purpose.

TunerError
├── UserError              the command line or a file is wrong, or the box cannot do it: one message, exit 2
│   ├── ConfigError        a YAML file or an option is wrong; names the file, the key and what is allowed
│   ├── EngineMissing      the engine's executable is not installed
│   └── BoxUnusable        busy port, unwritable folder, a GPU that somebody else uses
│       └── StudyPaused    the box stopped a study in its middle: mended, it goes on with --resume
├── NotMeasured            no kernels to make a step-time table from: the simulation goes on with a roofline
├── ServerFailed           a server did not start, or died; a trial records it and the study moves on
└── MeasurementVoid        the client or the box spoilt a probe: says nothing about the configuration

Beside it stands Interrupted, a KeyboardInterrupt (Ctrl-C, or TERM) that says what the server it cut off had cost.
Everything else is a bug and shows its traceback.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class TunerError(Exception):
    """The root of what this program raises on purpose."""


class UserError(TunerError):
    """Something the user can mend; the message says what, where and what is allowed."""


class ConfigError(UserError):
    """A YAML file or an option is wrong."""


class EngineMissing(UserError):
    """The engine's executable is not installed."""


class BoxUnusable(UserError):
    """The machine cannot do it now: busy port, unwritable folder, unknown GPU, a study that cannot go on."""


class StudyPaused(BoxUnusable):
    """The box stopped a study that can go on; the message says what to mend and how to resume."""


class NotMeasured(TunerError):
    """The library of measured kernels lacks what a step-time table would need; the message says what."""


class FailureKind(StrEnum):
    """Why a server failed. Configuration faults teach the sampler; box faults do not.

    Memory ran out while the weights were loaded, for the KV cache, while graphs were captured, or anywhere else.
    """

    OUT_OF_MEMORY = "out-of-memory"
    WEIGHTS_OUT_OF_MEMORY = "out-of-memory-weights"
    KV_OUT_OF_MEMORY = "out-of-memory-kv-cache"
    GRAPHS_OUT_OF_MEMORY = "out-of-memory-graphs"
    BAD_FLAG = "bad-flag"
    BAD_COMBINATION = "bad-combination"
    COMPILE_FAILED = "compile-failed"
    START_TIMEOUT = "start-timeout"
    EXITED_AT_START = "exited-at-start"
    DIED_UNDER_LOAD = "died-under-load"
    HUNG_UNDER_LOAD = "hung-under-load"
    BAD_ANSWERS = "bad-answers"
    MODEL_MISSING = "model-missing"
    PORT_IN_USE = "port-in-use"
    UNSUPPORTED_GPU = "unsupported-gpu"
    GPU_LOST = "gpu-lost"
    GPU_IN_USE = "gpu-in-use"
    NO_COMPILER = "no-compiler"
    DISK_FULL = "disk-full"
    KILLED = "killed"
    NOT_GONE = "server-not-gone"

    @property
    def is_box_fault(self) -> bool:
        """Whether the machine is to blame, not the configuration."""
        return self in BOX_FAULTS

    @property
    def is_of_memory(self) -> bool:
        """Whether memory ran out, in whatever part of a server's life."""
        return self in MEMORY_FAULTS


BOX_FAULTS = frozenset(
    {
        FailureKind.MODEL_MISSING,
        FailureKind.PORT_IN_USE,
        FailureKind.GPU_LOST,
        FailureKind.GPU_IN_USE,
        FailureKind.NO_COMPILER,
        FailureKind.DISK_FULL,
        FailureKind.KILLED,
        FailureKind.NOT_GONE,
    }
)
MEMORY_FAULTS = frozenset(
    {
        FailureKind.OUT_OF_MEMORY,
        FailureKind.WEIGHTS_OUT_OF_MEMORY,
        FailureKind.KV_OUT_OF_MEMORY,
        FailureKind.GRAPHS_OUT_OF_MEMORY,
    }
)


@dataclass(frozen=True)
class Fault:
    """What went wrong, the line of the log that says so, and `before`: what was said last before, where it tells."""

    kind: FailureKind
    evidence: str = ""
    before: str = ""


class ServerFailed(TunerError):
    """A server did not start or died, for the reason that `fault` gives; `log` is what it has said."""

    def __init__(self, fault: Fault, message: str, log: Path | None = None) -> None:
        where = f" (server log: {log})" if log else ""
        because = f": {fault.evidence}" if fault.evidence else ""
        super().__init__(f"{message}{because}{where}")
        self.message = message
        self.fault = fault
        self.log = log

    @property
    def kind(self) -> FailureKind:
        """The name of the fault."""
        return self.fault.kind

    def __reduce__(self) -> tuple[type["ServerFailed"], tuple[object, ...]]:
        """Pickle by the constructor's arguments, so that worker processes can raise it."""
        return type(self), (self.fault, self.message, self.log)


class MeasurementVoid(TunerError):
    """A probe that says nothing about the configuration: the client was late, or the box was disturbed."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or TERM while a server was measured, and what that server had cost until then, GPU-seconds."""

    def __init__(self, startup_gpu_s: float, measuring_gpu_s: float) -> None:
        super().__init__()
        self.startup_gpu_s = startup_gpu_s
        self.measuring_gpu_s = measuring_gpu_s
