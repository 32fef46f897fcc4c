"""From what workers saw to a RequestLog, complete or so far. Pure."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tuner.load.answer import Answer, judge
from tuner.load.wire import Batch, Ended, Ending, Sent
from tuner.requestlog import RequestLog, Status
from tuner.requests import FloatArray, IntArray, Requests
from tuner.target import Window

KEPT_ERRORS = 20
ERROR_CHARS = 200


@dataclass(frozen=True)
class _Result:
    ended_at_s: float
    status: Status
    output_tokens: int
    prompt_tokens: int
    cached_tokens: int | None
    token_s: FloatArray
    error: str


@dataclass
class Transcript:
    """Everything the workers of one probe have seen so far. Times are seconds since the probe began."""

    requests: Requests
    window: Window
    _sent: dict[int, Sent] = field(default_factory=dict)
    _running: dict[int, Answer] = field(default_factory=dict)
    _results: dict[int, _Result] = field(default_factory=dict)
    _silent_since_s: float | None = None

    def take(self, batch: Batch) -> None:
        """Add what one worker saw since its batch before."""
        for sent in batch.sent:
            self._sent[sent.row] = sent
            self._running[sent.row] = Answer()
        at = 0
        for at_s, row, size in zip(batch.read_s, batch.read_row, batch.read_bytes, strict=True):
            self._running[row].read(at_s, batch.raw[at : at + size])
            at += size
        for ended in batch.ended:
            self._results[ended.row] = self._result(ended.row, self._running.pop(ended.row), ended)
        self._listen_for_silence(batch)

    def silent_s(self, now_s: float) -> float:
        """For how long there have been requests without any sign of the server: not a byte, not even a refusal."""
        return now_s - self._silent_since_s if self._silent_since_s is not None else 0.0

    def lag_s(self) -> FloatArray:
        """Sent − due of every request so far."""
        return np.array([sent.sent_s - sent.due_s for sent in self._sent.values()])

    def log(self, ended_s: float) -> RequestLog:
        """The rows so far. What still runs is UNFOLLOWED, with the chunks that have come."""
        order = sorted(self._sent.values(), key=lambda sent: (sent.due_s, sent.row))
        rows = np.array([sent.row for sent in order], dtype=np.int64)
        due_s = np.array([sent.due_s for sent in order])
        running = {row: self._result(row, answer, None) for row, answer in self._running.items()}
        results = [self._results.get(row) or running[row] for row in rows.tolist()]
        return RequestLog(
            request=rows,
            counted=(due_s >= self.window.warmup_s) & (due_s < self.window.end_s),
            due_s=due_s,
            sent_s=np.array([sent.sent_s for sent in order]),
            ended_at_s=np.array([result.ended_at_s for result in results]),
            status=np.array([result.status for result in results], dtype=np.int64),
            prompt_tokens=np.array([result.prompt_tokens for result in results], dtype=np.int64),
            output_tokens=np.array([result.output_tokens for result in results], dtype=np.int64),
            wanted_tokens=self.requests.output_tokens[rows],
            chunk_s=np.concatenate([np.zeros(0), *(result.token_s for result in results)]),
            chunk_start=np.cumsum([0, *(len(result.token_s) for result in results)]),
            warmup_s=self.window.warmup_s,
            window_s=self.window.measure_s,
            ended_s=ended_s,
            errors=_distinct([result.error for result in results if result.error]),
            cached_tokens=_said([result.cached_tokens for result in results]),
        )

    def _listen_for_silence(self, batch: Batch) -> None:
        """A request that has timed out says nothing; silence goes on over the next one."""
        if batch.sent and self._silent_since_s is None:
            self._silent_since_s = batch.sent[0].sent_s
        signs_s = [ended.at_s for ended in batch.ended if ended.how in (Ending.BODY_ENDED, Ending.BROKE)]
        signs_s += batch.read_s[-1:]
        if signs_s:
            self._silent_since_s = max(signs_s) if self._running else None

    def _result(self, row: int, answer: Answer, ended: Ended | None) -> _Result:
        status, error = judge(answer, ended, self.requests.answer_lengths(row))
        ended_at_s = np.nan if ended is None or status is Status.UNFOLLOWED else ended.at_s
        # How long a text is in tokens, only the server knows.
        asked = answer.asked if self.requests.chats and answer.asked else int(self.requests.prompt_tokens[row])
        token_s = answer.token_s()
        # An answer that was cut off has no record of its tokens: then a chunk is taken for one.
        tokens = len(token_s) if answer.usage is None else answer.usage
        return _Result(ended_at_s, status, tokens, asked, answer.cached, token_s, error)


def _said(counts: list[int | None]) -> IntArray | None:
    """Counts where the server said any; 0 for those it did not say, as vLLM doesn't where there is nothing to say."""
    if all(count is None for count in counts):
        return None
    return np.array([count or 0 for count in counts], dtype=np.int64)


def _distinct(texts: list[str]) -> tuple[str, ...]:
    """The different texts, the most frequent first, cut to a readable length."""
    counts = Counter(text[:ERROR_CHARS] for text in texts)
    return tuple(text for text, _ in counts.most_common(KEPT_ERRORS))
