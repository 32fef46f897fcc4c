"""stdout as commands print to it: a reader that has gone is no mistake, a full disk is the user's to mend."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from tuner.errors import BoxUnusable


@contextmanager
def guarded_stdout() -> Iterator[None]:
    """Everything printed has reached stdout when this ends; what cannot is dropped, and the command goes on.

    Raises BoxUnusable at its end where it could not be written, but not where its reader had enough (`| head`).
    """
    before = sys.stdout
    guarded = _Guarded(before)
    sys.stdout = cast(TextIO, guarded)
    try:
        yield
    finally:
        sys.stdout = before
        guarded.flush()
        if guarded.failure:
            raise BoxUnusable(f"stdout cannot be written: {guarded.failure.strerror}") from guarded.failure


class _Guarded:
    """A stream that leads to the null device once it cannot be written; `failure`: why, unless nobody reads it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """As the stream does."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """As the stream does."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Python flushes once more when it ends: what is left must lead somewhere."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        if not isinstance(error, BrokenPipeError):
            self.failure = error

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
