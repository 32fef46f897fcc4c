"""Faults on order: what a simulated server is told to do wrong, so that whoever handles servers can be tested.

`GOODTUNE_SIM_FAULT` is one of KINDS, spelt `crash-at-step:5` where a number belongs to it.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from tuner.errors import ConfigError

VARIABLE = "GOODTUNE_SIM_FAULT"
KINDS = {
    "oom-at-start": "",
    "exit-at-start": "",
    "hang-at-start": "",
    "slow-start": "SECONDS",
    "crash-at-step": "STEP",
    "hang-at-step": "STEP",
    "truncate": "",
    "cut": "",
}
"""Each fault, and what its number means. After half of every answer, `truncate` ends it cleanly, as a server does
that is told to stop, and `cut` closes its connection."""


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


def say(line: str) -> None:
    """One line for the log."""
    print(line, file=sys.stderr, flush=True)


def _fits(number: str, meaning: str) -> bool:
    """Whether this is a number where there is to be one: a whole one of steps, or seconds such as `2.5`."""
    if meaning == "SECONDS":
        number = number.replace(".", "", 1)
    return number.isdecimal() if meaning else not number
