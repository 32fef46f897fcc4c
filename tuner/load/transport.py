"""The HTTP transport of the measuring path: what sends, what stamps, what its failures are called. Swap it here.

It stands under httpx's API. Requests that carry `on_read` among their extensions get the pieces of the body, each
with the time it came off the socket, before their response is complete; to others it is an ordinary transport.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import httpx

from tuner.load.connection import Connection, OnRead

# uvicorn, which serves both engines, closes idle connections after 5 s: never reuse one that may just be closing.
KEEPALIVE_S = 3.0

HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}

TRANSPORT_ERRORS = (httpx.HTTPError, OSError)


class StampingTransport(httpx.AsyncBaseTransport):
    """Plain HTTP/1.1 to one server, a connection for each request in flight, without limits, timeouts or proxies.

    Connections that were idle for `keepalive_s` are not used again.
    """

    def __init__(self, keepalive_s: float = KEEPALIVE_S) -> None:
        self._idle: list[Connection] = []
        self._keepalive_s = keepalive_s

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer's status and headers; its stream ends with the body. Raises httpx.TransportError."""
        connection = self._taken() or await _opened(request.url)
        body = _Body(self, connection)
        try:
            status, headers = await connection.send(request, request.extensions.get("on_read", body.keep))
        except BaseException:
            await body.aclose()
            raise
        return httpx.Response(status, headers=headers, stream=body, request=request)

    @property
    def idle(self) -> int:
        """How many connections could carry another request."""
        return sum(connection.is_usable for connection in self._idle)

    async def aclose(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def give_back(self, connection: Connection) -> None:
        """Its exchange is over."""
        connection.free()
        if connection.is_usable:
            self._idle.append(connection)

    def _taken(self) -> Connection | None:
        """The idle connection used last, if it is young enough; the others are older."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable and perf_counter() - connection.idle_since_s < self._keepalive_s:
                return connection
            connection.close()
        return None


class _Body(httpx.AsyncByteStream):
    """What nobody took from the socket; empty where `on_read` did."""

    def __init__(self, transport: StampingTransport, connection: Connection) -> None:
        self._transport = transport
        self._connection: Connection | None = connection
        self._kept = bytearray()

    def keep(self, read_s: float, data: bytes) -> None:
        self._kept += data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._connection:
            await self._connection.wait()
        yield bytes(self._kept)

    async def aclose(self) -> None:
        if self._connection:
            self._transport.give_back(self._connection)
            self._connection = None


class Client:
    """Asks one server for completions.

    It calls httpx's transport itself: httpx's client around it would double the CPU time a request takes.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        base_url: str,
        path: str = "/v1/completions",
        authorization: str = "",
    ) -> None:
        self._transport = transport
        self._headers = {**HEADERS, "authorization": authorization} if authorization else HEADERS
        self._health = httpx.URL(f"{base_url}/health")
        self._completions = httpx.URL(f"{base_url}{path}")

    def question(self, body: bytes, on_read: OnRead) -> httpx.Request:
        """A completion request, ready to be sent."""
        extensions = {"on_read": on_read}
        return httpx.Request("POST", self._completions, headers=self._headers, content=body, extensions=extensions)

    @asynccontextmanager
    async def ask(self, question: httpx.Request) -> AsyncIterator[httpx.Response]:
        """The answer to a question; read to its end, its body has gone to the question's `on_read`.

        Raises TRANSPORT_ERRORS.
        """
        response = await self._transport.handle_async_request(question)
        try:
            yield response
        finally:
            await response.aclose()

    async def touch(self) -> None:
        """Open a connection and leave it open, whatever the server answers. Raises TRANSPORT_ERRORS."""
        response = await self._transport.handle_async_request(httpx.Request("GET", self._health))
        await response.aread()
        await response.aclose()


@asynccontextmanager
async def open_client(base_url: str, path: str = "/v1/completions", authorization: str = "") -> AsyncIterator[Client]:
    """A client that asks at `path`, with that header if it is given, for the length of a block."""
    async with StampingTransport() as transport:
        yield Client(transport, base_url, path, authorization)


def reason(error: BaseException) -> str:
    """A failure in one line."""
    return f"{type(error).__name__}: {error}"


async def _opened(url: httpx.URL) -> Connection:
    if url.scheme != "http":
        raise httpx.UnsupportedProtocol(f"{url}: the load generator speaks plain HTTP only")
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(Connection, url.host, url.port or 80)
    except OSError as error:
        raise httpx.ConnectError(f"{url.host}:{url.port}: {error}") from error
    return connection
