"""Which view a study gets, and how its summary is printed: by what the streams can show."""

import os
import sys
import threading
from contextlib import AbstractContextManager
from typing import TextIO, cast

from tuner.config.plan import Plan
from tuner.events import Listener

ASCII = str.maketrans({"━": "=", "╸": "-", "─": "-", "┃": "|", "│": "|", "┤": "+", "└": "+", "┬": "+", "┓": "+",
                       "┗": "+", "◆": "*", "■": "#", "✓": "v", "✗": "x", "▽": "!", "‖": "=", "·": "-", "…": "..",
                       "≤": "<=", "≥": ">=", "±": "+-", "×": "x", "−": "-", "—": "-", "→": "->"})  # fmt: skip
"""What is printed with --ascii, and where the stream's encoding has not the character."""

NARROW = {code: spelt[:1] for code, spelt in ASCII.items()}
"""The same where columns must keep their places."""

COLOURS = {"✓": "32", "?": "33", "▽": "33", "‖": "33"}
"""The ANSI colour of the first line, by its glyph."""


def open_view(
    plan: Plan, enough: threading.Event, *, plain: bool = False, only_ascii: bool = False
) -> AbstractContextManager[Listener]:
    """The view for this terminal on stderr: live, or plain lines where it is no terminal, CI, dumb, or asked for.

    A live view sets `enough` when its user wants the search to end.
    """
    stream = cast(TextIO, _OnlyAscii(sys.stderr)) if only_ascii else sys.stderr
    if plain or not _is_lively(sys.stderr):
        from tuner.terminal.plain import plain_view

        return plain_view(plan, stream)
    from rich.console import Console

    from tuner.terminal.live import live_view

    return live_view(plan, Console(file=stream, highlight=False), enough)


def print_summary(text: str, stream: TextIO, *, only_ascii: bool = False) -> None:
    """Print the final summary, its first line in the verdict's colour where the stream shows colours."""
    encodable = text.translate(ASCII) if only_ascii else _encodable(text, stream)
    first, _, rest = encodable.partition("\n")
    colour = COLOURS.get(text[:1])
    if colour and stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        first = f"\x1b[1;{colour}m{first}\x1b[0m"
    stream.write(f"{first}\n{rest}")
    stream.flush()


def _is_lively(stream: TextIO) -> bool:
    quiet = os.environ.get("TERM") == "dumb" or bool(os.environ.get("CI"))
    return stream.isatty() and not quiet and _encodable("━", stream) == "━"


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(ASCII).encode(encoding, "replace").decode(encoding)
    return text


class _OnlyAscii:
    """A stream that spells what is written to it in ASCII, a character for each."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(text.translate(NARROW))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
