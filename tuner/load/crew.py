"""Crew: the worker processes of one probe, seen from the process that supervises them. None outlives the block."""

import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter

import tuner
from tuner.errors import MeasurementVoid
from tuner.load.wire import AUTHORIZATION, GO, STOP, Followed, Message, Over, Ready, Unframer

STOP_GRACE_S = 2.0
READ_BYTES = 1 << 20


class WorkerCrashed(RuntimeError):
    """A load worker ended on its own: a bug, with its traceback."""


class Crew:
    """The running workers. All times are `perf_counter`'s: one clock for all processes of a Linux machine."""

    def __init__(
        self, workers: "list[subprocess.Popen[bytes]]", stderr: Path, selector: selectors.BaseSelector
    ) -> None:
        self._workers = workers
        self._stderr = stderr
        self._selector = selector
        self._ready = 0
        self._followed: set[int] = set()
        self._over: set[int] = set()
        for number, worker in enumerate(workers):
            assert worker.stdout
            self._selector.register(worker.stdout, selectors.EVENT_READ, (number, Unframer()))

    @property
    def has_followed(self) -> bool:
        """Whether every worker has seen all its counted requests end."""
        return len(self._followed | self._over) == len(self._workers)

    @property
    def is_over(self) -> bool:
        """Whether every worker has said its last."""
        return len(self._over) == len(self._workers)

    def wait_until_ready(self, deadline_s: float, period_s: float, check_alive: Callable[[], None]) -> None:
        """Return when all workers can start; calls `check_alive` every `period_s`. Raises MeasurementVoid if late."""
        while self._ready < len(self._workers):
            if perf_counter() > deadline_s:
                raise MeasurementVoid("the load generator was not ready in time; is this machine out of CPU time?")
            check_alive()
            self._ready += sum(isinstance(one, Ready) for one in self.messages(perf_counter() + period_s))

    def go(self, start_s: float) -> None:
        """Begin the probe at this time."""
        self._say(f"{GO} {start_s!r}")

    def stop(self) -> None:
        """Cancel everything in flight."""
        self._say(STOP)

    def messages(self, until_s: float) -> Iterator[Message]:
        """What has come by the time something comes, or nothing when it is `until_s`."""
        for key, _ in self._selector.select(max(0.0, until_s - perf_counter())):
            number, unframer = key.data
            data = os.read(key.fd, READ_BYTES)
            if not data:
                self._selector.unregister(key.fileobj)
                self._check_ended(number)
            for message in unframer.feed(data):
                if isinstance(message, Followed):
                    self._followed.add(number)
                if isinstance(message, Over):
                    self._over.add(number)
                yield message

    def _say(self, words: str) -> None:
        for worker in self._workers:
            assert worker.stdin
            # A worker that has gone shows at the end of its stdout.
            with suppress(BrokenPipeError):
                os.write(worker.stdin.fileno(), f"{words}\n".encode())

    def _check_ended(self, number: int) -> None:
        if number in self._over:
            return
        returncode = self._workers[number].wait(STOP_GRACE_S)
        if returncode < 0:
            raise MeasurementVoid(f"a load worker was killed by {signal.Signals(-returncode).name}; out of memory?")
        raise WorkerCrashed(f"a load worker exited with {returncode}:\n{self._stderr.read_text()}")


@contextmanager
def start_crew(job_path: Path, workers: int, authorization: str = "") -> Iterator[Crew]:
    """Workers for the job in this file, in process groups of their own, for the length of a block.

    `authorization` is the header they send.
    """
    environment = {**os.environ, "PYTHONPATH": _path(), AUTHORIZATION: authorization}
    stderr = job_path.with_suffix(".stderr")
    with ExitStack() as stack:
        running = [stack.enter_context(_running(job_path, number, stderr, environment)) for number in range(workers)]
        yield Crew(running, stderr, stack.enter_context(selectors.DefaultSelector()))


@contextmanager
def _running(
    job_path: Path, number: int, stderr: Path, environment: Mapping[str, str]
) -> "Iterator[subprocess.Popen[bytes]]":
    # -P: a file of the user's folder must not shadow a module of the standard library.
    command = [sys.executable, "-P", "-m", "tuner.load.worker", str(job_path), str(number)]
    with (
        stderr.open("ab") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            _end(process)


def _path() -> str:
    """Where workers find this very code."""
    root = str(Path(tuner.__file__).parent.parent)
    return os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Hang up, which a healthy worker understands, then kill its group."""
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    process.stdout.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_GRACE_S)
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_GRACE_S)
