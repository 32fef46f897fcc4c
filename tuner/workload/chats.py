"""Prompts of real text: rows of a file understood, offered round and round, and their tokens estimated. Pure."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from tuner.requests import IntArray, Message, Segment

BYTES_PER_TOKEN = 4
"""About what today's vocabularies make of text in UTF-8; where there is a server, its own count takes its place."""
DEFAULT_OUTPUT_TOKENS = 256
"""Where a row says nothing about its answer."""
SEGMENT_BYTES = 256
"""Two prompts share as many whole pieces of this size as they begin with alike."""
ASKED_BY = ("human", "user")

Chat = tuple[Message, ...]


@dataclass(frozen=True)
class Asked:
    """One recorded prompt and how long its answer was or shall be, in tokens."""

    chat: Chat
    output_tokens: int


def row_of(row: Mapping[str, Any]) -> Asked | None:
    """One row of a file of prompts, or a ShareGPT conversation; None where it lacks a prompt or an answer.

    Raises ValueError, KeyError or TypeError where it is something else.
    """
    return _conversation(row["conversations"]) if "conversations" in row else _prompt(row)


def _conversation(turns: Sequence[Mapping[str, str]]) -> Asked | None:
    """The first exchange of a ShareGPT conversation."""
    first = next((place for place, turn in enumerate(turns) if turn.get("from", "human") in ASKED_BY), len(turns))
    said = [turn["value"] for turn in turns[first : first + 2]]
    if len(said) < 2 or not all(said):
        return None
    return Asked((Message("user", said[0]),), tokens_of(said[1]))


def _prompt(row: Mapping[str, Any]) -> Asked | None:
    """`prompt` (a text) or `messages` (a chat), and `output_tokens` or `max_tokens` if it knows.

    A chat that ends with the assistant's turn has its answer there: that turn says how long it is.
    """
    chat = _chat_of(row)
    wanted = next((row[key] for key in ("output_tokens", "max_tokens") if row.get(key) is not None), None)
    if chat and chat[-1].role == "assistant":
        wanted = tokens_of(chat[-1].content) if wanted is None else wanted
        chat = chat[:-1]
    output_tokens = DEFAULT_OUTPUT_TOKENS if wanted is None else int(wanted)
    if not any(message.content for message in chat) or output_tokens < 1:
        return None
    return Asked(chat, output_tokens)


def chats_from(chats: Sequence[Chat], place: IntArray) -> tuple[Chat, ...]:
    """The chats at `place`, round and round. From the second round on the first message begins with the round's
    number, so that no prompt is one that a prefix cache has seen."""
    n = len(chats)
    return tuple(chats[i % n] if i < n else marked(chats[i % n], f"{i // n + 1}") for i in place.tolist())


def marked(chat: Chat, mark: str) -> Chat:
    """The same chat beginning with a mark of its own, which no prefix cache has seen."""
    first = replace(chat[0], content=f"({mark}) {chat[0].content}")
    return (first, *chat[1:])


def prompt_lengths(chats: Iterable[Chat]) -> IntArray:
    """Estimated tokens of each prompt."""
    return np.array([sum(segment.tokens for segment in _segments(chat)) for chat in chats], dtype=np.int64)


def chat_segments(chats: Iterable[Chat]) -> tuple[tuple[Segment, ...], ...]:
    """Prompts that begin alike begin with the same segments."""
    return tuple(_segments(chat) for chat in chats)


def tokens_of(text: str) -> int:
    """Estimated tokens of a text, at least 1."""
    return _tokens(len(text.encode()))


def _tokens(size: int) -> int:
    return max(1, -(-size // BYTES_PER_TOKEN))


def _chat_of(row: Mapping[str, Any]) -> Chat:
    if "messages" in row:
        return tuple(Message(_text(turn["role"]), _text(turn["content"])) for turn in row["messages"])
    return (Message("user", _text(row["prompt"])),)


def _text(content: object) -> str:
    """A text, or the texts in a list of OpenAI's content parts."""
    if isinstance(content, list):
        return "".join(_text(part["text"]) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"{json.dumps(content)[:40]} is not a text")
    return content


@lru_cache(maxsize=1 << 16)
def _segments(chat: Chat) -> tuple[Segment, ...]:
    return tuple(_pieces(chat))


def _pieces(chat: Chat) -> Iterator[Segment]:
    """Each message in pieces. An empty message has no tokens of its own: what stands around it is the template's."""
    for message in chat:
        text = message.content.encode()
        for start in range(0, len(text), SEGMENT_BYTES):
            piece = text[start : start + SEGMENT_BYTES]
            digest = hashlib.blake2b(message.role.encode() + b"\0" + piece, digest_size=7).digest()
            yield Segment(int.from_bytes(digest, "big"), _tokens(len(piece)))
