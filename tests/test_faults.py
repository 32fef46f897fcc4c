"""What is made of the last words of a server: which are blamed, which are told, and which are not."""

import pytest

from launchers.engines import ENGINES
from launchers.faults import Pattern, Symptoms, classify, last_lines
from tuner.errors import FailureKind, Fault

Kind = FailureKind
DEAD_ENGINE = """\
(APIServer pid=1) ERROR 11-21 12:02:22 [x.py:906] vllm.v1.engine.exceptions.EngineDeadError: EngineCore is gone
INFO:     Shutting down
nanobind: leaked 4 instances!
See https://nanobind.readthedocs.io/en/latest/refleaks.html
"""


@pytest.mark.parametrize(
    ("exit_code", "log", "evidence"),
    [
        pytest.param(1, "", "it said nothing", id="an empty log"),
        pytest.param(3, "starting\n\n", "starting", id="no exception: the last line"),
        pytest.param(1, "KeyError: 'x'\nbye\n", "KeyError: 'x'", id="the last exception"),
        pytest.param(1, "KeyError: 'x'\nRuntimeError: See root cause above.\n", "KeyError: 'x'", id="not its echo"),
        pytest.param(-11, "", "killed by SIGSEGV", id="a signal"),
        pytest.param(-9, "KeyError: 'x'\nReceived sigquit\n", "KeyError: 'x'", id="SGLang kills itself by SIGKILL"),
        pytest.param(1, "\x1b[31mKeyError: 'red'\x1b[0m", "KeyError: 'red'", id="colours are taken off"),
    ],
)
def test_what_no_pattern_knows_is_told_by_its_last_words(exit_code, log, evidence):
    fault = classify(exit_code, log, Symptoms(), FailureKind.DIED_UNDER_LOAD)
    assert fault.kind is FailureKind.DIED_UNDER_LOAD
    assert fault.evidence.startswith(evidence)


def test_a_server_that_says_nothing_and_dies_by_sigkill_was_killed_by_somebody():
    fault = classify(-9, "INFO 11-21 01:02:03 [core.py:12] serving\nhello\n", Symptoms(), FailureKind.DIED_UNDER_LOAD)
    assert fault.kind is FailureKind.KILLED and fault.kind.is_box_fault
    assert fault.evidence.startswith("killed by SIGKILL: the kernel's")
    assert fault.before == "serving"


@pytest.mark.parametrize(
    ("words", "kind", "evidence"),
    [
        pytest.param("", Kind.KILLED, "one of its processes vanished without a word", id="SIGKILL"),
        pytest.param("!!! Segfault encountered !!!\n", Kind.DIED_UNDER_LOAD, "!!! Segfault", id="SIGSEGV"),
        pytest.param("KeyError: 'x'\n", Kind.DIED_UNDER_LOAD, "KeyError: 'x'", id="an exception"),
    ],
)
def test_an_engine_whose_core_is_gone_is_told_by_the_last_words_of_the_core(words, kind, evidence):
    symptoms = ENGINES["vllm"].symptoms.under_load()
    fault = classify(0, words + DEAD_ENGINE, symptoms, FailureKind.DIED_UNDER_LOAD)
    assert fault.kind is kind and fault.evidence.startswith(evidence)


@pytest.mark.parametrize(
    "remark",
    [
        "(APIServer pid=1) WARNING 11-21 01:09:54 [x.py:1] NotImplementedError: fp8 is not supported on this device",
        "/env/sglang/fla/utils.py:223: UserWarning: Triton is not supported on current platform, roll back to CPU.",
    ],
)
def test_a_mere_warning_is_not_blamed(remark):
    log = f"{remark}\nKeyError: 'x'\n"
    fault = classify(1, log, ENGINES["vllm"].symptoms, FailureKind.EXITED_AT_START)
    assert fault == Fault(FailureKind.EXITED_AT_START, "KeyError: 'x'")


def test_patterns_count_in_their_order_and_evidence_is_short():
    patterns = (Pattern("b", FailureKind.BAD_FLAG), Pattern("a", FailureKind.PORT_IN_USE))
    fault = classify(1, "a\nb" + "x" * 10_000, Symptoms(patterns), FailureKind.EXITED_AT_START)
    assert fault.kind is FailureKind.BAD_FLAG
    assert len(fault.evidence) == 300


def test_the_last_lines_are_those_that_say_something():
    log = "(EngineCore pid=9) INFO 11-21 01:02:03 [core.py:12] loading weights\n \n[2026-11-21 01:02:03] on it\n\n"
    log += 'INFO:     127.0.0.1:39952 - "GET /health HTTP/1.1" 200 OK\n'
    log += '  File "server.py", line 3, in answer\n    return str(error)\n'
    assert last_lines(log) == ("on it", "loading weights")
    assert last_lines("") == ("", "")
