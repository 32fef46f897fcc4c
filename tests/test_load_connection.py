"""Connection: HTTP/1.1 as it comes off a socket. The other end is a transport that keeps what was written."""

import asyncio
from time import perf_counter

import httptools
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.load.connection import Connection

URL = "http://127.0.0.1:8000/v1/completions"
PAYLOADS = [b"data: {}\n\n", b"data: \xf0\x9f\x99\x82\n\n", b"x" * 300, b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]


class Wire(asyncio.Transport):
    """The socket's end of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def abort(self) -> None:
        self.is_aborted = True


class Exchange:
    """One request under way on a connection that is fed by hand."""

    def __init__(self) -> None:
        self.connection, self.wire = Connection(), Wire()
        self.connection.connection_made(self.wire)
        self.pieces: list[tuple[float, bytes]] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.reply: asyncio.Task[tuple[int, bytes]]

    async def ask(self) -> None:
        self.reply = asyncio.create_task(self._reply())
        while not self.wire.written:
            await asyncio.sleep(0)

    async def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.data_received(piece)
            await asyncio.sleep(0)

    def lose(self, error: Exception | None = None) -> None:
        self.connection.connection_lost(error)

    async def _reply(self) -> tuple[int, bytes]:
        try:
            request = httpx.Request("POST", URL, content=b"{}")
            keep = self.pieces.append
            status, self.headers = await self.connection.send(request, lambda at_s, data: keep((at_s, data)))
            await self.connection.wait()
            return status, b"".join(data for _, data in self.pieces)
        finally:
            self.connection.free()


def chunked(payloads: list[bytes], trailer: bytes = b"") -> bytes:
    chunks = b"".join(b"%x;name=value\r\n%b\r\n" % (len(payload), payload) for payload in payloads)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"


def sized(payloads: list[bytes]) -> bytes:
    body = b"".join(payloads)
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def unsized(payloads: list[bytes]) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(payloads)


def replied(*pieces: bytes, lost: bool = False, error: Exception | None = None) -> tuple[int, bytes]:
    """Status and body of an answer that comes in these pieces."""

    async def play() -> tuple[int, bytes]:
        exchange = Exchange()
        await exchange.ask()
        await exchange.feed(*pieces)
        if lost:
            exchange.lose(error)
        return await exchange.reply

    return asyncio.run(play())


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
    return pieces


@pytest.mark.parametrize("framed", [chunked, sized, unsized])
@given(payloads=st.lists(st.sampled_from(PAYLOADS)), sizes=st.lists(st.integers(1, 400), min_size=1))
def test_an_answer_is_the_same_however_its_bytes_are_split(framed, payloads, sizes):
    pieces = split(framed(payloads), sizes)
    assert replied(*pieces, lost=framed is unsized) == (200, b"".join(payloads))


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_whatever_a_server_sends_ends_in_an_answer_or_in_a_transport_error(pieces):
    try:
        status, _ = replied(*pieces, lost=True)
    except httpx.TransportError:
        return
    assert 100 <= status <= 999


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + sized([b"x"]), (200, b"x"), id="100 Continue goes before"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + chunked([b"x"]), (200, b"x"), id="early hints"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", (204, b""), id="no content"),
        pytest.param(chunked([b"x"], b"checksum: 1\r\n"), (200, b"x"), id="trailers"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nx: %b\r\ncontent-length: 1\r\n\r\nx" % (b"y" * 100_000),
            (200, b"x"),
            id="big headers",
        ),
        pytest.param(b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno", (500, b"no"), id="an error has a body too"),
    ],
)
def test_what_http_allows_is_understood(data, reply):
    assert replied(data) == reply


def test_the_headers_of_an_announcement_are_not_those_of_the_answer():
    async def play() -> list[tuple[bytes, bytes]]:
        exchange = Exchange()
        await exchange.ask()
        await exchange.feed(b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n", sized([b"x"]))
        await exchange.reply
        return exchange.headers

    assert asyncio.run(play()) == [(b"content-length", b"1")]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        pytest.param(b"", httpx.RemoteProtocolError, id="before the answer"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-", httpx.RemoteProtocolError, id="within the headers"),
        pytest.param(sized([b"x" * 10])[:-1], httpx.RemoteProtocolError, id="within a body of known length"),
        pytest.param(chunked([b"x"])[:-2], httpx.RemoteProtocolError, id="before the last chunk was whole"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", httpx.RemoteProtocolError, id="behind an announcement"),
    ],
)
def test_a_connection_that_is_closed_too_early_breaks_the_answer(data, error):
    with pytest.raises(error, match="the server closed the connection"):
        replied(data, lost=True)


def test_a_connection_that_is_reset_breaks_the_answer_even_if_its_length_was_never_said():
    with pytest.raises(httpx.ReadError, match="reset"):
        replied(unsized([b"x"]), lost=True, error=ConnectionResetError("reset"))


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"])
def test_what_is_not_http_breaks_the_answer(data):
    with pytest.raises(httpx.RemoteProtocolError, match="not HTTP"):
        replied(data)


def test_a_request_leaves_whole_in_one_write():
    async def play() -> bytes:
        exchange = Exchange()
        await exchange.ask()
        await exchange.feed(sized([]))
        await exchange.reply
        return exchange.wire.written

    head, _, body = asyncio.run(play()).partition(b"\r\n\r\n")
    assert body == b"{}"
    line, *headers = head.split(b"\r\n")
    assert line == b"POST /v1/completions HTTP/1.1"
    assert {b"Host: 127.0.0.1:8000", b"Content-Length: 2"} <= set(headers)


def test_a_burst_to_many_streams_is_stamped_before_any_of_it_is_parsed():
    async def play() -> tuple[list[float], float]:
        exchanges = [Exchange() for _ in range(20)]
        for exchange in exchanges:
            await exchange.ask()
        for exchange in exchanges:
            exchange.connection.data_received(sized([b"x"]))
        all_stamped_s = perf_counter()
        assert not any(exchange.pieces for exchange in exchanges)
        await asyncio.gather(*(exchange.reply for exchange in exchanges))
        return [exchange.pieces[0][0] for exchange in exchanges], all_stamped_s

    stamps_s, all_stamped_s = asyncio.run(play())
    assert stamps_s == sorted(stamps_s)
    assert stamps_s[-1] <= all_stamped_s


def test_pieces_of_one_read_share_its_stamp_and_later_reads_have_later_ones():
    async def play() -> list[float]:
        exchange = Exchange()
        await exchange.ask()
        whole = chunked([b"a", b"b", b"c"])
        exchange.connection.data_received(whole[:-15])
        exchange.connection.data_received(whole[-15:])
        await exchange.reply
        return [at_s for at_s, _ in exchange.pieces]

    first, second, third = asyncio.run(play())
    assert first == second < third


@pytest.mark.parametrize(
    ("data", "is_usable"),
    [
        pytest.param(sized([b"x"]), True, id="by default"),
        pytest.param(chunked([b"x"]), True, id="chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", False, id="told to close"),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", False, id="HTTP/1.0"),
        pytest.param(sized([b"x"]) + b"more", False, id="more than the answer"),
        pytest.param(sized([b"x"]) + sized([b"y"]), False, id="a second answer"),
    ],
)
def test_a_connection_is_used_again_if_the_answer_allows_it(data, is_usable):
    async def play() -> tuple[bool, bool]:
        exchange = Exchange()
        await exchange.ask()
        await exchange.feed(data)
        assert (await exchange.reply)[1] in (b"", b"x")
        return exchange.connection.is_usable, exchange.wire.is_aborted

    assert asyncio.run(play()) == (is_usable, not is_usable)


def test_what_nobody_asked_for_closes_an_idle_connection():
    async def play() -> bool:
        exchange = Exchange()
        await exchange.feed(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        return exchange.connection.is_usable

    assert asyncio.run(play()) is False


def test_a_request_that_is_given_up_closes_its_connection_and_what_still_comes_is_dropped():
    async def play() -> Exchange:
        exchange = Exchange()
        await exchange.ask()
        await exchange.feed(chunked([b"a", b"b"])[:60])
        exchange.connection.data_received(b"rest")
        exchange.reply.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange.reply
        heard = len(exchange.pieces)
        await exchange.feed(b"more")
        assert len(exchange.pieces) == heard
        return exchange

    exchange = asyncio.run(play())
    assert exchange.wire.is_aborted
    assert not exchange.connection.is_usable


def test_the_parser_tells_the_end_of_an_answer_as_this_file_expects():
    """A guard on the library: `100 Continue` ends a message of its own."""
    ends: list[int] = []

    class Ends:
        def on_message_complete(self) -> None:
            ends.append(parser.get_status_code())

    parser = httptools.HttpResponseParser(Ends())
    parser.feed_data(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
    assert ends == [100, 204]
