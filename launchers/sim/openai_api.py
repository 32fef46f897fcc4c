"""The OpenAI-compatible front of the simulated engine: HTTP requests in, server-sent events out.

Tokens are the text " a". Answers always have `max_tokens` tokens, as if `ignore_eos` were set.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

from aiohttp import web

from launchers.sim.realtime import Answer, RealTime

TOKEN = " a"
BYTES_PER_TOKEN = 4
DEFAULT_COMPLETION_TOKENS = 16
DEFAULT_CHAT_TOKENS = 256
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


@dataclass(frozen=True)
class Wanted:
    """One request, understood. `prompt` is token ids, or a text in UTF-8."""

    prompt: list[int] | bytes
    tokens: int
    streams: bool
    usage: bool

    @property
    def prompt_tokens(self) -> int:
        """The length of the prompt."""
        return _tokens_of(self.prompt) if isinstance(self.prompt, bytes) else len(self.prompt)


class Refused(Exception):
    """A request the engine answers with an error of its own."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        error = {"message": message, "type": kind, "param": None, "code": status}
        self.response = web.json_response({"error": error}, status=status)


class OpenAiApi:
    """The handlers for one served model; several copies of the engine get the requests by how busy they are."""

    def __init__(self, model: str, copies: list[RealTime]) -> None:
        self._model = model
        self._copies = copies
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
        longest = self._copies[0].settings.max_model_len
        model = {"id": self._model, "object": "model", "created": self._started, "owned_by": "goodtune"}
        model |= {"root": self._model, "parent": None, "max_model_len": longest}
        return web.json_response({"object": "list", "data": [model]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, _wanted_completion, TEXT)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, _wanted_chat, CHAT)

    async def _answer(
        self, request: web.Request, read: Callable[[Any], Wanted], spelling: Spelling
    ) -> web.StreamResponse:
        try:
            body = await _body(request)
            wanted = read(body)
            self._check(body, wanted)
        except Refused as refused:
            return refused.response
        kind = spelling.piece if wanted.streams else spelling.whole
        envelope = {"id": f"{spelling.id}-{next(self._numbers)}", "object": kind, "created": int(time.time())}
        reply = Reply(envelope | {"model": self._model}, spelling.choice, wanted)
        engine = min(self._copies, key=lambda copy: copy.running + copy.waiting)
        names = block_names(wanted.prompt, engine.settings.block_tokens) if engine.settings.prefix_caching else []
        answer = engine.submit(wanted.prompt_tokens, wanted.tokens, names)
        try:
            if wanted.streams:
                return await _stream(request, answer, reply)
            while answer.finish_reason is None:
                answer.wake.clear()
                await answer.wake.wait()
            return web.json_response(reply.whole(answer))
        finally:
            engine.drop(answer)

    def _check(self, body: dict[str, Any], wanted: Wanted) -> None:
        if body.get("model") != self._model:
            raise Refused(404, "NotFoundError", f"The model `{body.get('model')}` does not exist.")
        settings = self._copies[0].settings
        if not settings.admits(wanted.prompt_tokens, wanted.tokens):
            raise Refused(
                400,
                "BadRequestError",
                f"This model's maximum context length is {settings.max_model_len} tokens. However, you requested "
                f"{wanted.tokens} output tokens and your prompt contains {wanted.prompt_tokens} input tokens.",
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


def block_names(prompt: list[int] | bytes, block_tokens: int) -> list[int]:
    """Numbers of the full blocks of a prompt, each for its own tokens and all before them."""
    size = block_tokens * (BYTES_PER_TOKEN if isinstance(prompt, bytes) else 1)
    names = []
    name = 0
    for end in range(size, len(prompt) + 1, size):
        name = hash((name, *prompt[end - size : end]))
        names.append(name)
    return names


def _tokens_of(text: bytes) -> int:
    return max(1, -(-len(text) // BYTES_PER_TOKEN))


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
    while answer.finish_reason is None:
        answer.wake.clear()
        await answer.wake.wait()


def _taken(answer: Answer, reply: Reply) -> bytes:
    """The pending tokens as one event."""
    tokens, answer.pending = answer.pending, 0
    return reply.event(tokens, answer.finish_reason)


def _framed(data: bytes) -> bytes:
    """One chunk of a chunked HTTP body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except json.JSONDecodeError as error:
        raise Refused(400, "BadRequestError", f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused(400, "BadRequestError", "the body must be a JSON object")
    return body


def _wanted_completion(body: dict[str, Any]) -> Wanted:
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        if len(prompt) > 1:
            raise Refused(400, "BadRequestError", "the simulation answers one prompt at a time")
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return _wanted(body, prompt.encode(), DEFAULT_COMPLETION_TOKENS)
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return _wanted(body, prompt, DEFAULT_COMPLETION_TOKENS)
    raise Refused(400, "BadRequestError", "prompt must be a text or a list of token ids, and not empty")


def _wanted_chat(body: dict[str, Any]) -> Wanted:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise Refused(400, "BadRequestError", "messages must be a list of objects, and not empty")
    text = "".join(str(message.get("content", "")) for message in messages)
    return _wanted(body, text.encode(), DEFAULT_CHAT_TOKENS)


def _wanted(body: dict[str, Any], prompt: list[int] | bytes, default_tokens: int) -> Wanted:
    if body.get("n") not in (None, 1):
        raise Refused(400, "BadRequestError", f"the simulation gives one answer at a time, not n={body['n']}")
    named = [body[key] for key in ("max_completion_tokens", "max_tokens") if body.get(key) is not None]
    tokens = named[0] if named else default_tokens
    if not isinstance(tokens, int) or tokens < 1:
        raise Refused(400, "BadRequestError", f"max_tokens must be at least 1, got {tokens}")
    options = body.get("stream_options") or {}
    return Wanted(prompt, tokens, bool(body.get("stream")), bool(options.get("include_usage")))
