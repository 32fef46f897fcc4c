"""Rows of files of real text: what each asks, and how long its answer was or shall be. Pure."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.requests import Message
from tuner.workload.chats import Chat, tokens_of

DEFAULT_OUTPUT_TOKENS = 256
"""Where a row says nothing about its answer."""
LENGTHS = ("output_tokens", "max_tokens")
ASKED_BY = ("human", "user")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Asked:
    """One recorded prompt and how long its answer was or shall be, in tokens."""

    chat: Chat
    output_tokens: int


def row_of(row: Row) -> Asked | None:
    """What a row of any of `SHAPES` asks; None where it lacks a prompt, or a conversation its answer.

    A chat that ends with the assistant's turn has its answer there: that turn says how long it is, unless `LENGTHS`
    do. Raises ValueError, KeyError or TypeError where it is something else.
    """
    shape = next((key for key in SHAPES if key in row and row[key] is not None), None)
    if shape is None:
        raise ValueError(f"a row has none of {', '.join(SHAPES)}")
    chat = SHAPES[shape](row)
    wanted = next((row[key] for key in LENGTHS if row.get(key) is not None), None)
    if chat and chat[-1].role == "assistant":
        wanted = tokens_of(chat[-1].content) if wanted is None else wanted
        chat = chat[:-1]
    output_tokens = DEFAULT_OUTPUT_TOKENS if wanted is None else int(wanted)
    if not any(message.content for message in chat) or output_tokens < 1:
        return None
    return Asked(chat, output_tokens)


def _conversation(row: Row) -> Chat:
    """The first exchange of a ShareGPT conversation; nothing where nobody answers."""
    turns = row["conversations"]
    first = next((place for place, turn in enumerate(turns) if turn.get("from", "human") in ASKED_BY), len(turns))
    said = [turn["value"] for turn in turns[first : first + 2]]
    return _exchange(*said) if len(said) == 2 and all(said) else ()


def _messages(row: Row) -> Chat:
    return tuple(Message(_text(turn["role"]), _text(turn["content"])) for turn in row["messages"])


def _first_turn(row: Row) -> Chat:
    """What the user of MT-Bench or Spec-Bench says first."""
    match row["turns"]:
        case [first, *_]:
            return _exchange(first)
        case []:
            return ()
    raise ValueError("turns is no list of texts")


def _instruction(row: Row) -> Chat:
    """Alpaca: an instruction, and perhaps what it is to be applied to."""
    told = [_text(part) for key in ("instruction", "input") if (part := row.get(key))]
    return _exchange("\n\n".join(told), row.get("output"))


def _exchange(question: object, answer: object = None) -> Chat:
    """A question and its answer, if that is a text: the number of a choice says nothing of a length."""
    asked = Message("user", _text(question))
    return (asked, Message("assistant", answer)) if answer and isinstance(answer, str) else (asked,)


def _text(content: object) -> str:
    """A text, or the texts in a list of OpenAI's content parts."""
    if isinstance(content, list):
        return "".join(_text(part["text"]) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"{json.dumps(content)[:40]} is not a text")
    return content


SHAPES: Mapping[str, Callable[[Row], Chat]] = {
    "conversations": _conversation,
    "messages": _messages,
    "turns": _first_turn,
    "prompt": lambda row: _exchange(row["prompt"]),
    "instruction": _instruction,
    "question": lambda row: _exchange(row["question"], row.get("answer")),
    "text": lambda row: _exchange(row["text"], row.get("answer")),
}
"""By the key that tells a row's shape, the chat in it, its answer at the end where it is known. The first key counts:
Alpaca's rows have a `text` too."""
