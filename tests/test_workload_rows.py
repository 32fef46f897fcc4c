"""Rows of files of real text: what each asks, and how long its answer shall be."""

from typing import Any

import pytest

from tuner.requests import Message
from tuner.workload.rows import SHAPES, Asked, row_of


def asked(*turns: tuple[str, str], tokens: int = 256) -> Asked:
    return Asked(tuple(Message(*turn) for turn in turns), tokens)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param({"prompt": "Why?"}, asked(("user", "Why?")), id="a prompt alone"),
        pytest.param({"prompt": "Why?", "output_tokens": 7}, asked(("user", "Why?"), tokens=7), id="and its answer"),
        pytest.param({"prompt": "Why?", "max_tokens": 8}, asked(("user", "Why?"), tokens=8), id="as OpenAI calls it"),
        pytest.param(
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]},
            asked(("system", "Be brief."), ("user", "Why?")),
            id="a chat",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "x" * 40}]},
            asked(("user", "Why?"), tokens=10),
            id="a chat with its answer",
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why"}, {"text": "?"}]}]},
            asked(("user", "Why?")),
            id="content in parts",
        ),
        pytest.param(
            {"conversations": [{"from": "gpt", "value": "Hello"}, {"from": "human", "value": "Why?"},
                               {"from": "gpt", "value": "y" * 8}]},
            asked(("user", "Why?"), tokens=2),
            id="a conversation that the model began",
        ),
        pytest.param({"question_id": 81, "turns": ["Why?", "And now?"]}, asked(("user", "Why?")), id="MT-Bench"),
        pytest.param(
            {"instruction": "Sum up.", "input": "", "output": "z" * 12, "text": "Below is an instruction."},
            asked(("user", "Sum up."), tokens=3),
            id="Alpaca",
        ),
        pytest.param(
            {"instruction": "Sum up.", "input": "A story.", "output": ""},
            asked(("user", "Sum up.\n\nA story.")),
            id="Alpaca, with an input and no output",
        ),
        pytest.param({"question": "Why?", "answer": "x" * 16}, asked(("user", "Why?"), tokens=4), id="a question"),
        pytest.param({"question": "Why?"}, asked(("user", "Why?")), id="a question alone"),
        pytest.param({"question": "Why?", "answer": 2}, asked(("user", "Why?")), id="a question with choices"),
        pytest.param({"text": "Why?", "answer": "x"}, asked(("user", "Why?"), tokens=1), id="a text"),
        pytest.param(
            {"text": "Why?", "answer": "x", "output_tokens": 9}, asked(("user", "Why?"), tokens=9), id="its length"
        ),
        pytest.param({"messages": None, "prompt": "Why?"}, asked(("user", "Why?")), id="a column of nothing"),
        pytest.param({"turns": []}, None, id="no turns"),
        pytest.param({"instruction": ""}, None, id="no instruction"),
        pytest.param({"conversations": [{"from": "gpt", "value": "Hello"}]}, None, id="nobody asked"),
        pytest.param({"conversations": []}, None, id="an empty conversation"),
        pytest.param({"messages": []}, None, id="an empty chat"),
        pytest.param({"prompt": ""}, None, id="an empty prompt"),
        pytest.param({"prompt": "Why?", "output_tokens": 0}, None, id="no answer wanted"),
    ],
)  # fmt: skip
def test_a_row_says_what_is_asked_and_how_long_its_answer_is(row: dict[str, Any], expected: Asked | None) -> None:
    assert row_of(row) == expected


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": 7},
        {"prompt": [1, 2]},
        {"messages": [{"role": "user"}]},
        {"turns": "Why?"},
        {"turns": [1]},
        {"body": "Why?"},
        {"text": None},
        7,
    ],
)
def test_a_row_that_is_something_else_is_a_mistake(row: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        row_of(row)


def test_a_row_of_an_unknown_shape_is_told_with_the_keys_that_are_known() -> None:
    with pytest.raises(ValueError, match=f"^a row has none of {', '.join(SHAPES)}$"):
        row_of({"body": "Why?"})
