"""The guardian: a tiny process between tuner and server that lets nothing outlive the tuner, not even by SIGKILL.

    python -I -S guardian.py TUNER_PID ALIVE_FD STATUS_FD GRACE_S CORES FAREWELL COMMAND...

It starts COMMAND in a session of its own and waits for the first of: the server ends, something is written to the
pipe ALIVE_FD or it is closed (the order to stop), the tuner is gone. Then the server gets SIGTERM, next all that it
has left behind, and GRACE_S seconds later SIGKILL goes to whatever descends from it. The guardian ends when none is
left, with the server's exit status. On STATUS_FD it writes `started PID` and `exited CODE` (negative: the signal that
killed it), a line each. CORES (`0,1,2`, or empty for all) are those the server may use. FAREWELL (a JSON list of
words, or empty) is a command run behind it all: a container does not descend from who asked for it. Standard library
only: it has to start in milliseconds and to be too small to fail.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_AGAIN_S = 0.1
FAREWELL_S = 30.0
EXIT_NOT_FOUND = 127

# Out of the terminal's reach: only the tuner decides when a server stops, and the guardian has to survive to do it.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)


def main(arguments: list[str]) -> int:
    """Guard one server from start to end; returns the exit status to leave with."""
    tuner_pid, alive_fd, status_fd = (int(text) for text in arguments[:3])
    grace_s, cores, farewell, command = float(arguments[3]), arguments[4], arguments[5], arguments[6:]
    if cores:
        os.sched_setaffinity(0, map(int, cores.split(",")))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    for ignored in IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    for fd in (alive_fd, status_fd):
        os.set_inheritable(fd, False)
    wake_fd = _wake_on_child_death()
    family = Family(_start(command), wake_fd)
    _say(status_fd, f"started {family.server}")
    _wait_until_over(family, tuner_pid, alive_fd)
    if family.exit_code is not None:
        _say(status_fd, f"exited {family.exit_code}")
    _stop(family, grace_s)
    if farewell:
        _run(json.loads(farewell))
    assert family.exit_code is not None, "the server is our child, so its end was seen"
    return family.exit_code if family.exit_code >= 0 else 128 - family.exit_code


class Family:
    """The server and all that descends from it. `exit_code` is the server's, once it has been buried."""

    def __init__(self, server: int, wake_fd: int) -> None:
        self.server = server
        self.wake_fd = wake_fd
        self.exit_code: int | None = None

    def bury(self) -> None:
        """Reap every child that has died."""
        with suppress(BlockingIOError):
            while os.read(self.wake_fd, 4096):
                pass
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == self.server:
                    self.exit_code = os.waitstatus_to_exitcode(status)

    def wait(self, until_s: float) -> None:
        """Sleep until one has died, or the time has come."""
        select.select([self.wake_fd], [], [], max(0.0, until_s - time.monotonic()))
        self.bury()

    def is_extinct(self) -> bool:
        """Whether none is left: an orphan becomes our child, so no child means no descendant."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every one of them."""
        for pid in _descendants(os.getpid()):
            _send(pid, number)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _wake_on_child_death() -> int:
    """A descriptor that becomes readable whenever a child, or an orphan we inherited, has died."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    return read_fd


def _start(command: list[str]) -> int:
    guardian = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for changed in (*IGNORED, signal.SIGCHLD):
            signal.signal(changed, signal.SIG_DFL)
        if os.getppid() == guardian:
            os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
    os._exit(EXIT_NOT_FOUND)


def _run(command: list[str]) -> None:
    """Run `command` to its end, but for no longer than FAREWELL_S; nobody reads what it says."""
    silence = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=silence)
    except OSError:
        return
    kill_at = time.monotonic() + FAREWELL_S
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > kill_at:
            _send(pid, signal.SIGKILL)
        time.sleep(KILL_AGAIN_S)


def _say(status_fd: int, line: str) -> None:
    # The reader may be gone already; that is what the alive pipe tells.
    with suppress(OSError):
        os.write(status_fd, f"{line}\n".encode())


def _wait_until_over(family: Family, tuner_pid: int, alive_fd: int) -> None:
    """Return when the server has ended, or is to be stopped."""
    waiting = select.poll()
    waiting.register(family.wake_fd, select.POLLIN)
    waiting.register(alive_fd, select.POLLIN)
    # A forked worker of the tuner may hold the alive pipe open for longer than the tuner lives.
    with suppress(OSError):
        waiting.register(os.pidfd_open(tuner_pid), select.POLLIN)
    while os.getppid() == tuner_pid:
        ready = {fd for fd, _event in waiting.poll()}
        family.bury()
        if family.exit_code is not None or ready - {family.wake_fd}:
            return


def _stop(family: Family, grace_s: float) -> None:
    """SIGTERM to the server, then to all it has left behind; after `grace_s` SIGKILL, until none is left."""
    kill_at = time.monotonic() + grace_s
    # An engine whose workers are told at the same moment takes their end for a crash.
    if family.exit_code is None:
        _send(family.server, signal.SIGTERM)
    while family.exit_code is None and time.monotonic() < kill_at:
        family.wait(kill_at)
    family.signal(signal.SIGTERM)
    while not family.is_extinct() and time.monotonic() < kill_at:
        family.wait(kill_at)
    while not family.is_extinct():
        family.signal(signal.SIGKILL)
        family.wait(time.monotonic() + KILL_AGAIN_S)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found = list(children.get(ancestor, ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _processes() -> Iterator[tuple[int, int]]:
    """(pid, parent's pid) of every process on the machine."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
            # The command's name stands in brackets and may itself contain blanks and brackets.
            fields = stat.read().rpartition(b")")[2].split()
            yield int(name), int(fields[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
