"""Prompts: what a workload asks made into the bytes of completion requests, before the clock starts. Pure."""

import json
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from tuner.requests import IntArray, Requests, Segment

# Prompts beyond this much memory are written when they are sent (30 µs for 1000 tokens), not before the start.
PREPARED_BYTES = 256 << 20
# Special tokens stand at the lower or the upper end of a vocabulary; neither end is drawn from.
SPECIAL_TOKENS = 1000

_PROVING = b',"return_token_ids":true}'


def drawn_ids(vocab: int) -> tuple[int, int]:
    """The range [low, high) prompt token ids are drawn from."""
    margin = min(SPECIAL_TOKENS, vocab // 8)
    return margin, vocab - margin


def token_ids(segment: Segment, vocab: int) -> IntArray:
    """The token ids of one segment, (tokens,): the same for every configuration, server and run."""
    low, high = drawn_ids(vocab)
    return np.random.default_rng(segment.seed).integers(low, high, segment.tokens)


class Questions(Protocol):
    """The requests of a workload, and the path that takes them."""

    path: str

    def body(self, row: int) -> bytes:
        """The request in row `row`, ready to be sent."""
        ...


def questions(model: str, vocab: int, requests: Requests, rows: Iterable[int]) -> Questions:
    """Real text goes through chat completions, drawn token ids through completions."""
    return Bodies(model, vocab, requests, rows) if requests.chats is None else ChatBodies(model, requests)


class ChatBodies:
    """The JSON bodies of chats. They are written when they are sent: real prompts are short.

    They do not ask for `return_token_ids`: SGLang refuses that in a streamed chat.
    """

    path = "/v1/chat/completions"

    def __init__(self, model: str, requests: Requests) -> None:
        assert requests.chats is not None
        self._chats = requests.chats
        self._requests = requests
        self._model = model

    def body(self, row: int) -> bytes:
        """The request in row `row`, ready to be sent."""
        chat = [{"role": message.role, "content": message.content} for message in self._chats[row]]
        head = json.dumps({"model": self._model, "messages": chat}).encode()
        return b"".join((head[:-1], _options(self._requests, row), b"}"))


class Bodies:
    """The JSON bodies of requests. Segments are kept as bytes, once each, and joined when a request is sent.

    The body asks for `return_token_ids`, which both costs vLLM's server next to nothing (0.3 µs per chunk, where
    usage in every chunk costs 4.7) and proves that a chunk bears a token although its text is empty, as pieces of
    a character are. Servers that do not know it ignore it.
    """

    path = "/v1/completions"

    def __init__(self, model: str, vocab: int, requests: Requests, rows: Iterable[int]) -> None:
        self._requests = requests
        self._head = f'{{"model":{json.dumps(model)},"prompt":['.encode()
        self._vocab = vocab
        self._ids = _ids_as_written(vocab)
        self._segments: dict[Segment, bytes] = {}
        self._prepare(rows)

    def body(self, row: int) -> bytes:
        """The request in row `row`, ready to be sent."""
        segments = self._requests.segments[row]
        *parts, last = (self._segments.get(segment) or self._written(segment) for segment in segments)
        return b"".join((self._head, *parts, last[:-1], b"]", _options(self._requests, row), _PROVING))

    def _prepare(self, rows: Iterable[int]) -> None:
        left = PREPARED_BYTES
        for row in rows:
            for segment in self._requests.segments[row]:
                if segment not in self._segments:
                    self._segments[segment] = self._written(segment)
                    left -= len(self._segments[segment])
            if left < 0:
                return

    def _written(self, segment: Segment) -> bytes:
        return self._ids[token_ids(segment, self._vocab) - drawn_ids(self._vocab)[0]].tobytes()


def _ids_as_written(vocab: int) -> "np.ndarray[tuple[int], np.dtype[np.bytes_]]":
    """Each drawn id as text of one width, `b"  1234,"`: one indexing operation then writes a whole prompt."""
    low, high = drawn_ids(vocab)
    width = len(str(high))
    return np.array([f"{number:>{width}},".encode() for number in range(low, high)], dtype=f"S{width + 1}")


def _options(requests: Requests, row: int) -> bytes:
    ending = "" if requests.ends_naturally else '"ignore_eos":true,'
    return (
        f',"max_tokens":{requests.output_tokens[row]},{ending}"temperature":0,"stream":true,'
        '"stream_options":{"include_usage":true}'
    ).encode()
