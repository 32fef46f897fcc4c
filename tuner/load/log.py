"""From what workers saw to a RequestLog, complete or so far. Pure."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tuner.load.answer import Answer, judge
from tuner.load.wire import Batch, Ended, Sent
from tuner.requestlog import RequestLog
from tuner.requests import FloatArray, Requests
from tuner.target import Window

KEPT_ERRORS = 20
ERROR_CHARS = 200


@dataclass
class Transcript:
    """Everything the workers of one probe have seen so far. Times are seconds since the probe began."""

    requests: Requests
    window: Window
    _answers: dict[int, Answer] = field(default_factory=dict)
    _sent: dict[int, Sent] = field(default_factory=dict)
    _ended: dict[int, Ended] = field(default_factory=dict)

    def take(self, batch: Batch) -> None:
        """Add what one worker saw since its batch before."""
        for sent in batch.sent:
            self._sent[sent.row] = sent
            self._answers[sent.row] = Answer()
        at = 0
        for at_s, row, size in zip(batch.read_s, batch.read_row, batch.read_bytes, strict=True):
            self._answers[row].read(at_s, batch.raw[at : at + size])
            at += size
        self._ended.update((ended.row, ended) for ended in batch.ended)

    def lag_s(self) -> FloatArray:
        """Sent − due of every request so far."""
        return np.array([sent.sent_s - sent.due_s for sent in self._sent.values()])

    def log(self, ended_s: float) -> RequestLog:
        """The rows so far. What still runs is UNFOLLOWED, with the chunks that have come."""
        order = sorted(self._sent.values(), key=lambda sent: (sent.due_s, sent.row))
        rows = np.array([sent.row for sent in order], dtype=np.int64)
        due_s = np.array([sent.due_s for sent in order])
        wanted = self.requests.output_tokens[rows]
        answers = [self._answers[row] for row in rows.tolist()]
        endings = [self._ended.get(row) for row in rows.tolist()]
        verdicts = [judge(*one) for one in zip(answers, endings, wanted.tolist(), strict=True)]
        chunks = [answer.token_s() for answer in answers]
        return RequestLog(
            request=rows,
            counted=(due_s >= self.window.warmup_s) & (due_s < self.window.end_s),
            due_s=due_s,
            sent_s=np.array([sent.sent_s for sent in order]),
            ended_at_s=np.array([ended.at_s if ended else np.nan for ended in endings]),
            status=np.array([status for status, _ in verdicts], dtype=np.int64),
            prompt_tokens=self.requests.prompt_tokens[rows],
            output_tokens=np.array([answer.usage or 0 for answer in answers], dtype=np.int64),
            wanted_tokens=wanted,
            chunk_s=np.concatenate([np.zeros(0), *chunks]),
            chunk_start=np.cumsum([0, *map(len, chunks)]),
            warmup_s=self.window.warmup_s,
            window_s=self.window.measure_s,
            ended_s=ended_s,
            errors=_distinct([text for _, text in verdicts if text]),
        )


def _distinct(texts: list[str]) -> tuple[str, ...]:
    """The different texts, the most frequent first, cut to a readable length."""
    counts = Counter(text[:ERROR_CHARS] for text in texts)
    return tuple(text for text, _ in counts.most_common(KEPT_ERRORS))
