"""Faults on order: what a simulated server is told to do wrong, so that whoever handles servers can be tested.

`GOODTUNE_SIM_FAULT` is one of KINDS, spelt `crash-at-step:5` where a number belongs to it. `@FILE` stands for the
first line of a file, which is taken out of it: so each server that starts gets its own. An empty line is no fault.
"""

import fcntl
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tuner.errors import ConfigError

VARIABLE = "GOODTUNE_SIM_FAULT"
KINDS = {
    "oom-at-start": "",
    "oom-at-kv": "",
    "oom-at-graphs": "",
    "exit-at-start": "",
    "hang-at-start": "",
    "slow-start": "SECONDS",
    "crash-at-step": "STEP",
    "hang-at-step": "STEP",
    "gpu-lost-at-step": "STEP",
    "kill-at-step": "STEP",
    "truncate": "",
    "cut": "",
    "garbage": "",
    "errors": "REQUEST",
    "refuse": "REQUEST",
    "drip": "",
}
"""Each fault, and what its number means. Memory runs out for the weights, the KV cache or the graphs. After half of
every answer, `truncate` ends it cleanly, as a server does that is told to stop, and `cut` closes its connection.
Answers are `garbage`, from some request on `errors`, or connections are closed and refused. A server that drips
never comes to the end of saying that it is healthy."""
# What an engine says when it begins the part of its start in which memory runs out.
STAGES = {
    "oom-at-start": {"vllm": "INFO Starting to load model", "sglang": "[2026-01-01 00:00:00] Load weight begin."},
    "oom-at-kv": {
        "vllm": "INFO Available KV cache memory: 2 GiB",
        "sglang": "[2026-01-01 00:00:00] Load weight end.",
    },
    "oom-at-graphs": {
        "vllm": "INFO Capturing CUDA graphs",
        "sglang": "[2026-01-01 00:00:00] Capture decode CUDA graph begin.",
    },
}


@dataclass(frozen=True)
class Fault:
    """One of KINDS, or `none`, and its number: the step before which it happens, or seconds."""

    kind: str = "none"
    number: float = 0.0

    def is_due(self, kind: str, step: int) -> bool:
        """Whether it is this one, and the time for it has come."""
        return self.kind == kind and step >= self.number


def ordered(environment: Mapping[str, str]) -> Fault:
    """The fault that the environment asks for. Raises ConfigError."""
    text = environment.get(VARIABLE, "")
    if text.startswith("@"):
        text = _next_line(Path(text[1:]))
    if not text:
        return Fault()
    kind, _, number = text.partition(":")
    if kind not in KINDS or not _fits(number, KINDS[kind]):
        allowed = ", ".join(f"{kind}:{meaning}" if meaning else kind for kind, meaning in KINDS.items())
        raise ConfigError(f"{VARIABLE}={text}: unknown; allowed: {allowed}")
    return Fault(kind, float(number or 0))


def crash(evidence: str) -> NoReturn:
    """Die as vLLM's engine core does: the reason in the log, the process gone at once."""
    say(f"(EngineCore pid={os.getpid()}) ERROR 01-01 00:00:00 [core.py:1100] EngineCore encountered a fatal error.")
    say(f"(EngineCore pid={os.getpid()}) ERROR 01-01 00:00:00 [core.py:1100] {evidence}")
    os._exit(1)


def killed() -> NoReturn:
    """Die as by the kernel's out-of-memory killer: without a word."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives SIGKILL")


def say(line: str) -> None:
    """One line for the log."""
    print(line, file=sys.stderr, flush=True)


def _next_line(path: Path) -> str:
    """Take the first line out of the file, though others may do the same at this moment."""
    with path.open("r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        first, _, rest = file.read().partition("\n")
        file.seek(0)
        file.truncate()
        file.write(rest)
    return first


def _fits(number: str, meaning: str) -> bool:
    """Whether this is a number where there is to be one: a whole one of steps, or seconds such as `2.5`."""
    if meaning == "SECONDS":
        number = number.replace(".", "", 1)
    return number.isdecimal() if meaning else not number
