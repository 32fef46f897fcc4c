"""The OpenAI-compatible front of the simulated engine: HTTP requests in, server-sent events out.

Tokens are the text " a". Answers always have `max_tokens` tokens, with or without `ignore_eos`.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

from aiohttp import web

from launchers.sim.answer import Answer
from launchers.sim.copies import Copies
from launchers.sim.realtime import RealTime
from launchers.sim.wanted import BadRequest, Wanted, block_names, wanted_chat, wanted_completion

TOKEN = " a"
DONE = b"data: [DONE]\n\n"
EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}

Choice = Callable[[str, str | None], dict[str, Any]]
"""Text and finish reason as one entry of `choices`."""


def _text_choice(text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _delta_choice(text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}


@dataclass(frozen=True)
class Spelling:
    """What the two kinds of answers are called: the beginning of their ids, whole ones and their pieces."""

    id: str
    whole: str
    piece: str
    choice: Choice


TEXT = Spelling("cmpl", "text_completion", "text_completion", _text_choice)
CHAT = Spelling("chatcmpl", "chat.completion", "chat.completion.chunk", _delta_choice)


class OpenAiApi:
    """The handlers for one served model."""

    def __init__(self, model: str, copies: list[RealTime]) -> None:
        self._model = model
        self._settings = copies[0].settings
        self._copies = Copies(copies)
        self._numbers = count()
        self._started = int(time.time())

    def routes(self) -> list[web.RouteDef]:
        """The paths this answers."""
        return [
            web.get("/v1/models", self._models),
            web.post("/v1/completions", self._completions),
            web.post("/v1/chat/completions", self._chat),
        ]

    async def _models(self, request: web.Request) -> web.Response:
        longest = self._settings.max_model_len
        model = {"id": self._model, "object": "model", "created": self._started, "owned_by": "goodtune"}
        model |= {"root": self._model, "parent": None, "max_model_len": longest}
        return web.json_response({"object": "list", "data": [model]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, wanted_completion, TEXT)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, wanted_chat, CHAT)

    async def _answer(
        self, request: web.Request, read: Callable[[bytes], Wanted], spelling: Spelling
    ) -> web.StreamResponse:
        try:
            wanted = read(await request.read())
            if wanted.model != self._model:
                return _refusal(404, "NotFoundError", f"The model `{wanted.model}` does not exist.")
            self._check_length(wanted)
        except BadRequest as bad:
            return _refusal(400, "BadRequestError", str(bad))
        kind = spelling.piece if wanted.streams else spelling.whole
        envelope = {"id": f"{spelling.id}-{next(self._numbers)}", "object": kind, "created": int(time.time())}
        reply = Reply(envelope | {"model": self._model}, spelling.choice, wanted)
        settings, engine = self._settings, self._copies.next()
        names = block_names(wanted.prompt, settings.block_tokens) if settings.prefix_caching else []
        answer = engine.submit(wanted.prompt_tokens, wanted.tokens, names)
        try:
            if wanted.streams:
                return await _stream(request, answer, reply)
            await _ended(answer)
            if answer.finish_reason == "cut":
                return _cut(request)
            return web.json_response(reply.whole(answer))
        finally:
            engine.drop(answer)

    def _check_length(self, wanted: Wanted) -> None:
        settings = self._settings
        if not settings.admits(wanted.prompt_tokens, wanted.tokens):
            raise BadRequest(
                f"This model's maximum context length is {settings.max_model_len} tokens. However, you requested "
                f"{wanted.tokens} output tokens and your prompt contains {wanted.prompt_tokens} input tokens."
            )


@dataclass(frozen=True)
class Reply:
    """How one answer is spelt: the same envelope around every piece of it."""

    envelope: dict[str, Any]
    choice: Choice
    wanted: Wanted

    def event(self, tokens: int, finish_reason: str | None = None) -> bytes:
        """The event of `tokens` more tokens."""
        return self._event(choices=[self.choice(TOKEN * tokens, finish_reason)])

    def head(self) -> bytes:
        """What comes before the first token: in a chat, whose turn it is."""
        if self.choice is _text_choice:
            return b""
        role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return self._event(choices=[role])

    def tail(self, answer: Answer) -> bytes:
        """What comes after the last token."""
        usage = self._event(choices=[], usage=self._usage(answer)) if self.wanted.usage else b""
        return usage + DONE

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer in one piece."""
        choice = self.choice(TOKEN * answer.said, answer.finish_reason)
        if "delta" in choice:
            choice["message"] = {"role": "assistant", **choice.pop("delta")}
        return {**self.envelope, "choices": [choice], "usage": self._usage(answer)}

    def _usage(self, answer: Answer) -> dict[str, Any]:
        prompt = self.wanted.prompt_tokens
        counts = {"prompt_tokens": prompt, "completion_tokens": answer.said, "total_tokens": prompt + answer.said}
        return counts | {"prompt_tokens_details": {"cached_tokens": answer.cached_prompt_tokens}}

    def _event(self, **fields: Any) -> bytes:
        return b"data: " + json.dumps(self.envelope | fields, separators=(",", ":")).encode() + b"\n\n"


async def _stream(request: web.Request, answer: Answer, reply: Reply) -> web.StreamResponse:
    """Events as tokens come. The first and the last are written here, those between by the engine's own loop."""
    response = web.StreamResponse(headers=EVENT_STREAM)
    await answer.wake.wait()
    await response.prepare(request)
    head = reply.head()
    if answer.finish_reason is None:
        await response.write(head + _taken(answer, reply))
        await _follow(request, response, answer, reply)
        head = b""
    if answer.finish_reason == "cut":
        return _cut(request)
    await response.write(head + _taken(answer, reply) + reply.tail(answer))
    await response.write_eof()
    return response


async def _follow(request: web.Request, response: web.StreamResponse, answer: Answer, reply: Reply) -> None:
    """Let the engine's loop write to the socket until the answer ends."""
    while answer.pending and answer.finish_reason is None:
        await response.write(_taken(answer, reply))
    if answer.finish_reason is None:
        answer.piece = cache(lambda tokens: _framed(reply.event(tokens)))
        answer.transport = request.transport
    await _ended(answer)


async def _ended(answer: Answer) -> None:
    while answer.finish_reason is None:
        answer.wake.clear()
        await answer.wake.wait()


def _cut(request: web.Request) -> web.Response:
    """Close the connection as it is; what is returned goes nowhere."""
    if request.transport:
        request.transport.abort()
    return web.Response()


def _taken(answer: Answer, reply: Reply) -> bytes:
    """The pending tokens as one event."""
    tokens, answer.pending = answer.pending, 0
    return reply.event(tokens, answer.finish_reason)


def _framed(data: bytes) -> bytes:
    """One chunk of a chunked HTTP body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _refusal(status: int, kind: str, message: str) -> web.Response:
    """What the engine answers to a request that it does not take."""
    error = {"message": message, "type": kind, "param": None, "code": status}
    return web.json_response({"error": error}, status=status)
