"""Answer: the bytes of one streamed completion, read into token times and a status. Pure."""

import json
from array import array
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from tuner.load.wire import Ended, Ending
from tuner.requestlog import Status
from tuner.requests import FloatArray

KEPT_TEXT_BYTES = 400
COMPLETE = ("length", "stop")


class _Delta(msgspec.Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None


class _Choice(msgspec.Struct):
    text: str | msgspec.UnsetType | None = msgspec.UNSET
    delta: _Delta | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class _PromptTokens(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    prompt_tokens_details: _PromptTokens | None = None


class _Chunk(msgspec.Struct):
    """What is looked at in a chunk of either endpoint: typed, for that is what makes reading it cheap."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


@dataclass
class Answer:
    """One streamed answer, as far as it has come.

    `chunk_s` holds the times of chunks that bear tokens, or may: `proven` is 1 where text or token ids came, 0 where
    a completion's text was empty, or a chat's at its own end, and nothing else was said. `usage` is how many tokens
    the server counts, `asked` those of the prompt, `cached` those that it had in its prefix cache; None while unsaid.
    """

    chunk_s: "array[float]" = field(default_factory=lambda: array("d"))
    proven: bytearray = field(default_factory=bytearray)
    finish: str | None = None
    usage: int | None = None
    asked: int | None = None
    cached: int | None = None
    is_done: bool = False
    error: str = ""
    plain: bytes = b""
    _line: bytes = b""

    def read(self, at_s: float, data: bytes) -> None:
        """Take the next bytes of the body. Lines may be split anywhere; a chunk counts when its line is complete."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            if line:
                self._take(at_s, line)

    def token_s(self) -> FloatArray:
        """Times of the token-bearing chunks.

        An empty text whose server does not return token ids is a token as long as the usage record has tokens to
        spare for it; where no chunk at all had text, it is not.
        """
        times = np.array(self.chunk_s, dtype=np.float64)
        proven = np.frombuffer(bytes(self.proven), dtype=np.bool_)
        certain = int(proven.sum())
        spare = (self.usage or 0) - certain if certain else 0
        return times[proven | (np.cumsum(~proven) <= spare)]

    def _take(self, at_s: float, line: bytes) -> None:
        if not line.startswith(b"data:"):
            if len(self.plain) < KEPT_TEXT_BYTES:
                self.plain += line.rstrip(b"\r")
            return
        payload = line[5:].strip()
        if payload == b"[DONE]":
            self.is_done = True
            return
        try:
            self._take_chunk(at_s, _decode(payload))
        except msgspec.ValidationError as error:
            self.error = self.error or f"a chunk is not a completion: {error}"
        except msgspec.DecodeError:
            self.error = self.error or f"a chunk is not JSON: {payload[:80]!r}"

    def _take_chunk(self, at_s: float, chunk: _Chunk) -> None:
        if chunk.error:
            self.error = self.error or _error_text({"error": chunk.error})
        if chunk.usage:
            self.usage, self.asked = chunk.usage.completion_tokens, chunk.usage.prompt_tokens
            details = chunk.usage.prompt_tokens_details
            self.cached = details.cached_tokens if details else None
        for choice in chunk.choices or ():
            self.finish = choice.finish_reason or self.finish
            bears = _bears_tokens(choice)
            if bears is not False:
                self.chunk_s.append(at_s)
                self.proven.append(bears is True)


def judge(answer: Answer, ended: Ended | None, lengths: range) -> tuple[Status, str]:
    """How a request ended, and in words what was wrong ('' where nothing was). `ended` None: it is still running.

    A complete answer is OK however its connection was closed; `lengths` are the tokens it may have. A stream that
    ended cleanly with others, or as vLLM's do when it is told to stop (`finish_reason` "abort"), is TRUNCATED.
    """
    if answer.finish == "length":
        # Whoever cuts an answer sooner than was asked gives less than was asked.
        lengths = lengths[-1:]
    if answer.is_done and not answer.error and answer.finish in COMPLETE and answer.usage in lengths:
        has_tokens = len(answer.token_s()) > 0
        return (Status.OK, "") if has_tokens else (Status.EMPTY, "an answer without a token")
    if ended is None or ended.how is Ending.CANCELLED:
        return Status.UNFOLLOWED, ""
    if ended.how is Ending.TIMED_OUT:
        return Status.TIMED_OUT, ""
    failure = _failure(answer, ended)
    if failure:
        return Status.FAILED, failure
    if not len(answer.token_s()):
        return Status.EMPTY, f"an answer without a token {answer.plain[:80].decode(errors='replace')}".rstrip()
    return Status.TRUNCATED, _what_lacks(answer, lengths)


def _failure(answer: Answer, ended: Ended) -> str:
    if ended.how is Ending.BROKE:
        return ended.reason
    if ended.http_status != 200:
        text = answer.plain + answer._line
        return f"HTTP {ended.http_status}: {_plain_error(text[:KEPT_TEXT_BYTES])}".rstrip(": ")
    return answer.error


def _what_lacks(answer: Answer, lengths: range) -> str:
    if answer.usage is None:
        return "the stream ended without a usage record"
    if answer.usage not in lengths:
        return f"finish_reason {answer.finish!r} with a wrong number of tokens"
    return f"finish_reason {answer.finish!r}" if answer.is_done else "the stream ended without [DONE]"


def _bears_tokens(choice: _Choice) -> bool | None:
    """Whether a choice bears tokens; None where only the usage record can tell."""
    delta = choice.delta
    if choice.text or (delta and (delta.content or delta.reasoning_content or delta.reasoning)):
        return True
    if choice.token_ids is not None:
        return bool(choice.token_ids)
    # The token by which a model ends its answer counts, and has no text.
    may_bear = choice.text is not msgspec.UNSET or choice.finish_reason == "stop"
    return None if may_bear else False


def _plain_error(text: bytes) -> str:
    try:
        body = json.loads(text)
    except ValueError:
        return text.decode(errors="replace").strip()
    return _error_text(body) if isinstance(body, dict) else str(body)


def _error_text(body: dict[str, Any]) -> str:
    error = body.get("error", body.get("detail", body))
    return str(error.get("message", error) if isinstance(error, dict) else error)
