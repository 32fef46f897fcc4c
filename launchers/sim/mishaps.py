"""Mishaps on order: what a simulated server is told to do wrong, so that whoever handles servers can be tested.

`GOODTUNE_SIM_FAULT` is one of `oom-at-start`, `exit-at-start`, `hang-at-start`, `crash-at-step:N`, `hang-at-step:N`
and `truncate` (every answer ends after half of its tokens, as when a server is told to stop).
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from tuner.errors import ConfigError

VARIABLE = "GOODTUNE_SIM_FAULT"
KINDS = ("oom-at-start", "exit-at-start", "hang-at-start", "crash-at-step", "hang-at-step", "truncate")


@dataclass(frozen=True)
class Mishap:
    """One of KINDS, or `none`; `step` is the step before which it happens."""

    kind: str = "none"
    step: int = 0


def ordered(environment: Mapping[str, str]) -> Mishap:
    """The mishap that the environment asks for. Raises ConfigError."""
    text = environment.get(VARIABLE, "")
    if not text:
        return Mishap()
    kind, _, step = text.partition(":")
    if kind not in KINDS or step.isdigit() != kind.endswith("-step"):
        raise ConfigError(f"{VARIABLE}={text}: unknown; allowed: {', '.join(KINDS)} (with `:N` after `-step`)")
    return Mishap(kind, int(step or 0))


def crash(evidence: str) -> NoReturn:
    """Die as vLLM's engine core does: the reason in the log, the process gone at once."""
    say(f"(EngineCore pid={os.getpid()}) ERROR 01-01 00:00:00 [core.py:1100] EngineCore encountered a fatal error.")
    say(f"(EngineCore pid={os.getpid()}) ERROR 01-01 00:00:00 [core.py:1100] {evidence}")
    os._exit(1)


def say(line: str) -> None:
    """One line for the log."""
    print(line, file=sys.stderr, flush=True)
