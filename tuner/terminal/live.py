"""The live view: redrawn in place at the foot of a terminal while what has ended scrolls up above it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tuner.config.plan import Plan
from tuner.events import Event, Listener, Note, StudyStarted, TrialEnded
from tuner.terminal.keys import heard
from tuner.terminal.progress import advanced, beginning
from tuner.terminal.screen import Keys, Moment, end_line, log_lines, opening_line, screen, window_title

REDRAWS_PER_S = 4
STDIN_FD = 0


@contextmanager
def live_view(plan: Plan, console: Console, enough: threading.Event) -> Iterator[Listener]:
    """A listener that draws on `console`. At the end the view is taken away; what scrolled up stays.

    The key q sets `enough`: the search is to end. Q is Ctrl-C.
    """
    view = _View(plan, console, enough)
    with (
        heard(view.press, STDIN_FD) as view.hears_keys,
        Live(
            console=console,
            get_renderable=view.draw,
            refresh_per_second=REDRAWS_PER_S,
            vertical_overflow="crop",
            transient=True,
        ) as live,
    ):
        view.live = live
        yield view.hear
    console.print()


class _View:
    """What is drawn, between the thread that runs the study and the one that redraws."""

    def __init__(self, plan: Plan, console: Console, enough: threading.Event) -> None:
        self.live: Live | None = None
        self.hears_keys = False
        self._enough = enough
        self._console = console
        self._progress = beginning(plan)
        self._began = time.perf_counter()
        self._lock = threading.Lock()

    def hear(self, event: Event) -> None:
        with self._lock:
            self._progress = advanced(self._progress, event, time.perf_counter() - self._began)
        line = self._permanent(event)
        if line and self.live is not None:
            self.live.console.print(Text(line), no_wrap=True, overflow="ellipsis")
        self._console.set_window_title(window_title(self._progress))

    def press(self, key: str) -> None:
        if key == "q":
            self._enough.set()
        elif key == "Q":
            os.kill(os.getpid(), signal.SIGINT)

    def draw(self) -> Group:
        width, height = self._console.size
        keys: Keys = ("ending" if self._enough.is_set() else "heard") if self.hears_keys else "unheard"
        moment = Moment(time.perf_counter() - self._began, datetime.now(), keys)
        # One column stays free: a full line makes some terminals wrap when they are resized.
        return Group(*screen(self._progress, moment, width - 1, height - 1))

    def _permanent(self, event: Event) -> str:
        """The line that stays above the view; empty where the event leaves none."""
        hour = f"{datetime.now():%H:%M}"
        match event:
            case StudyStarted(plan, resumed):
                again = f"; resumed after {resumed} trials" if resumed else ""
                return f"{opening_line(plan)}{again}"
            case TrialEnded(outcome):
                return "\n".join([f"{hour} {end_line(self._progress, outcome)}", *log_lines(outcome)])
            case Note(text, log):
                return f"{hour} {text}{f' → {log}' if log else ''}"
        return ""
