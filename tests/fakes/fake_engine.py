"""An engine's executable: `fake_engine.py serve MODEL --host H --port P --served-model-name NAME ...`.

What it was started with goes to $FAKE_ENGINE_JOURNAL. It refuses the first $FAKE_ENGINE_REFUSALS cache resets, as
vLLM does while requests are running. It answers requests as `openai_server` does. With $FAKE_ENGINE_METRICS it
exports how often it was asked for its metrics, as preemptions.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import openai_server
from aiohttp import web

REFUSALS = int(os.environ.get("FAKE_ENGINE_REFUSALS", "0"))


async def main() -> None:
    Path(os.environ["FAKE_ENGINE_JOURNAL"]).write_text(json.dumps({"argv": sys.argv[1:], "env": dict(os.environ)}))
    resets = looks = 0

    async def reset(request: web.Request) -> web.Response:
        nonlocal resets
        resets += 1
        return web.json_response({"success": resets > REFUSALS})

    async def count(request: web.Request) -> web.Response:
        return web.Response(text=str(resets))

    async def metrics(request: web.Request) -> web.Response:
        nonlocal looks
        looks += 1
        if "FAKE_ENGINE_METRICS" not in os.environ:
            raise web.HTTPNotFound
        return web.Response(text=f"vllm:num_preemptions_total {looks}\nvllm:num_requests_running 2\n")

    async def looked(request: web.Request) -> web.Response:
        return web.Response(text=str(looks))

    app = web.Application()
    app[openai_server.SEEN] = openai_server.Seen()
    app.router.add_post("/v1/completions", openai_server.completions)
    app.router.add_get("/health", openai_server.health)
    app.router.add_post("/reset_prefix_cache", reset)
    app.router.add_get("/resets", count)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/looks", looked)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, _argument("--host"), int(_argument("--port"))).start()
    await asyncio.Event().wait()


def _argument(flag: str) -> str:
    return sys.argv[sys.argv.index(flag) + 1]


asyncio.run(main())
