"""Keys, as they are pressed while a study runs: on a terminal, in the foreground, without Enter and without echo."""

import os
import select
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BACKGROUND_POLL_S = 0.25


@contextmanager
def heard(press: Callable[[str], None], terminal_fd: int) -> Iterator[bool]:
    """Hand every key to `press`, in a thread of its own, as long as the block runs. Yields whether keys are heard.

    They are not where `terminal_fd` is no terminal or this process is in its background. Ctrl-C stays what it is, and
    the terminal gets its old ways back at the end.
    """
    if not os.isatty(terminal_fd) or not _in_foreground(terminal_fd):
        yield False
        return
    ways = termios.tcgetattr(terminal_fd)
    tty.setcbreak(terminal_fd, termios.TCSADRAIN)
    stop_fd, stopping_fd = os.pipe()
    reading = threading.Thread(target=_read, args=(press, terminal_fd, stop_fd), daemon=True)
    reading.start()
    try:
        yield True
    finally:
        os.close(stopping_fd)
        reading.join()
        os.close(stop_fd)
        if _in_foreground(terminal_fd):
            termios.tcsetattr(terminal_fd, termios.TCSADRAIN, ways)


def _read(press: Callable[[str], None], terminal_fd: int, stop_fd: int) -> None:
    """Until `stop_fd` is closed at its other end, or the terminal is gone."""
    while stop_fd not in select.select([terminal_fd, stop_fd], [], [])[0]:
        if not _in_foreground(terminal_fd):
            # What is typed now is the shell's; who reads it all the same is stopped by the kernel.
            select.select([stop_fd], [], [], BACKGROUND_POLL_S)
            continue
        try:
            typed = os.read(terminal_fd, 64)
        except OSError:
            return
        if not typed:
            return
        for key in typed.decode(errors="replace"):
            press(key)


def _in_foreground(terminal_fd: int) -> bool:
    try:
        return os.tcgetpgrp(terminal_fd) == os.getpgrp()
    except OSError:
        return False
