"""Why a server ended: exit code, log and the engine's patterns in, a kind of failure and its evidence out. Pure."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.errors import FailureKind

EVIDENCE_CHARACTERS = 300
# What went well or is only remarked on; an engine may well remark on flags and memory and start all the same.
REMARK = re.compile(r"^(?:\([\w =]+ pid=\d+\)\s*)?(?:(?:DEBUG|INFO|WARNING)\b|\S+:\d+: \w*Warning: )")
TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# "(EngineCore pid=12) ERROR 11-21 01:02:03 [core.py:12] " and "[2026-11-21 01:02:03 TP0] ".
LOG_PREFIX = re.compile(
    r"^(?:\([\w =]+ pid=\d+\)\s*)?"
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?: \[[^\]]+\])? ?)?"
    r"(?:\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\]]*\] ?)?"
)
EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt)\b(?:: .+|$)")
# What a process says on its way out because another one has died: never the reason.
ECHO = re.compile(r"Engine core initialization failed|See root cause above|EngineDeadError|resource_tracker")


@dataclass(frozen=True)
class Pattern:
    """Lines in which `regex` is found mean `kind`."""

    regex: str
    kind: FailureKind


@dataclass(frozen=True)
class Fault:
    """What went wrong, and the one line that says so."""

    kind: FailureKind
    evidence: str


def classify(exit_code: int, log_tail: str, patterns: Sequence[Pattern], otherwise: FailureKind) -> Fault:
    """Why a server ended with `exit_code` (negative: the signal that killed it).

    Patterns count in their order, and within one the first line that matches, for an engine tells the root cause
    first and then every process above it repeats its own version. `otherwise` is the kind of what no pattern knows.
    """
    lines = [_bare(line) for line in log_tail.splitlines() if not REMARK.match(line)]
    for pattern in patterns:
        found = next((place for place, line in enumerate(lines) if re.search(pattern.regex, line)), None)
        if found is not None:
            return Fault(pattern.kind, _evidence(lines, found))
    return Fault(otherwise, _last_words(exit_code, lines)[:EVIDENCE_CHARACTERS])


def last_line(log_tail: str) -> str:
    """The last line that says something."""
    return next((line for line in map(_bare, reversed(log_tail.splitlines())) if line), "")[:EVIDENCE_CHARACTERS]


def _bare(line: str) -> str:
    return LOG_PREFIX.sub("", TERMINAL_COLOURS.sub("", line)).strip()


def _evidence(lines: Sequence[str], found: int) -> str:
    """The line that was found; pydantic names what is wrong in the line before, and adds its own jargon behind."""
    line = lines[found].removeprefix("Value error, ").partition(" [type=")[0]
    names_a_field = found > 0 and re.fullmatch(r"[a-z_][\w.]*", lines[found - 1])
    return (f"{lines[found - 1]}: {line}" if names_a_field else line)[:EVIDENCE_CHARACTERS]


def _last_words(exit_code: int, lines: Sequence[str]) -> str:
    exceptions = [line for line in lines if EXCEPTION.match(line) and not ECHO.search(line)]
    if exceptions:
        return exceptions[-1]
    if exit_code == -signal.SIGKILL:
        return "killed by SIGKILL: the kernel's out-of-memory killer, or somebody's `kill -9`"
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return next((line for line in reversed(lines) if line), "it said nothing")
