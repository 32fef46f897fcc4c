"""A server of streamed completions whose every write is known: compiled, started, and asked for its journal."""

import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zlib import adler32, crc32

import numpy as np

SOURCE = Path(__file__).with_name("schedule_server.c")
MODEL = "bench"


@dataclass(frozen=True)
class Schedule:
    """`mode` steady: chunks of an answer `gap_s` apart from `ttft_s` on; burst: all answers' chunks together."""

    mode: str
    ttft_s: float
    gap_s: float


@dataclass(frozen=True)
class Journal:
    """What the server wrote: request i has the chunks `first[i]` to `first[i] + count[i]`. Times: perf_counter's."""

    key: np.ndarray
    came_s: np.ndarray
    first: np.ndarray
    count: np.ndarray
    sent_s: np.ndarray
    due_s: np.ndarray

    def chunks_of(self, request: int) -> np.ndarray:
        """When the chunks of one request were written."""
        return self.sent_s[self.first[request] : self.first[request] + self.count[request]]

    @property
    def lateness_p99_s(self) -> float:
        """How long after its due time a chunk was written."""
        return float(np.quantile(self.sent_s - self.due_s, 0.99)) if len(self.sent_s) else 0.0


@dataclass(frozen=True)
class KnownServer:
    """A running server."""

    url: str
    pid: int

    def journal(self) -> Journal:
        """What it has written since it was last asked."""
        with urllib.request.urlopen(f"{self.url}/journal", timeout=60) as answer:
            words = np.frombuffer(answer.read(), dtype=np.uint64).astype(np.int64)
        requests, chunks = int(words[0]), int(words[1])
        rows = words[2 : 2 + 4 * requests].reshape(requests, 4)
        times = words[2 + 4 * requests :] * 1e-9
        key = rows[:, 0].astype(np.uint64)
        return Journal(key, rows[:, 1] * 1e-9, rows[:, 2], rows[:, 3], times[:chunks], times[chunks:])

    def run_queue_wait_s(self) -> float:
        """How long it has waited for a core, so far."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) * 1e-9


def key_of(body: bytes) -> int:
    """What the journal calls a request with this body."""
    return crc32(body) << 32 | adler32(body)


def compiled(folder: Path) -> Path:
    """The server's program, made by the C compiler `cc`."""
    program = folder / "schedule_server"
    subprocess.run(["cc", "-O2", "-Wall", "-o", program, SOURCE], check=True)
    return program


@contextmanager
def serving(program: Path, schedule: Schedule, core: int) -> Iterator[KnownServer]:
    """A server with this schedule on a core of its own, for the length of a block."""
    times = [str(round(time_s * 1e6)) for time_s in (schedule.ttft_s, schedule.gap_s)]
    command = ["taskset", "-c", str(core), str(program), schedule.mode, *times]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield KnownServer(f"http://127.0.0.1:{process.stdout.readline().strip()}", process.pid)
        finally:
            process.stdin.close()
