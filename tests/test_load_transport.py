"""The transport of the measuring path, against a server that is nothing but a socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter

import httpx
import pytest
import uvloop

from tuner.load.connection import Connection
from tuner.load.transport import Client, StampingTransport, open_client, reason

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
PATIENCE_S = 30.0


@dataclass
class Seen:
    """What a raw server saw: the requests of each connection, and which of them the client has closed."""

    requests: list[list[bytes]] = field(default_factory=list)
    closed: list[asyncio.Event] = field(default_factory=list)


Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def says_hello(writer: asyncio.StreamWriter) -> None:
    writer.write(ANSWER)


@asynccontextmanager
async def a_server(reply: Reply = says_hello) -> AsyncIterator[tuple[str, Seen]]:
    seen = Seen()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own: list[bytes] = []
        closed = asyncio.Event()
        seen.requests.append(own)
        seen.closed.append(closed)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                own.append(head + await reader.readexactly(body_bytes(head)))
                await reply(writer)
                if writer.is_closing():
                    break
        closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}", seen


def body_bytes(head: bytes) -> int:
    lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(lengths[0]) if lengths else 0


async def ask(client: Client, pieces: list[tuple[float, bytes]] | None = None) -> int:
    heard = [] if pieces is None else pieces
    async with client.ask(client.question(b'{"a":1}', lambda at_s, data: heard.append((at_s, data)))) as response:
        await response.aread()
        return response.status_code


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def within_patience() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scene()

    uvloop.run(within_patience())


def test_one_connection_carries_one_request_after_the_other():
    async def scene() -> None:
        async with a_server() as (url, seen), open_client(url) as client:
            for _ in range(3):
                pieces: list[tuple[float, bytes]] = []
                assert await ask(client, pieces) == 200
                assert b"".join(data for _, data in pieces) == b"hello"
        assert [len(own) for own in seen.requests] == [3]
        assert seen.requests[0][0].startswith(b"POST /v1/completions HTTP/1.1\r\n")
        assert seen.requests[0][0].endswith(b'\r\n\r\n{"a":1}')

    play(scene)


def test_requests_under_way_together_have_a_connection_each_and_connections_opened_before_are_used():
    async def scene() -> None:
        async with a_server() as (url, seen), open_client(url) as client:
            await asyncio.gather(*(client.touch() for _ in range(5)))
            assert len(seen.requests) == 5
            assert await asyncio.gather(*(ask(client) for _ in range(5))) == [200] * 5
        assert len(seen.requests) == 5

    play(scene)


def test_each_piece_is_stamped_between_its_writing_and_its_reading():
    async def scene() -> None:
        written_s: list[float] = []
        heard = asyncio.Event()

        async def in_two_pieces(writer: asyncio.StreamWriter) -> None:
            for piece in (ANSWER[:-2], ANSWER[-2:]):
                written_s.append(perf_counter())
                writer.write(piece)
                await heard.wait()
                heard.clear()

        pieces: list[tuple[float, bytes]] = []

        def hear(at_s: float, data: bytes) -> None:
            pieces.append((at_s, data))
            heard.set()

        async with (
            a_server(in_two_pieces) as (url, _),
            open_client(url) as client,
            client.ask(client.question(b"{}", hear)) as response,
        ):
            await response.aread()
        assert [data for _, data in pieces] == [b"hel", b"lo"]
        assert written_s[0] <= pieces[0][0] <= written_s[1] <= pieces[1][0]

    play(scene)


def test_a_request_leaves_at_once_not_at_the_end_of_the_turn_of_the_loop():
    async def scene() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            _, connection = await asyncio.get_running_loop().create_connection(Connection, *listener.getsockname())
            server, _ = listener.accept()
        with server:
            server.settimeout(PATIENCE_S)
            request = httpx.Request("POST", "http://127.0.0.1/v1/completions", content=b"{}")
            sending = connection.send(request, lambda _at_s, _data: None)
            sending.send(None)
            assert server.recv(5) == b"POST ", "although the loop has had no time to do anything"
            sending.close()
            connection.free()

    play(scene)


def test_a_connection_that_was_idle_too_long_is_not_used_again():
    async def scene() -> None:
        async with a_server() as (url, seen), StampingTransport(keepalive_s=0.0) as transport:
            client = Client(transport, url)
            await ask(client)
            await ask(client)
        assert [len(own) for own in seen.requests] == [1, 1]

    play(scene)


def test_a_connection_that_the_server_has_closed_is_not_used_again():
    async def scene() -> None:
        async def once(writer: asyncio.StreamWriter) -> None:
            await says_hello(writer)
            writer.close()

        async with a_server(once) as (url, seen), StampingTransport() as transport:
            client = Client(transport, url)
            await ask(client)
            await seen.closed[0].wait()
            while transport.idle:
                await asyncio.sleep(0)
            assert await ask(client) == 200
        assert [len(own) for own in seen.requests] == [1, 1]

    play(scene)


def test_a_cancelled_request_closes_its_connection():
    async def scene() -> None:
        asked = asyncio.Event()

        async def never(writer: asyncio.StreamWriter) -> None:
            asked.set()

        async with a_server(never) as (url, seen), open_client(url) as client:
            request = asyncio.ensure_future(ask(client))
            await asked.wait()
            request.cancel()
            with suppress(asyncio.CancelledError):
                await request
            await seen.closed[0].wait()

    play(scene)


def test_a_request_that_is_given_up_amid_its_answer_does_not_spoil_the_next():
    async def scene() -> None:
        async def begins(writer: asyncio.StreamWriter) -> None:
            writer.write(ANSWER[:-1])

        replies = iter([begins, says_hello])

        async def reply(writer: asyncio.StreamWriter) -> None:
            await next(replies)(writer)

        async with a_server(reply) as (url, seen), open_client(url) as client:
            with suppress(TimeoutError):
                async with client.ask(client.question(b"", lambda at_s, data: None)) as response:
                    async with asyncio.timeout(0):
                        await response.aread()
            assert await ask(client) == 200
            assert [len(own) for own in seen.requests] == [1, 1]
            await seen.closed[0].wait()

    play(scene)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"", httpx.RemoteProtocolError, id="at once"),
        pytest.param(ANSWER[:-1], httpx.RemoteProtocolError, id="in the middle"),
        pytest.param(b"nonsense\r\n\r\n", httpx.RemoteProtocolError, id="after nonsense"),
    ],
)
def test_a_server_that_hangs_up_is_a_transport_error_and_the_next_request_has_a_new_connection(data, error):
    async def scene() -> None:
        answers = iter([data])

        async def hangs_up_once(writer: asyncio.StreamWriter) -> None:
            writer.write(next(answers, ANSWER))
            if len(seen.requests) == 1:
                writer.close()

        async with a_server(hangs_up_once) as (url, seen), open_client(url) as client:
            with pytest.raises(error):
                await ask(client)
            assert await ask(client) == 200

    play(scene)


def test_an_answer_without_a_length_ends_with_its_connection():
    async def scene() -> None:
        async def until_closed(writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
            writer.close()

        pieces: list[tuple[float, bytes]] = []
        async with a_server(until_closed) as (url, _), open_client(url) as client:
            assert await ask(client, pieces) == 200
        assert b"".join(data for _, data in pieces) == b"hello"

    play(scene)


def test_where_nobody_listens_the_error_says_where():
    async def scene() -> None:
        async with open_client("http://127.0.0.1:1") as client:
            with pytest.raises(httpx.ConnectError) as caught:
                await ask(client)
            assert reason(caught.value).startswith("ConnectError: 127.0.0.1:1: ")

    play(scene)


def test_what_is_not_plain_http_is_refused_rather_than_sent_in_the_clear():
    async def scene() -> None:
        async with a_server() as (url, seen), open_client(url.replace("http://", "https://")) as client:
            with pytest.raises(httpx.UnsupportedProtocol, match="plain HTTP only"):
                await ask(client)
        assert seen.requests == []

    play(scene)


def test_it_is_an_ordinary_transport_to_httpx_itself():
    async def scene() -> None:
        async with a_server() as (url, _), httpx.AsyncClient(transport=StampingTransport()) as client:
            response = await client.post(f"{url}/path?a=b", content=b"x" * 100_000)
            assert (response.status_code, response.text) == (200, "hello")

    play(scene)
