"""What tests look for after a study: processes that carry a mark in their environment."""

import time
from collections.abc import Callable

import psutil


def marked(name: str, value: str) -> list[str]:
    """The command lines of all living processes whose environment has `name` set to `value`."""
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def until(holds: Callable[[], bool], within_s: float = 120.0) -> None:
    """Wait until something holds; fails if it takes longer than `within_s`."""
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, "waited too long"
        time.sleep(0.05)
