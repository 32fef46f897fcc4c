"""The HTTP transport of the measuring path: which client sends, and what its failures are called. Swap it here."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import cast

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

# uvicorn, which serves both engines, closes idle connections after 5 s: never reuse one that may just be closing.
KEEPALIVE_S = 3.0

TRANSPORT_ERRORS = (httpx.HTTPError, aiohttp.ClientError, OSError)


def open_client(base_url: str) -> httpx.AsyncClient:
    """A client without limits, timeouts, proxies or cookies. Use it as an async context manager."""
    return httpx.AsyncClient(
        base_url=base_url,
        transport=AiohttpTransport(verify=False, client=_session),
        timeout=None,
        trust_env=False,
    )


def reads(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body as it comes off the socket, without the copies and counters of `aiter_raw`."""
    return cast(AsyncIterable[bytes], response.stream).__aiter__()


def reason(error: BaseException) -> str:
    """A failure in one line. httpx-aiohttp calls a lost connection ConnectTimeout, so the cause is what is named."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}"


def _session() -> aiohttp.ClientSession:
    # httpx.Limits(max_connections=None) would leave aiohttp's own limit of 100 in place: requests would queue unseen.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
