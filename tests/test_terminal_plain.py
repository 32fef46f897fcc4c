"""The plain view, and how the summary is printed."""

import io
import re
import threading
from pathlib import Path

import pytest

from tests.builders import a_configuration, a_crash, a_plan, a_score, a_summary, an_outcome
from tuner.config.plan import Box
from tuner.events import (
    ConfirmProgress,
    Note,
    ProbeProgress,
    StageEntered,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialStarted,
)
from tuner.target import OpenLoop
from tuner.terminal.choose import open_view, print_summary
from tuner.terminal.plain import fields, plain_view

PLAN = a_plan()
DEFAULT = an_outcome()
LOAD = OpenLoop(6.4)
EVENTS = [
    StudyStarted(PLAN, 0),
    TrialStarted(0, DEFAULT.configuration),
    StageEntered(0, "starting"),
    ProbeProgress(0, LOAD, 0.5, a_score()),
    TrialEnded(DEFAULT, DEFAULT, DEFAULT, 1),
    TrialStarted(1, a_configuration(tp=8)),
    TrialEnded(a_crash(1, a_configuration(tp=8)), DEFAULT, DEFAULT, 2),
    Note("a text with\na line break", Path("server.log")),
    ConfirmProgress(1, 5, "t0"),
    StudyEnded(a_summary()),
]


def written(*events, plan=PLAN) -> str:
    stream = io.StringIO()
    with plain_view(plan, stream) as listener:
        for event in events:
            listener(event)
    return stream.getvalue()


def test_every_line_is_utc_an_event_and_its_values():
    lines = written(*EVENTS).splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [a-z.]+ +\S+=", line) for line in lines)
    assert [line.split()[1] for line in lines] == [
        "study.start", "trial.start", "trial.measured", "trial.start", "trial.infeasible", "note", "confirm",
        "study.done",
    ]  # fmt: skip


def test_nothing_is_escaped_overwritten_or_none():
    text = written(*EVENTS)
    assert "\x1b" not in text and "\r" not in text
    assert not re.search(r"\bNone\b|\bnan\b", text)


def test_an_ended_trial_says_its_value_its_failure_and_the_best_so_far():
    text = written(*EVENTS)
    assert "n=1 id=t0 goodput_rps_per_gpu=6.95 in_slo=0.9930" in text
    assert (
        "n=2 id=t1 reason=out-of-memory said=torch.OutOfMemoryError log=server.log best=t0 best_goodput=6.95" in text
    )


def test_values_with_blanks_are_quoted_and_keep_one_line():
    assert (
        fields("note", {"text": 'a "b"\nc', "empty": "", "none": None})
        == 'note             text="a \\"b\\" c" empty=""'
    )


def test_where_nothing_happens_a_heartbeat_says_what_is_under_way():
    beaten = threading.Event()

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            if "heartbeat" in text:
                beaten.set()
            return super().write(text)

    stream = Stream()
    with plain_view(PLAN, stream, heartbeat_s=0.01) as listener:
        for event in EVENTS[:4]:
            listener(event)
        beaten.clear()
        assert beaten.wait(30)
    beat = [line for line in stream.getvalue().splitlines() if "heartbeat" in line][-1]
    assert "done=0 id=t0 stage=probing rate_rps=6.40 progress=0.50 elapsed=" in beat


def test_github_folds_each_trial_unless_trials_run_side_by_side(monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    real = a_plan(box=Box(PLAN.box.gpu, (0,), None))
    lines = written(*EVENTS[:5], plan=real).splitlines()
    assert [line.split()[0] if line.startswith(":") else line.split()[1] for line in lines] == [
        "study.start", "::group::t0", "trial.start", "trial.measured", "::endgroup::"
    ]  # fmt: skip
    assert "::" not in written(*EVENTS)


def test_stderr_that_is_no_terminal_gets_plain_lines(capsys):
    with open_view(PLAN, threading.Event()) as listener:
        listener(EVENTS[0])
    captured = capsys.readouterr()
    assert "study.start" in captured.err
    assert "\x1b" not in captured.err
    assert captured.out == ""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "stream, quiet, coloured", [(Terminal(), False, True), (Terminal(), True, False), (io.StringIO(), False, False)]
)
def test_the_headline_is_coloured_only_where_colours_are_wanted(stream, quiet, coloured, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if quiet:
        monkeypatch.setenv("NO_COLOR", "1")
    print_summary("✓ DEPLOY t21\nrest\n", stream)
    assert ("\x1b[1;32m" in stream.getvalue()) == coloured
    assert stream.getvalue().endswith("rest\n")


def test_a_stream_that_cannot_show_the_glyphs_gets_ascii():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    print_summary("✓ DEPLOY ≤ ±0.2 ━┓\n", stream)
    assert raw.getvalue() == b"v DEPLOY <= +-0.2 =+\n"


def test_ascii_can_be_asked_for():
    stream = io.StringIO()
    print_summary("✓ DEPLOY ≤ ±0.2 ━┓\n", stream, only_ascii=True)
    assert stream.getvalue() == "v DEPLOY <= +-0.2 =+\n"
