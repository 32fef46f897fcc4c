"""Connection: one HTTP/1.1 connection that stamps every read of its socket before anything else is done with it.

A step of an engine sends a chunk to every stream at once. A client that wakes a task for each of them, or only parses
each as it comes, stamps the last one when it has dealt with all the others. Here the event loop's callback takes the
time and no more; what was read is parsed when the loop has emptied all the sockets that were ready.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import cast

import httptools
import httpx

OnRead = Callable[[float, bytes], None]
"""Takes a piece of an answer's body and when it came, on the clock of `perf_counter`."""

LOST = "the server closed the connection"
INFORMATIONAL = range(100, 200)
SWITCHING_PROTOCOLS = 101


class Connection(asyncio.Protocol):
    """One exchange at a time. `idle_since_s` is when the last one ended, on the clock of `perf_counter`."""

    def __init__(self) -> None:
        self.idle_since_s = perf_counter()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._begun: asyncio.Future[None] | None = None
        self._over: asyncio.Future[None] | None = None
        self._on_read: OnRead | None = None
        self._unparsed: list[tuple[float, bytes]] = []
        self._read_s = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent over it."""
        return self._transport is not None and self._over is None

    async def send(self, request: httpx.Request, on_read: OnRead) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Send `request`; returns status and headers. The body goes to `on_read`. Raises httpx.TransportError."""
        if not self._transport:
            raise httpx.WriteError(LOST)
        loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._headers, self._on_read = [], on_read
        self._begun, self._over = loop.create_future(), loop.create_future()
        self._transport.write(_head(request) + request.content)
        await self._begun
        return self._parser.get_status_code(), self._headers

    async def wait(self) -> None:
        """Return at the end of the body. Raises httpx.TransportError."""
        assert self._over
        await self._over

    def close(self) -> None:
        """End it now; what it has read is not looked at any more."""
        self._unparsed.clear()
        if self._transport:
            self._transport.abort()
            self._transport = None

    def free(self) -> None:
        """The exchange has been dealt with: another one may begin, unless the body has not ended."""
        # Who stops waiting for the end of a body cancels it: that it is done then does not mean that it has ended.
        if self._over and (not self._over.done() or self._over.cancelled()):
            self.close()
        for future in (self._begun, self._over):
            if future and future.done() and not future.cancelled():
                future.exception()
        self._begun = self._over = self._on_read = None
        self.idle_since_s = perf_counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast(asyncio.Transport, transport)
        # uvloop may keep what is written until its turn ends, behind the requests of everybody else, unless told.
        self._transport.set_write_buffer_limits(high=0)

    def data_received(self, data: bytes) -> None:
        """Stamp, and parse later."""
        self._unparsed.append((perf_counter(), data))
        if len(self._unparsed) == 1:
            asyncio.get_running_loop().call_soon(self._parse)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; an answer whose length was never said ends with it."""
        self._parse()
        self._transport = None
        if self._begun and self._begun.done() and not exc and not _has_length(self._headers):
            self._end()
        self._fail(httpx.ReadError(str(exc)) if exc else httpx.RemoteProtocolError(LOST))

    def on_message_begin(self) -> None:
        """The parser found the beginning of an answer; there is one to a request."""
        if self._over and self._over.done():
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser found a header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The parser found the end of the headers. Those of `100 Continue` and its like announce others."""
        if self._is_informational():
            self._headers = []
        elif self._begun and not self._begun.done():
            self._begun.set_result(None)

    def on_body(self, body: bytes) -> None:
        """The parser found a piece of the body."""
        if self._on_read:
            self._on_read(self._read_s, body)

    def on_message_complete(self) -> None:
        """The parser found the end of the answer."""
        if self._is_informational():
            return
        keeps_alive = self._parser.should_keep_alive()
        self._end()
        if not keeps_alive:
            self.close()

    def _parse(self) -> None:
        unparsed, self._unparsed = self._unparsed, []
        for self._read_s, data in unparsed:
            if self._over is None or self._over.done():
                # Whatever it is, it is not the answer to the next request.
                self.close()
                return
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserError as error:
                self._fail(httpx.RemoteProtocolError(f"not HTTP: {error}"))
                self.close()
                return

    def _is_informational(self) -> bool:
        status = self._parser.get_status_code()
        return status in INFORMATIONAL and status != SWITCHING_PROTOCOLS

    def _end(self) -> None:
        self._on_read = None
        if self._over and not self._over.done():
            self._over.set_result(None)

    def _fail(self, error: httpx.TransportError) -> None:
        for waiting in (self._begun, self._over):
            if waiting and not waiting.done():
                waiting.set_exception(error)


def _head(request: httpx.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    return b"\r\n".join((*lines, b"", b""))


def _has_length(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)
