"""The HTTP transport of the measuring path: what sends, what stamps, what its failures are called. Swap it here."""

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

# uvicorn, which serves both engines, closes idle connections after 5 s: never reuse one that may just be closing.
KEEPALIVE_S = 3.0

HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}

TRANSPORT_ERRORS = (httpx.HTTPError, aiohttp.ClientError, OSError)


class Client:
    """Asks one server for completions, without limits, timeouts, proxies or cookies.

    It calls httpx's transport itself: httpx's client around it would double the 0.2 ms of CPU a request takes.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, base_url: str) -> None:
        self._transport = transport
        self._health = httpx.URL(f"{base_url}/health")
        self._completions = httpx.URL(f"{base_url}/v1/completions")

    @asynccontextmanager
    async def ask(self, body: bytes) -> AsyncIterator[httpx.Response]:
        """The answer to one completion request, its body not yet read. Raises TRANSPORT_ERRORS."""
        request = httpx.Request("POST", self._completions, headers=HEADERS, content=body)
        response = await self._transport.handle_async_request(request)
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
async def open_client(base_url: str) -> AsyncIterator[Client]:
    """A client for the length of a block."""
    # The transport's own session would keep aiohttp's limit of 100 connections, whatever httpx.Limits says.
    async with AiohttpTransport(verify=False, client=_session) as transport:
        yield Client(transport, base_url)


async def stamped_reads(response: httpx.Response) -> AsyncIterator[tuple[float, bytes]]:
    """The body as it comes off the socket, each read with the time it came, on the clock of `perf_counter`."""
    async for data in cast(AsyncIterable[bytes], response.stream):
        yield perf_counter(), data


def reason(error: BaseException) -> str:
    """A failure in one line. httpx-aiohttp calls a lost connection ConnectTimeout, so the cause is what is named."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}"


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
