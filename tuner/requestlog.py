"""RequestLog: the raw timings of one probe."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from tuner.engineview import EngineView, Scrape
from tuner.requests import FloatArray, IntArray


class Status(IntEnum):
    """How a request ended. Only OK can be good; UNFOLLOWED requests were outside the window when the probe ended."""

    OK = 0
    FAILED = 1
    TIMED_OUT = 2
    TRUNCATED = 3
    EMPTY = 4
    UNFOLLOWED = 5


@dataclass(frozen=True)
class ClientHealth:
    """How well the load generator kept up.

    `send_lag_p99_s`: sent − due. `run_queue_wait_s`: what its workers waited for a core, together. Of the busiest
    worker: `cpu_frac`, its share of a core; `busy_frac`, that and its waiting. `wake_lag_p99_s`: how late the
    latest worker's event loop woke, and so how late it read. `in_doubt`: counted requests that miss a limit by no
    more than their worker stood still meanwhile. `voided`: why the probe had to be measured a second time, with more
    workers.
    """

    send_lag_p99_s: float
    run_queue_wait_s: float
    busy_frac: float
    workers: int
    cpu_frac: float = 0.0
    voided: str | None = None
    wake_lag_p99_s: float = 0.0
    in_doubt: int = 0


@dataclass(frozen=True)
class RequestLog:
    """One row for each request that was scheduled, in order of due time; times in seconds since the probe began.

    `counted` (n,) bool: due inside the window. `sent_s` is NaN where a request was never sent. `chunk_s` holds the
    times of all token-bearing chunks, request after request; row i has `chunk_s[chunk_start[i]:chunk_start[i+1]]`.
    `output_tokens` is what the server's usage record says (0 if it said nothing), `wanted_tokens` what was asked for:
    the most there can be, where answers end naturally.
    The window is [`warmup_s`, `warmup_s` + `window_s`), `ended_s` when the probe was over. `stopped`:
    why a probe ended early.

    None in virtual time: `client`; `began_s`, when the probe began on the clock of `perf_counter`; `reusable_tokens`
    (n,), the tokens that a prompt shares with the beginning of one sent before it, which an endless prefix cache
    would have held. `cached_tokens` (n,): those that the server says it had cached; None where it never said.
    `engine`: what the engine said of itself, None where it said nothing; `scrapes` that came from.
    """

    request: IntArray
    counted: npt.NDArray[np.bool_]
    due_s: FloatArray
    sent_s: FloatArray
    ended_at_s: FloatArray
    status: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    wanted_tokens: IntArray
    chunk_s: FloatArray
    chunk_start: IntArray
    warmup_s: float
    window_s: float
    ended_s: float
    errors: tuple[str, ...] = ()
    stopped: str | None = None
    client: ClientHealth | None = None
    began_s: float | None = None
    reusable_tokens: IntArray | None = None
    cached_tokens: IntArray | None = None
    engine: EngineView | None = None
    scrapes: tuple[Scrape, ...] = ()

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.due_s)

    @property
    def first_s(self) -> FloatArray:
        """Time of the first token-bearing chunk, (n,); NaN where there was none."""
        return self._chunk_at(self.chunk_start[:-1])

    @property
    def last_s(self) -> FloatArray:
        """Time of the last token-bearing chunk, (n,); NaN where there was none."""
        return self._chunk_at(self.chunk_start[1:] - 1)

    def _chunk_at(self, index: IntArray) -> FloatArray:
        times = np.full(len(self), np.nan)
        some = np.diff(self.chunk_start) > 0
        times[some] = self.chunk_s[index[some]]
        return times
