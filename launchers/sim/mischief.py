"""What goes wrong between a simulated server and its clients, while the engine behind it is well."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from launchers.sim.faults import Fault

DRIP_S = 0.5
GARBAGE = b"data: {\xff\xfe this is no JSON\n\ndata: <html>\n\n"


@dataclass
class Mischief:
    """Sees every request first. `close` is called where the server is to refuse connections from then on."""

    fault: Fault
    close: Callable[[], None]
    requests: int = 0

    def middleware(self) -> Middleware:
        """It stands before every handler."""

        @web.middleware
        async def go_wrong(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self.answer(request) or await handler(request)

        return go_wrong

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        """What is answered instead of the truth; None: nothing is wrong with this one."""
        if self.fault.kind == "drip" and request.path == "/health":
            await _drip(request)
        if not request.path.startswith("/v1/") or request.method != "POST":
            return None
        self.requests += 1
        if self.fault.kind == "garbage":
            return web.Response(body=GARBAGE, headers={"content-type": "text/event-stream; charset=utf-8"})
        if self.fault.is_due("refuse", self.requests):
            self.close()
            assert request.transport
            request.transport.abort()
        if self.fault.is_due("errors", self.requests):
            error = {"message": "EngineCore encountered an issue", "type": "InternalServerError", "code": 500}
            return web.json_response({"error": error}, status=500)
        return None


async def _drip(request: web.Request) -> None:
    """A status line that never ends, a byte now and then."""
    drops = iter(b"HTTP/1.1")
    while request.transport and not request.transport.is_closing():
        request.transport.write(bytes([next(drops, 0x20)]))
        await asyncio.sleep(DRIP_S)
