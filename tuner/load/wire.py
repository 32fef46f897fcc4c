"""What the supervising process and its load workers say to each other: a job, frames up a pipe, words down it."""

import pickle
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from tuner.requests import FloatArray, Requests
from tuner.target import Load, OpenLoop, Window


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server. `model` is its served name; `vocab` bounds the token ids of prompts.

    `authorization` is the header of that name, "" for none: workers get it by AUTHORIZATION, for a job is a file.
    """

    base_url: str
    model: str
    vocab: int
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True)
class Job:
    """What the workers of one probe do together: worker k takes every session j with j % workers == k."""

    endpoint: Endpoint
    requests: Requests
    load: Load
    window: Window
    workers: int

    def sessions_of(self, worker: int) -> list[int]:
        """The sessions a worker may come to start: its own, but none that arrives when the probe must be over."""
        own = np.arange(worker, self.requests.sessions, self.workers)
        match self.load:
            case OpenLoop(rate_rps):
                latest_s = self.window.end_s + self.window.timeout_s
                own = own[arrivals_s(self.requests, rate_rps)[own] <= latest_s]
        mine: list[int] = own.tolist()
        return mine

    def rows_of(self, worker: int) -> list[int]:
        """The requests of `sessions_of(worker)`."""
        rows: list[int] = np.flatnonzero(np.isin(self.requests.session, self.sessions_of(worker))).tolist()
        return rows


def arrivals_s(requests: Requests, rate_rps: float) -> FloatArray:
    """When each session arrives in an open loop, (sessions,)."""
    return np.cumsum(requests.unit_gaps) / rate_rps


class Ending(Enum):
    """How the client saw a request end. What the answer was worth is read from its bytes afterwards."""

    BODY_ENDED = "body ended"
    BROKE = "connection broke"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Sent:
    """Request `row` was due at `due_s` and handed to the client at `sent_s`."""

    row: int
    due_s: float
    sent_s: float


@dataclass(frozen=True)
class Ended:
    """Request `row` was over at `at_s`. `http_status` is 0 where no answer began; `reason` says what broke."""

    row: int
    at_s: float
    how: Ending
    http_status: int
    reason: str = ""

    @property
    def is_refusal(self) -> bool:
        """Whether the server, or the lack of one, turned the request away."""
        return self.how is Ending.BROKE or (self.how is Ending.BODY_ENDED and self.http_status != 200)


@dataclass(frozen=True)
class Ready:
    """A worker has its prompts made and its connections open."""


@dataclass(frozen=True)
class Batch:
    """What happened since the batch before. Read i was of row `read_row[i]`, at `read_s[i]`, `read_bytes[i]` long."""

    read_s: "array[float]"
    read_row: "array[int]"
    read_bytes: "array[int]"
    raw: bytes
    sent: list[Sent]
    ended: list[Ended]


@dataclass(frozen=True)
class Followed:
    """The window has closed and every counted request of this worker has ended; it keeps up the load."""


@dataclass(frozen=True)
class Over:
    """A worker has finished; its own health while the probe ran, as in ClientHealth.

    `stalls`: from when to when its event loop stood still, seconds since the probe began.
    """

    worker: int
    run_queue_wait_s: float
    busy_frac: float
    cpu_frac: float
    wake_lag_p99_s: float
    stalls: tuple[tuple[float, float], ...] = ()


Message = Ready | Batch | Followed | Over

AUTHORIZATION = "GOODTUNE_AUTHORIZATION"
"""The variable of a worker's environment that holds what is not to be in a file."""

GO = "go"
STOP = "stop"

_LENGTH = struct.Struct("<I")


def frame(message: Message) -> bytes:
    """A message as it goes over the pipe: its length, then its pickle."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Unframer:
    """Puts the messages of one pipe together again."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that are complete with `data`."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            message: Message = pickle.loads(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield message
