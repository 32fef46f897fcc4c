"""Builders of request logs for tests."""

from collections.abc import Sequence

import numpy as np

from tuner.requestlog import RequestLog, Status

Row = tuple[float, Sequence[float]]
"""Due time and the times of the token-bearing chunks, seconds."""


def a_log(rows: Sequence[Row], **overrides: object) -> RequestLog:
    """A log of healthy requests, one token a chunk, all counted in a window of 10 s, sent when due."""
    chunks = [list(times) for _, times in rows]
    due = np.array([due for due, _ in rows], dtype=float)
    tokens = np.array([len(times) for times in chunks], dtype=np.int64)
    n = len(rows)
    values: dict[str, object] = {
        "request": np.arange(n),
        "counted": np.ones(n, dtype=bool),
        "due_s": due,
        "sent_s": due.copy(),
        "ended_at_s": np.array([times[-1] if len(times) else d for d, times in rows], dtype=float),
        "status": np.full(n, int(Status.OK)),
        "prompt_tokens": np.full(n, 100),
        "output_tokens": tokens,
        "wanted_tokens": tokens,
        "chunk_s": np.array([time for times in chunks for time in times], dtype=float),
        "chunk_start": np.concatenate([[0], np.cumsum(tokens)]).astype(np.int64),
        "warmup_s": 0.0,
        "window_s": 10.0,
        "ended_s": 10.0,
    }
    return RequestLog(**(values | overrides))  # type: ignore[arg-type]
