"""Every error the program raises on purpose.

TunerError
├── UserError              the command line or a file is wrong, or the box cannot do it: one message, exit 2
│   ├── ConfigError        a YAML file or an option is wrong; names the file, the key and what is allowed
│   ├── EngineMissing      the engine's executable is not installed
│   └── BoxUnusable        busy port, unwritable folder, a box that spoils every trial
├── NotMeasured            no kernels to make a step-time table from: the simulation goes on with a roofline
├── ServerFailed           a server did not start, or died; a trial records it and the study moves on
└── MeasurementVoid        the client or the box spoilt a probe: says nothing about the configuration

Everything else is a bug and shows its traceback.
"""

from collections.abc import Callable
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


class NotMeasured(TunerError):
    """The library of measured kernels lacks what a step-time table would need; the message says what."""


class FailureKind(StrEnum):
    """Why a server failed. Configuration faults teach the sampler; box faults do not."""

    OUT_OF_MEMORY = "out-of-memory"
    BAD_FLAG = "bad-flag"
    BAD_COMBINATION = "bad-combination"
    MODEL_MISSING = "model-missing"
    PORT_IN_USE = "port-in-use"
    START_TIMEOUT = "start-timeout"
    EXITED_AT_START = "exited-at-start"
    DIED_UNDER_LOAD = "died-under-load"

    @property
    def is_box_fault(self) -> bool:
        """Whether the machine is to blame, not the configuration."""
        return self in {FailureKind.MODEL_MISSING, FailureKind.PORT_IN_USE}


class ServerFailed(TunerError):
    """A server did not start or died. `evidence` is the line of its log that says why, where there is one."""

    def __init__(self, kind: FailureKind, message: str, log: Path | None = None, evidence: str = "") -> None:
        where = f" (server log: {log})" if log else ""
        because = f": {evidence}" if evidence else ""
        super().__init__(f"{message}{because}{where}")
        self.kind = kind
        self.log = log
        self.evidence = evidence

    def __reduce__(self) -> tuple[Callable[..., "ServerFailed"], tuple[object, ...]]:
        """Pickle by the constructor's arguments, so that worker processes can raise it."""
        message = str(self.args[0])
        return _rebuild, (self.kind, message, self.log, self.evidence)


class MeasurementVoid(TunerError):
    """A probe that says nothing about the configuration: the client was late, or the box was disturbed."""


def _rebuild(kind: FailureKind, text: str, log: Path | None, evidence: str) -> ServerFailed:
    failed = ServerFailed(kind, text, log, evidence)
    failed.args = (text,)
    return failed
