"""The one supervisor of every server process: start, readiness, death, stop. A server exists for one `with` block."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import httpx
import psutil

from launchers import guardian
from launchers.faults import Symptoms, classify, last_lines
from launchers.health import is_healthy
from tuner.errors import BoxUnusable, FailureKind, Fault, ServerFailed

POLL_S = 0.1
HEALTH_TIMEOUT_S = 5.0
KILLED_WITHIN_S = 60.0
# A guardian starts in milliseconds; a machine that swaps takes longer.
FORKED_WITHIN_S = 60.0
NO_PROCESS = "no process can be started on this machine (too many of them, or no memory?)"
# A crash breaks the connections first; until the process is buried this much may pass.
DEATH_SHOWS_S = 2.0
# Guardians that could not end their server; they go on trying.
GIVEN_UP: "list[subprocess.Popen[bytes]]" = []
LOG_TAIL_BYTES = 256 * 1024


@dataclass(frozen=True)
class Launch:
    """How to start a server.

    `env` is added to ours. `ready_timeout_s` counts from the start to the first 200 of `health_url`; `stop_grace_s`
    lies between SIGTERM and SIGKILL. What the server says is appended to `log`. `cores` () are all. `farewell` is
    the command that removes the container which `command` asked for, if it did.
    """

    command: tuple[str, ...]
    health_url: str
    log: Path
    env: Mapping[str, str]
    symptoms: Symptoms = field(default_factory=Symptoms)
    ready_timeout_s: float = 900.0
    stop_grace_s: float = 10.0
    cores: tuple[int, ...] = ()
    farewell: tuple[str, ...] = ()


@dataclass(frozen=True)
class Server:
    """A server. `started_s`: when it was asked to start, on `time.perf_counter`; `pid`: its first process."""

    launch: Launch
    guard: "Guard"
    pid: int
    started_s: float

    def check_alive(self) -> None:
        """Raise ServerFailed, with the line of its log that says why, if the server has died after it was ready."""
        fault = self.guard.death(self.launch.symptoms.under_load(), FailureKind.DIED_UNDER_LOAD)
        if fault:
            what = f"the server died while it was measured ({_spelt(self.guard.exit_code())})"
            raise ServerFailed(fault, what, self.launch.log)

    def check_dead(self) -> None:
        """As `check_alive`, but its connections have broken, so that news of its death may be on their way."""
        if self.guard.exit_code() is None:
            self.guard.wait(DEATH_SHOWS_S)
        self.check_alive()

    def hung(self, what: str) -> ServerFailed:
        """The failure of a server that lives and does nothing, with the last that it said."""
        healthy = "answers" if is_healthy(self.launch.health_url, HEALTH_TIMEOUT_S) else "does not answer"
        evidence, before = last_lines(self.guard.log_tail())
        fault = Fault(FailureKind.HUNG_UNDER_LOAD, evidence, before)
        return ServerFailed(fault, f"{what}; asked for its health, it {healthy}", self.launch.log)


@contextmanager
def running(launch: Launch) -> Iterator[Server]:
    """A server that is ready inside the block; behind it the server and all that it started are gone.

    Raises ServerFailed if it does not become ready, BoxUnusable if it cannot be started at all. One that not even
    SIGKILL ends is left to its guardian: `launchers.vacancy` keeps the next server from starting beside it.
    """
    started_s = time.perf_counter()
    guard = Guard(launch)
    try:
        server = Server(launch, guard, guard.server_pid(), started_s)
        _await_ready(server)
        yield server
    finally:
        guard.stop(launch.stop_grace_s)


class Guard:
    """Our end of a guardian process: the order to stop goes down one pipe, news of the server comes up another."""

    def __init__(self, launch: Launch) -> None:
        """Raises ServerFailed where the log cannot be written, BoxUnusable where no process can be started."""
        self._log, self._farewell, self._news = launch.log, launch.farewell, ""
        with _opened(launch.log) as log:
            self._log_start = log.tell()
            alive_read, self._alive_fd = os.pipe()
            self._news_fd, news_write = os.pipe()
            os.set_blocking(self._news_fd, False)
            try:
                self._process = subprocess.Popen(
                    _guardian_command(launch, alive_read, news_write),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # What a killed server has printed must be in its log already.
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **launch.env},
                    pass_fds=(alive_read, news_write),
                    start_new_session=True,
                )
            except OSError as error:
                os.close(self._alive_fd)
                os.close(self._news_fd)
                raise BoxUnusable(f"{NO_PROCESS}: {error.strerror}") from error
            finally:
                os.close(alive_read)
                os.close(news_write)

    @property
    def pid(self) -> int:
        """The guardian's own process id: everything that belongs to the server descends from it."""
        return self._process.pid

    def server_pid(self) -> int:
        """The server's process id, once it has been forked. Raises BoxUnusable if it cannot be."""
        deadline_s = time.monotonic() + FORKED_WITHIN_S
        while "\n" not in self._news and self._process.poll() is None and time.monotonic() < deadline_s:
            self.wait(POLL_S)
            self._listen()
        pid = self._said("started")
        if pid is None:
            raise BoxUnusable(NO_PROCESS)
        return pid

    def exit_code(self) -> int | None:
        """The server's exit code (negative: a signal) once it has ended."""
        self._listen()
        said = self._said("exited")
        return said if said is not None else self._process.poll()

    def log_tail(self) -> str:
        """The end of what this server has logged; a server before it may have written to the same file."""
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - LOG_TAIL_BYTES))
            return log.read(LOG_TAIL_BYTES).decode(errors="replace")

    def death(self, symptoms: Symptoms, otherwise: FailureKind) -> Fault | None:
        """Why the server has ended; None while it lives. An engine that cannot log any more dies of that."""
        exit_code = self.exit_code()
        if exit_code is None:
            return None
        try:
            with self._log.open("ab") as log:
                log.write(b"\n")
        except OSError as error:
            return _unwritable(self._log, error)
        return classify(exit_code, self.log_tail(), symptoms, otherwise)

    def wait(self, timeout_s: float) -> None:
        """Sleep, but wake as soon as there is news."""
        select.select([self._news_fd], [], [], timeout_s)

    def stop(self, grace_s: float) -> None:
        """Have everything stopped and wait until it is, or until nobody can think that SIGKILL still helps."""
        with suppress(BrokenPipeError):
            os.write(self._alive_fd, b"stop")
        os.close(self._alive_fd)
        try:
            killed_by = self._process.wait(grace_s + KILLED_WITHIN_S)
        except subprocess.TimeoutExpired:
            GIVEN_UP.append(self._process)
        else:
            if killed_by < 0:
                self._kill_group()
        os.close(self._news_fd)

    def _kill_group(self) -> None:
        """Without its guardian a server is killed by the kernel, but what it started is not."""
        group = self._said("started")
        if group is not None:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self._farewell:
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(self._farewell, capture_output=True, timeout=KILLED_WITHIN_S, check=False)

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while news := os.read(self._news_fd, 4096):
                self._news += news.decode()

    def _said(self, word: str) -> int | None:
        """The number behind `word` in what the guardian has said so far."""
        said = dict(line.split() for line in self._news.splitlines())
        return int(said[word]) if word in said else None


def _opened(log: Path) -> BinaryIO:
    """A server's log, to be appended to. A disk that does not take it is the box's fault."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise ServerFailed(_unwritable(log, error), "no server was started") from error


def _unwritable(log: Path, error: OSError) -> Fault:
    return Fault(FailureKind.DISK_FULL, f"{log}: cannot be written: {error.strerror}")


def _guardian_command(launch: Launch, alive_fd: int, news_fd: int) -> tuple[str, ...]:
    """As `launchers.guardian` explains it."""
    cores = ",".join(map(str, launch.cores))
    farewell = json.dumps(launch.farewell) if launch.farewell else ""
    arguments = (os.getpid(), alive_fd, news_fd, launch.stop_grace_s, cores, farewell)
    return (sys.executable, "-I", "-S", guardian.__file__, *map(str, arguments), *launch.command)


def _await_ready(server: Server) -> None:
    """Return at the first healthy answer that comes from our server. Raises ServerFailed."""
    launch = server.launch
    while time.perf_counter() - server.started_s < launch.ready_timeout_s:
        _check_starting(server)
        if is_healthy(launch.health_url, HEALTH_TIMEOUT_S) and _is_listening(server):
            return
        server.guard.wait(POLL_S)
    evidence, before = last_lines(server.guard.log_tail())
    what = f"the server was not ready after {launch.ready_timeout_s:g} s; its last words"
    raise ServerFailed(Fault(FailureKind.START_TIMEOUT, evidence, before), what, launch.log)


def _check_starting(server: Server) -> None:
    fault = server.guard.death(server.launch.symptoms, FailureKind.EXITED_AT_START)
    if fault:
        what = f"the server did not start ({_spelt(server.guard.exit_code())})"
        raise ServerFailed(fault, what, server.launch.log)


def _is_listening(server: Server) -> bool:
    """Whether the answer came from our server, and not from somebody else's on the same port.

    What listens in a container does not descend from us; there the reserved port has to do.
    """
    if server.launch.farewell:
        return True
    port = httpx.URL(server.launch.health_url).port
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(server.guard.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                sockets = process.net_connections(kind="tcp")
                if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets):
                    return True
    return False


def _spelt(exit_code: int | None) -> str:
    assert exit_code is not None, "only what has ended is spelt"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
