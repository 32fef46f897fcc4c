"""Why a server ended: exit code, log and the engine's patterns in, a kind of failure and its evidence out. Pure."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.errors import FailureKind, Fault

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
# What a log says in passing: with a level below ERROR, or by SGLang, that names none, but for its cries.
PROGRESS = re.compile(
    r"^(?:\([\w =]+ pid=\d+\)\s*)?(?:INFO\b|\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\]]*\] )"
    r"(?!.*(?:hit an exception|sigquit|kill_process_tree))"
)
# What a process says on its way out because another one has died: never the reason.
ECHO = re.compile(
    r"Engine core initialization failed|See root cause above|See stack trace for root cause|EngineDeadError|"
    r"died unexpectedly|resource_tracker"
)
# What it says when another one has gone without a word, and what one says that goes by any signal but SIGKILL.
WIDOW = re.compile(
    r"EngineDeadError|died unexpectedly|WorkerProc initialization failed|Failed core proc\(s\): \{(?:\}|[^}]*: -9\b)"
)
CRASH = re.compile(r"Fatal Python error|Segfault encountered|terminate called|core dumped")
VANISHED = (
    "one of its processes vanished without a word: the kernel's out-of-memory killer (see `dmesg`), or `kill -9`"
)
# The lines of a traceback below its head; a line for each request, and what is said when we ask.
CODE = re.compile(r"^(?:\([\w =]+ pid=\d+\))?\s{2,}|^\S+:\d+: \w*Warning: ")
CHATTER = re.compile(r'"(?:GET|POST) /|Resetting prefix cache|Cache flushed')


@dataclass(frozen=True)
class Pattern:
    """Lines in which `regex` is found mean `kind`."""

    regex: str
    kind: FailureKind


@dataclass(frozen=True)
class Symptoms:
    """How an engine's log tells what is wrong.

    `stages` are lines that begin a part of the start. Where a line only says that memory ran out, it ran out in the
    part that was begun last.
    """

    patterns: tuple[Pattern, ...] = ()
    stages: tuple[Pattern, ...] = ()

    def under_load(self) -> "Symptoms":
        """Those of a server that had started: its flags were good, its port free and its model there."""
        return Symptoms(tuple(each for each in self.patterns if each.kind in UNDER_LOAD))


UNDER_LOAD = frozenset(
    {
        FailureKind.OUT_OF_MEMORY,
        FailureKind.KV_OUT_OF_MEMORY,
        FailureKind.COMPILE_FAILED,
        FailureKind.HUNG_UNDER_LOAD,
        FailureKind.GPU_LOST,
        FailureKind.NO_COMPILER,
        FailureKind.DISK_FULL,
        FailureKind.KILLED,
    }
)


def classify(exit_code: int, log_tail: str, symptoms: Symptoms, otherwise: FailureKind) -> Fault:
    """Why a server ended with `exit_code` (negative: the signal that killed it).

    Patterns count in their order, and within one the first line that matches, for an engine tells the root cause
    first and then every process above it repeats its own version. `otherwise` is the kind of what no pattern knows.
    """
    said = log_tail.splitlines()
    places = [place for place, line in enumerate(said) if not REMARK.match(line)]
    lines = [_bare(said[place]) for place in places]
    for pattern in symptoms.patterns:
        found = next((place for place, line in enumerate(lines) if re.search(pattern.regex, line)), None)
        if found is not None:
            before = said[: places[found]]
            kind = _stage(before, symptoms.stages) if pattern.kind is FailureKind.OUT_OF_MEMORY else pattern.kind
            return Fault(kind, _evidence(lines, found), _progress(before))
    return _by_last_words(exit_code, lines, said, otherwise)


def last_lines(log_tail: str) -> tuple[str, str]:
    """The last line that says something of its own, and the one before it; '' where there is none."""
    telling = [_bare(line) for line in log_tail.splitlines() if not CHATTER.search(line) and not CODE.match(line)]
    telling = [line for line in telling if line]
    last, before = [*telling[:-3:-1], "", ""][:2]
    return last[:EVIDENCE_CHARACTERS], before[:EVIDENCE_CHARACTERS]


def _bare(line: str) -> str:
    return LOG_PREFIX.sub("", TERMINAL_COLOURS.sub("", line)).strip()


def _evidence(lines: Sequence[str], found: int) -> str:
    """The line that was found; pydantic names what is wrong in the line before, and adds its own jargon behind."""
    line = lines[found].removeprefix("Value error, ").partition(" [type=")[0]
    names_a_field = found > 0 and re.fullmatch(r"[a-z_][\w.]*", lines[found - 1])
    return (f"{lines[found - 1]}: {line}" if names_a_field else line)[:EVIDENCE_CHARACTERS]


def _stage(before: Sequence[str], stages: Sequence[Pattern]) -> FailureKind:
    """The part of the start that was under way behind these lines."""
    for line in reversed(before):
        kind = next((stage.kind for stage in stages if re.search(stage.regex, line)), None)
        if kind is not None:
            return kind
    return FailureKind.OUT_OF_MEMORY


def _progress(before: Sequence[str]) -> str:
    """What the server was doing, by the last of these lines that says it."""
    telling = (line for line in reversed(before) if PROGRESS.match(line) and not CHATTER.search(line))
    line = next((line for line in telling if _bare(line)), "")
    return _bare(line)[:EVIDENCE_CHARACTERS]


def _by_last_words(exit_code: int, lines: Sequence[str], said: Sequence[str], otherwise: FailureKind) -> Fault:
    """By the last exception of the log, else by the exit code, else by the last line."""
    exceptions = [line for line in lines if EXCEPTION.match(line) and not ECHO.search(line)]
    if exceptions:
        evidence = exceptions[-1][:EVIDENCE_CHARACTERS]
        place = max(place for place, line in enumerate(said) if _bare(line).startswith(exceptions[-1]))
        return Fault(otherwise, evidence, _progress(said[:place]))
    crash = next((line for line in lines if CRASH.search(line)), "")
    if crash:
        return Fault(otherwise, crash[:EVIDENCE_CHARACTERS], _progress(said))
    echo = next((line for line in lines if WIDOW.search(line)), "")
    if echo:
        return Fault(FailureKind.KILLED, VANISHED, echo[:EVIDENCE_CHARACTERS])
    if exit_code == -signal.SIGKILL:
        killed = "killed by SIGKILL: the kernel's out-of-memory killer (see `dmesg`), or somebody's `kill -9`"
        return Fault(FailureKind.KILLED, killed, _progress(said))
    if exit_code < 0:
        return Fault(otherwise, f"killed by {signal.Signals(-exit_code).name}", _progress(said))
    last = next((line for line in reversed(lines) if line), "it said nothing")
    return Fault(otherwise, last[:EVIDENCE_CHARACTERS])
