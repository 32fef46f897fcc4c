"""Knobs as data: what a knob must say, and its default by hardware."""

from typing import Any

import pytest

from tests.builders import a_gpu
from tuner.config.engine import EngineSpec, Knob, KnobValue
from tuner.config.gpu import Gpu
from tuner.config.strict import parse
from tuner.errors import ConfigError

WHY = "A sentence that is long enough to be a reason."
RANGE: dict[str, Any] = {"why": WHY, "flag": "--x", "range": [8, 64], "default": 8}
CHOICES: dict[str, Any] = {"why": WHY, "choices": {"on": ["--x"], "off": []}, "default": "on"}


@pytest.mark.parametrize(
    "content, message",
    [
        pytest.param({"why": WHY, "default": 1}, "give either range or choices", id="neither range nor choices"),
        pytest.param({**RANGE, "choices": {"a": [], "b": []}}, "give either range or choices", id="both"),
        pytest.param({**RANGE, "flag": None}, "a range needs the flag that takes its value", id="no flag"),
        pytest.param({**RANGE, "flag": "x"}, "flag: String should match pattern '^--', found 'x'", id="no dashes"),
        pytest.param({**RANGE, "range": [64, 8]}, "range: 64 is above 8", id="range upside down"),
        pytest.param({**RANGE, "range": [0, 64], "scale": "log2"}, "range: a log2 scale begins above 0, not at 0",
                     id="log2 from 0"),
        pytest.param({**RANGE, "limits": [16, 64]}, "range: 8 to 64 is outside the limits, 16 to 64",
                     id="range outside the limits"),
        pytest.param({**RANGE, "default": 7}, "the default 7 is not among 8 to 64", id="default out of range"),
        pytest.param({**RANGE, "default": True}, "the default True is not among 8 to 64", id="default no number"),
        pytest.param({**RANGE, "step": 0}, "step: should be greater than 0, found 0", id="no step"),
        pytest.param({**CHOICES, "flag": "--x"}, "choices spell out their flags: leave out flag and limits",
                     id="choices with a flag"),
        pytest.param({**CHOICES, "default": True}, "the default True is not among the choices 'on', 'off' "
                     "(write on and off in quotes)", id="unquoted on"),
        pytest.param({**CHOICES, "choice_needs": {"of": ["gpu"]}}, "choice_needs: 'of' is not among the choices "
                     "'on', 'off' (write on and off in quotes)", id="needs of no choice"),
        pytest.param({**CHOICES, "needs": ["gpus"]}, "needs.0: should be 'gpu', 'real_text', 'draft' or 'experts', "
                     "found 'gpus'",
                     id="unknown need"),
        pytest.param({**CHOICES, "why": "because"}, "why: String should have at least 20 characters, found 'because'",
                     id="no real reason"),
        pytest.param({**RANGE, "default": [{"value": 8, "cpu": True}]}, "the last case of default must hold "
                     "everywhere: give it a value and no condition", id="defaults that may not hold"),
        pytest.param({**RANGE, "default": [{"value": 8, "cup": True}]}, "default.0: unknown key 'cup' (did you mean "
                     "'cpu'?); allowed: 'cpu', 'gpus', 'min_memory_gib', 'value'", id="typo in a default"),
        pytest.param({**RANGE, "default": {"h100": 8}}, "default.0.value: a number, a text or a truth value is "
                     "expected", id="default as a mapping"),
    ],
)  # fmt: skip
def test_a_knob_that_cannot_work_is_refused_with_a_reason(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        parse(Knob, content, "knob")
    assert str(mistake.value) == f"knob: {message}"


CASES = [
    {"value": 1, "cpu": True},
    {"value": 2, "gpus": ["a100"]},
    {"value": 3, "min_memory_gib": 70},
    {"value": 4},
]


@pytest.mark.parametrize(
    "gpu, default",
    [
        pytest.param(a_gpu(is_cpu=True), 1, id="a CPU, however large"),
        pytest.param(a_gpu(name="a100", memory_gib=80), 2, id="an exception by name"),
        pytest.param(a_gpu(memory_gib=70), 3, id="exactly the memory"),
        pytest.param(a_gpu(memory_gib=69.9), 4, id="less memory"),
    ],
)
def test_the_first_default_that_holds_counts(gpu: Gpu, default: int) -> None:
    knob = Knob(why=WHY, flag="--x", range=(1, 4), default=CASES)
    assert knob.default_on(gpu) == default


def test_one_default_holds_everywhere() -> None:
    assert Knob(**CHOICES).default_on(a_gpu(is_cpu=True)) == "on"


@pytest.mark.parametrize(
    "value, accepted", [(1, True), (100, True), (0.5, False), (101, False), (True, False), ("8", False)]
)
def test_the_limits_are_what_a_knob_accepts_not_its_range(value: KnobValue, accepted: bool) -> None:
    assert Knob(**RANGE, limits=(1, 100)).accepts(value) is accepted


def _engine(**when: Any) -> dict[str, Any]:
    knobs = {"a": CHOICES, "b": {**RANGE, "when": when}, "c": RANGE}
    return {"title": "x", "source": "y", "tuned_versions": "1", "knobs": knobs}


@pytest.mark.parametrize(
    "when, message",
    [
        ({"c": [8]}, "knobs.b.when: no knob 'c' further up; there is: a"),
        ({"a": ["of"]}, "knobs.b.when.a: 'of' is not among the choices 'on', 'off' (write on and off in quotes)"),
    ],
)
def test_a_condition_is_about_a_value_of_a_knob_further_up(when: dict[str, Any], message: str) -> None:
    parse(EngineSpec, _engine(a=["on"]), "e")
    with pytest.raises(ConfigError) as mistake:
        parse(EngineSpec, _engine(**when), "e")
    assert str(mistake.value) == f"e: {message}"


def test_a_typo_in_a_knob_lists_the_keys_of_knobs() -> None:
    content = _engine() | {"knobs": {"a": {**CHOICES, "whne": {}}}}
    with pytest.raises(
        ConfigError, match=r"e: knobs\.a: unknown key 'whne' \(did you mean 'when'\?\); .*'only_if_ask"
    ):
        parse(EngineSpec, content, "e")


@pytest.mark.parametrize(
    "since, until, version, exists",
    [
        (None, None, "0.32.0", True),
        ("0.31", None, "0.32.0+cpu", True),
        ("0.31", None, "0.31.0", True),
        ("0.5.19", None, "0.5.9", False),
        ("0.31", None, "0.30.2", False),
        (None, "0.26", "0.26.1", True),
        (None, "0.26", "0.27.0", False),
        ("0.31", None, "", True),
        ("0.31", None, "unknown", True),
    ],
)
def test_a_knob_exists_from_its_first_to_its_last_version(
    since: str | None, until: str | None, version: str, exists: bool
) -> None:
    assert Knob(**RANGE, since=since, until=until).exists_in(version) == exists
