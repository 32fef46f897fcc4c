"""The live view: what it knows, and what it draws in a given width and height."""

import io
import os
import pty
import select
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from tests.builders import a_configuration, a_crash, a_miss, a_plan, a_score, an_outcome
from tuner.config.plan import Box
from tuner.events import (
    ConfirmProgress,
    Event,
    Note,
    ProbeProgress,
    StageEntered,
    StudyStarted,
    TrialEnded,
    TrialStarted,
)
from tuner.target import OpenLoop
from tuner.terminal.live import live_view
from tuner.terminal.progress import Progress, advanced, beginning
from tuner.terminal.screen import Moment, bar, end_line, opening_line, screen, window_title

PLAN = a_plan()
REAL = a_plan(box=Box(PLAN.box.gpu, (0,), None), trials=None, budget_s=7200.0)
NOON = Moment(600.0, datetime(2026, 11, 20, 12, 0))
DEFAULT = an_outcome(value_rps_per_gpu=5.7)
WINNER = an_outcome(1, a_configuration(token_budget=512), value_rps_per_gpu=6.9)


def after(*events: Event, plan=PLAN) -> Progress:
    progress = beginning(plan)
    for second, event in enumerate(events):
        progress = advanced(progress, event, float(second))
    return progress


def drawn(progress: Progress, width: int = 80, height: int = 24) -> list[str]:
    return [line.plain for line in screen(progress, NOON, width, height)]


def under_way(plan=PLAN) -> Progress:
    """Two trials done, one crashed, four running, one of them probing."""
    probing = OpenLoop(6.4)
    return after(
        StudyStarted(plan, 0),
        TrialStarted(0, DEFAULT.configuration),
        TrialEnded(DEFAULT, DEFAULT, DEFAULT, 1),
        TrialEnded(WINNER, WINNER, DEFAULT, 2),
        TrialEnded(a_crash(2, a_configuration(tp=8)), WINNER, DEFAULT, 3),
        *[TrialStarted(trial, a_configuration(token_budget=256 * trial)) for trial in range(3, 7)],
        StageEntered(3, "probing", probing),
        ProbeProgress(3, probing, 0.65, a_score(6.4, 0.961)),
        plan=plan,
    )


@pytest.mark.parametrize("width, height", [(132, 50), (120, 30), (80, 24), (60, 20), (40, 10)])
def test_no_line_is_wider_and_no_screen_higher_than_the_terminal(width, height):
    for progress in (beginning(PLAN), under_way(), under_way(REAL)):
        lines = drawn(progress, width, height)
        assert max(len(line) for line in lines) <= width
        assert len(lines) <= height


@pytest.mark.parametrize("width, height", [(132, 50), (80, 24), (60, 20), (40, 6)])
def test_the_best_is_never_dropped(width, height):
    assert any(line.startswith("BEST  t1  6.90 req/s/GPU") for line in drawn(under_way(), width, height))


def test_the_best_is_compared_with_the_default_and_named_by_its_difference():
    lines = drawn(under_way(), 132, 40)
    best = lines.index(next(line for line in lines if line.startswith("BEST")))
    assert "+21 % vs default (5.70)" in lines[best]
    assert "screened once, not confirmed" in lines[best]
    assert lines[best + 1].strip() == "budget 512"


def test_before_anything_holds_the_slo_the_nearest_is_named():
    assert "BEST  nothing measured yet" in drawn(after(StudyStarted(PLAN, 0)))
    miss = a_miss(0)
    lines = drawn(after(TrialEnded(miss, miss, miss, 1)))
    assert "none holds the SLO yet; closest t0: 62.0 % in SLO at 1.00 req/s" in " ".join(lines)


def test_a_default_that_holds_no_load_is_no_divisor():
    miss = a_miss(0)
    assert "default holds no load" in " ".join(drawn(after(TrialEnded(WINNER, WINNER, miss, 2)), 120))


def test_trials_side_by_side_get_a_line_each():
    text = "\n".join(drawn(under_way()))
    assert "probing 6.40 req/s  65%" in text
    assert "t6  budget 1536" in text


def test_a_lone_trial_shows_its_probe_against_the_limits():
    load = OpenLoop(6.4)
    progress = after(TrialStarted(3, a_configuration()), ProbeProgress(3, load, 0.5, a_score(6.4, 0.961)), plan=REAL)
    text = "\n".join(drawn(progress, 132, 40))
    assert "in SLO 96.1 % ✗" in text
    assert "TTFT 185 ms of 200 ms" in text


def test_a_budget_in_real_time_says_when_it_ends_at_the_latest():
    assert "10m00s of 2h00m · ends ≤ 13:50" in "\n".join(drawn(after(StudyStarted(REAL, 0), plan=REAL)))


def test_while_finalists_run_again_the_bar_counts_them():
    progress = advanced(under_way(), ConfirmProgress(3, 10, "t1"), 20.0)
    assert "confirming 3/10" in drawn(progress)[1]


def test_the_table_ranks_by_goodput_and_keeps_the_default():
    many = [an_outcome(n, a_configuration(token_budget=128 * n), value_rps_per_gpu=6.0) for n in range(3, 40)]
    progress = after(*[TrialEnded(one, WINNER, DEFAULT, 1) for one in (DEFAULT, WINNER, *many)])
    lines = drawn(progress, 80, 14)
    table = lines[lines.index(next(line for line in lines if "differs from the default" in line)) + 1 :]
    assert table[0].split()[0] == "t1"
    assert table[-1].split()[0] == "t0"


def test_events_of_an_unknown_trial_change_nothing():
    assert after(StageEntered(9, "starting")) == beginning(PLAN)


def test_a_resumed_study_counts_what_was_done():
    assert after(StudyStarted(PLAN, 12)).done == 12


@pytest.mark.parametrize(
    "outcome, line",
    [
        (WINNER, "t1 6.90 req/s/GPU, best so far  budget 512"),
        (DEFAULT, "t0 5.70 req/s/GPU  (engine default)"),
        (a_crash(2, a_configuration(tp=8)), "t2 out of memory  tp 8 → server.log"),
        (replace(WINNER, trial=3, state="pruned"), "t3 stopped early, ~6.90 req/s/GPU  budget 512"),
    ],
)
def test_an_ended_trial_leaves_one_line(outcome, line):
    assert end_line(under_way(), outcome) == line


def test_the_first_line_says_whether_it_is_simulated():
    assert opening_line(PLAN) == "simulated 8 × H100, in virtual time: no GPU is used"
    assert opening_line(REAL).startswith("1 × H100: TTFT ≤ 200 ms")


@pytest.mark.parametrize("frac, text", [(0, "────"), (0.5, "━━──"), (0.625, "━━╸─"), (1, "━━━━"), (7, "━━━━")])
def test_a_bar_fills_in_half_columns(frac, text):
    assert bar(frac, 4) == text


def test_what_has_ended_stays_above_the_live_view():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, height=30, color_system=None)
    with live_view(PLAN, console, threading.Event()) as listener:
        listener(StudyStarted(PLAN, 2))
        listener(TrialEnded(WINNER, WINNER, DEFAULT, 2))
        listener(Note("the knob foo is dropped", Path("server.log")))
    text = stream.getvalue()
    assert "simulated 8 × H100, in virtual time: no GPU is used; resumed after 2 trials" in text
    assert "t1 6.90 req/s/GPU, best so far  budget 512" in text
    assert "the knob foo is dropped → server.log" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


SHOWN = """
import threading
from tests.builders import a_plan
from tuner.events import StudyStarted
from tuner.terminal.choose import open_view
with open_view(a_plan(), threading.Event()) as listener:
    listener(StudyStarted(a_plan(), 0))
"""


def on_a_terminal(**environment: str) -> bytes:
    """What a study's view writes when stderr is a terminal."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "NO_COLOR"}}
    command = [sys.executable, "-c", SHOWN]
    root = Path(__file__).parent.parent
    env = {**kept, "TERM": "xterm", "PYTHONUTF8": "1", **environment}
    done = subprocess.run(command, stderr=theirs, env=env, cwd=root, check=True, timeout=60, stdout=subprocess.PIPE)
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 0)[0]:
        try:
            seen += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    assert done.stdout == b""
    return seen


@pytest.mark.parametrize(
    "environment, is_live", [({}, True), ({"CI": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, True)]
)
def test_a_terminal_gets_the_live_view_unless_the_environment_asks_for_quiet(environment, is_live):
    seen = on_a_terminal(**environment)
    assert (b"\x1b[?25l" in seen) == is_live
    assert (b"study.start" in seen) != is_live


ASKED = """
import os, threading
from tests.builders import a_plan
from tuner.events import StudyStarted
from tuner.terminal.choose import open_view
enough = threading.Event()
try:
    with open_view(a_plan(), enough, only_ascii=True) as listener:
        listener(StudyStarted(a_plan(), 0))
        os.write(1, b"shown\\n")
        enough.wait()
        os.write(1, b"enough\\n")
        threading.Event().wait()
except KeyboardInterrupt:
    os.write(1, b"interrupted\\n")
"""


def read_all(terminal_fd: int, into: list[bytes]) -> None:
    """Until its other end is closed."""
    with suppress(OSError):
        while seen := os.read(terminal_fd, 65536):
            into.append(seen)


def test_q_ends_the_search_and_capital_q_is_ctrl_c_and_the_terminal_gets_its_ways_back():
    ours, theirs = pty.openpty()
    ways = termios.tcgetattr(theirs)
    env = {name: value for name, value in os.environ.items() if name != "CI"} | {"TERM": "xterm", "PYTHONUTF8": "1"}
    # A session of its own, with this terminal: only who is in its foreground hears its keys.
    script = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{ASKED}"
    root = Path(__file__).parent.parent
    shown: list[bytes] = []
    # A terminal that nobody reads is full after a few redraws.
    reading = threading.Thread(target=read_all, args=(ours, shown))
    reading.start()
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        env=env,
        cwd=root,
        start_new_session=True,
    ) as tuner:
        assert tuner.stdout
        assert tuner.stdout.readline() == b"shown\n"
        os.write(ours, b"xq")
        assert tuner.stdout.readline() == b"enough\n"
        os.write(ours, b"Q")
        assert tuner.stdout.readline() == b"interrupted\n"
        assert tuner.wait(timeout=60) == 0
    assert termios.tcgetattr(theirs) == ways
    os.close(theirs)
    reading.join()
    os.close(ours)
    assert b"".join(shown).isascii() and b"q end the search" in b"".join(shown)


@pytest.mark.parametrize(
    "progress, keys, foot",
    [
        (under_way(), "heard", "q end the search, confirm the best · Q stop now, keep results"),
        (under_way(), "ending", "the search ends with what is running · Q stop now, keep results"),
        (advanced(under_way(), ConfirmProgress(3, 10, "t1"), 20.0), "heard", "Q stop now, keep results"),
    ],
)
def test_the_last_line_says_what_keys_do(progress, keys, foot):
    assert screen(progress, replace(NOON, keys=keys), 80, 24)[-1].plain == foot
    assert "results" not in "\n".join(line.plain for line in screen(progress, NOON, 80, 24)[2:])


def test_the_window_is_named_by_how_far_the_study_is_and_its_best():
    assert window_title(beginning(PLAN)) == "tune 0/40"
    assert window_title(under_way()) == "tune 3/40 · best 6.90 req/s/GPU"


def test_no_color_is_honoured():
    assert b"\x1b[32m" in on_a_terminal()
    assert b"\x1b[32m" not in on_a_terminal(NO_COLOR="1")
