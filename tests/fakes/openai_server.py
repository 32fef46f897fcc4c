"""A small OpenAI-compatible server with a known schedule, as a process of its own: `python openai_server.py`.

It listens on a free port, which it prints. What a request gets is said by the length of its prompt: a prompt of n
tokens is answered as BEHAVIOURS[n] says. `/journal` tells what the server saw, on the clock of `perf_counter`.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

from aiohttp import web

FIRST_TOKEN_S = 0.02
TOKEN_GAP_S = 0.005
CROWD = 130
CACHED_TOKENS = 4
CHAT_TOKENS = 30
"""What each message of a chat has, template and all."""
CURT, CURT_TOKENS = "Yes or no?", 3
"""A chat that ends with this is answered by so many tokens at most, of which the last ends it and has no text. As a
gateway does, the server ends it so whatever `ignore_eos` says."""
KNOWN, KNOWN_TOKENS, KNOWN_CACHED = "What did I say?", 1000, 600
"""A chat that ends with this has so many tokens, and so many of them were in the prefix cache."""


@dataclass
class Entry:
    """One completion request: its body, when it came, when each of its tokens was written, and who asked."""

    body: dict[str, Any]
    came_s: float
    token_s: list[float] = field(default_factory=list)
    authorization: str | None = None


@dataclass
class Seen:
    entries: list[Entry] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    crowd: asyncio.Event = field(default_factory=asyncio.Event)


class Stream:
    """One SSE answer."""

    def __init__(self, response: web.StreamResponse, entry: Entry, seen: Seen) -> None:
        self.response = response
        self.entry = entry
        self.seen = seen
        self.wanted: int = entry.body["max_tokens"]

    async def raw(self, data: bytes) -> None:
        await self.response.write(data)

    async def event(self, content: Any) -> None:
        await self.raw(_event(content))

    async def tokens(self, number: int, text: str = "x", gap_s: float = TOKEN_GAP_S) -> None:
        for _ in range(number):
            await asyncio.sleep(gap_s)
            self.entry.token_s.append(perf_counter())
            await self.event(_chunk(text))

    async def end(self, finish_reason: str = "length", usage: int | None = None) -> None:
        await self.event(_chunk("", finish_reason, []))
        tokens = self.wanted if usage is None else usage
        details = {"cached_tokens": CACHED_TOKENS}
        await self.event({"choices": [], "usage": {"completion_tokens": tokens, "prompt_tokens_details": details}})
        await self.event("[DONE]")


async def plain(stream: Stream) -> None:
    await asyncio.sleep(FIRST_TOKEN_S - TOKEN_GAP_S)
    await stream.tokens(stream.wanted)
    await stream.end()


async def clean_abort(stream: Stream) -> None:
    await stream.tokens(2)
    await stream.end("abort", usage=2)


async def early_stop(stream: Stream) -> None:
    await stream.tokens(2)
    await stream.end("stop", usage=2)


async def no_done(stream: Stream) -> None:
    await stream.tokens(stream.wanted)


async def cut_off(stream: Stream) -> None:
    await stream.tokens(2)
    transport = stream.response._req.transport  # type: ignore[union-attr]
    transport.abort()


async def no_text(stream: Stream) -> None:
    await stream.tokens(stream.wanted, text="")
    await stream.end()


async def no_chunk(stream: Stream) -> None:
    await stream.end(usage=0)


async def error_event(stream: Stream) -> None:
    await stream.tokens(1)
    await stream.event({"error": {"message": "the engine has died", "code": 500}})
    await stream.event("[DONE]")


async def silence(stream: Stream) -> None:
    await asyncio.sleep(3600)


async def byte_by_byte(stream: Stream) -> None:
    text = b"".join([*(_event(_chunk("é🙂")) for _ in range(stream.wanted)), _event(_chunk("", "length", []))])
    text += _event({"choices": [], "usage": {"completion_tokens": stream.wanted}}) + _event("[DONE]")
    for at in range(len(text)):
        await stream.raw(text[at : at + 1])
        await asyncio.sleep(0)


async def all_in_one_write(stream: Stream) -> None:
    await stream.raw(_event(_chunk("x")) * stream.wanted)
    await stream.end()


async def crowd(stream: Stream) -> None:
    """Nobody is answered until CROWD requests are here together."""
    if stream.seen.in_flight == CROWD:
        stream.seen.crowd.set()
    await stream.seen.crowd.wait()
    await stream.tokens(stream.wanted)
    await stream.end()


async def death(stream: Stream) -> None:
    await stream.tokens(1)
    os._exit(1)


BEHAVIOURS: dict[int, Callable[[Stream], Awaitable[None]]] = dict(
    enumerate(
        (
            plain, clean_abort, early_stop, no_done, cut_off, no_text, no_chunk, error_event, silence,
            byte_by_byte, all_in_one_write, crowd, death,
        ),
        start=10,
    )
)  # fmt: skip
HTTP_500 = 9


@contextmanager
def running() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The server as a process, for the length of a block: its address and itself."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process
        finally:
            process.kill()


def prompt_tokens(behaviour: Callable[[Stream], Awaitable[None]]) -> int:
    """The length of the prompt that asks for this behaviour."""
    return next(tokens for tokens, one in BEHAVIOURS.items() if one is behaviour)


async def completions(request: web.Request) -> web.StreamResponse:
    seen = request.app[SEEN]
    entry = Entry(await request.json(), perf_counter(), authorization=request.headers.get("authorization"))
    seen.entries.append(entry)
    tokens = len(entry.body["prompt"])
    if tokens == HTTP_500:
        return web.json_response({"error": {"message": "out of luck"}}, status=500)
    seen.in_flight += 1
    seen.most_in_flight = max(seen.most_in_flight, seen.in_flight)
    try:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await BEHAVIOURS[tokens](Stream(response, entry, seen))
        return response
    finally:
        seen.in_flight -= 1


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Every chat is answered plainly or curtly, after a chunk that says only who speaks."""
    seen = request.app[SEEN]
    entry = Entry(await request.json(), perf_counter())
    seen.entries.append(entry)
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    stream = Stream(response, entry, seen)
    await stream.event(_delta({"role": "assistant", "content": ""}))
    question = entry.body["messages"][-1]["content"]
    is_curt, is_known = question.endswith(CURT) and stream.wanted > CURT_TOKENS, question.endswith(KNOWN)
    for _ in range(CURT_TOKENS - 1 if is_curt else stream.wanted):
        await asyncio.sleep(TOKEN_GAP_S)
        await stream.event(_delta({"content": "x"}))
    await asyncio.sleep(TOKEN_GAP_S)
    await stream.event(_delta({}, "stop" if is_curt else "length"))
    usage = {
        "completion_tokens": CURT_TOKENS if is_curt else stream.wanted,
        "prompt_tokens": KNOWN_TOKENS if is_known else CHAT_TOKENS * len(entry.body["messages"]),
        "prompt_tokens_details": {"cached_tokens": KNOWN_CACHED if is_known else 0},
    }
    await stream.event({"choices": [], "usage": usage})
    await stream.event("[DONE]")
    return response


async def models(request: web.Request) -> web.Response:
    return web.json_response({"data": [{"id": "fake"}]})


async def health(request: web.Request) -> web.Response:
    return web.Response()


async def journal(request: web.Request) -> web.Response:
    """What was seen since the journal was last read."""
    seen = request.app[SEEN]
    told = {"entries": [asdict(entry) for entry in seen.entries], "most_in_flight": seen.most_in_flight}
    seen.entries, seen.most_in_flight = [], seen.in_flight
    return web.json_response(told)


SEEN = web.AppKey("seen", Seen)


async def main() -> None:
    app = web.Application()
    app[SEEN] = Seen()
    app.add_routes([
        web.post("/v1/completions", completions),
        web.post("/v1/chat/completions", chat_completions),
        web.get("/v1/models", models),
        web.get("/health", health),
        web.get("/journal", journal),
    ])  # fmt: skip
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def _chunk(text: str, finish_reason: str | None = None, token_ids: list[int] | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish_reason, "token_ids": token_ids}]}


def _delta(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def _event(content: Any) -> bytes:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


if __name__ == "__main__":
    asyncio.run(main())
