"""Recorder: what a worker saw, in flat buffers that cost the garbage collector nothing."""

from array import array
from time import perf_counter

from tuner.load.wire import Batch, Ended, Ending, Sent


class Recorder:
    """Keeps time since `start_s` (on the clock of `perf_counter`) and what happened since the last `take`."""

    def __init__(self, start_s: float) -> None:
        self.start_s = start_s
        self._empty()

    def now_s(self) -> float:
        """Seconds since the probe began."""
        return perf_counter() - self.start_s

    def sent(self, row: int, due_s: float) -> None:
        """Note that request `row` leaves now."""
        self._sent.append(Sent(row, due_s, self.now_s()))

    def read(self, row: int, read_s: float, data: bytes) -> None:
        """Note bytes of the answer to `row` that came at `read_s` on the clock of `perf_counter`."""
        self._read_s.append(read_s - self.start_s)
        self._read_row.append(row)
        self._read_bytes.append(len(data))
        self._raw += data

    def ended(self, row: int, how: Ending, http_status: int, reason: str) -> Ended:
        """Note that request `row` is over now."""
        ended = Ended(row, self.now_s(), how, http_status, reason)
        self._ended.append(ended)
        return ended

    def take(self) -> Batch:
        """Everything since the last `take`."""
        batch = Batch(self._read_s, self._read_row, self._read_bytes, bytes(self._raw), self._sent, self._ended)
        self._empty()
        return batch

    def _empty(self) -> None:
        self._read_s = array("d")
        self._read_row = array("q")
        self._read_bytes = array("q")
        self._raw = bytearray()
        self._sent: list[Sent] = []
        self._ended: list[Ended] = []
