"""Prompts of real text: offered round and round, and their tokens estimated. Pure."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from tuner.requests import IntArray, Message, Segment

BYTES_PER_TOKEN = 4
"""About what today's vocabularies make of text in UTF-8; where there is a server, its own count takes its place."""
SEGMENT_BYTES = 256
"""Two prompts share as many whole pieces of this size as they begin with alike."""

Chat = tuple[Message, ...]


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
