"""The simulated engine as a server process that speaks the real engine's command line and HTTP.

    python -m launchers.sim.server vllm serve qwen-7b --port 8000 --max-num-batched-tokens 2048
    python -m launchers.sim.server sglang serve --model-path qwen-7b --port 30000

Hidden flags: `--sim-model NAME` (a model of the catalog, where MODEL is a path), `--sim-gpu NAME` (h100),
`--sim-acceptance SHARE` (or one for each guess in turn, `0.8,0.6`), `--sim-calibration JSON` (else the shipped one).
`GOODTUNE_SIM_START_S` is how long it takes to start (0.2), `GOODTUNE_SIM_FAULT` what shall go wrong (`mishaps`).
"""

import asyncio
import gc
import os
import signal
import sys
from dataclasses import dataclass

import uvloop
from aiohttp import web

from launchers.sim.commandline import Asked, read
from launchers.sim.metrics import exposition
from launchers.sim.mishaps import Mishap, ordered, say
from launchers.sim.openai_api import OpenAiApi
from launchers.sim.realtime import RealTime
from launchers.sim.settings import settings_of
from launchers.sim.steptime import step_time
from tuner.config.catalog import load, load_model, names
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.errors import ServerFailed, UserError

START_VARIABLE = "GOODTUNE_SIM_START_S"
START_S = 0.2
DRAIN_POLL_S = 0.05
CLOSE_WITHIN_S = 2.0
OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has 0.50 GiB free."


@dataclass
class Health:
    """Whether the server has started, and is not stopping."""

    is_ready: bool = False


def main() -> None:
    """Serve until told to stop. Exits 1 where the real engine would not start."""
    asked = read(sys.argv[1:])
    try:
        mishap = ordered(os.environ)
        copies = _copies(asked, mishap)
    except (UserError, ServerFailed) as error:
        _die(getattr(error, "evidence", "") or str(error))
    if mishap.kind == "oom-at-start":
        _die(OUT_OF_MEMORY)
    if mishap.kind == "exit-at-start":
        _die("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}")
    # What was imported stays for ever: looking through it again took a collection up to 50 ms, between two steps.
    gc.freeze()
    uvloop.run(_serve(asked, copies, mishap))


def _copies(asked: Asked, mishap: Mishap) -> list[RealTime]:
    """One engine per data-parallel copy."""
    model, gpu = load_model(_name_of(asked.model)), load(Gpu, asked.gpu)
    settings = settings_of(asked.configuration, model, gpu, asked.acceptance, asked.max_model_len)
    steps = step_time(settings, model, gpu, asked.calibration)
    say(f"INFO simulating {asked.configuration.engine} with {model.title} on {gpu.title}; step time: {steps.source}")
    say(f"INFO GPU KV cache size: {settings.kv_tokens:,} tokens")
    without_effect = [*settings.unmodelled, *asked.ignored]
    if without_effect:
        say(f"WARNING without effect in the simulation: {' '.join(without_effect)}")
    return [RealTime(settings, steps, mishap) for _ in range(settings.dp)]


def _name_of(path: str) -> str:
    """The name of the catalog's model that engines know by this path; the path itself if there is none."""
    return next((name for name in names(Model) if load(Model, name).path == path), path)


def _die(evidence: str) -> None:
    say(f"(EngineCore pid={os.getpid()}) ERROR 01-01 00:00:00 [core.py:1100] EngineCore failed to start.")
    say(f"(EngineCore pid={os.getpid()}) ERROR 01-01 00:00:00 [core.py:1100] {evidence}")
    sys.exit(1)


async def _serve(asked: Asked, copies: list[RealTime], mishap: Mishap) -> None:
    """Listen at once, be healthy when started, stop on SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health = Health()
    runner = web.AppRunner(
        _app(asked, copies, health), access_log=None, handler_cancellation=True, shutdown_timeout=CLOSE_WITHIN_S
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, asked.host, asked.port).start()
    except OSError as error:
        _die(f"OSError: [Errno {error.errno}] {error.strerror}")
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(copy.run()) for copy in copies]
        running.append(group.create_task(_start(health, mishap)))
        await stop.wait()
        health.is_ready = False
        await _finish_answers(asked.configuration.engine, copies)
        await runner.cleanup()
        for task in running:
            task.cancel()
    _say_how_late(copies)


def _say_how_late(copies: list[RealTime]) -> None:
    """What a measurement on this server was worth."""
    for copy in copies:
        p50, p99, worst = (f"{1e3 * copy.lateness.percentile_s(percent):.1f}" for percent in (50, 99, 100))
        steps = copy.lateness.steps
        say(
            f"INFO {steps} steps, behind schedule by {p50} ms at p50, {p99} ms at p99, {worst} ms at most; "
            f"gave up {copy.slipped_s:.1f} s"
        )


async def _start(health: Health, mishap: Mishap) -> None:
    if mishap.kind == "hang-at-start":
        return
    await asyncio.sleep(float(os.environ.get(START_VARIABLE, START_S)))
    health.is_ready = True
    say("INFO:     Application startup complete.")


async def _finish_answers(engine: str, copies: list[RealTime]) -> None:
    """vLLM ends its answers where they are, and cleanly; SGLang lets them run to their end."""
    if engine == "vllm":
        for copy in copies:
            copy.stop_all()
        return
    while any(copy.running or copy.waiting for copy in copies):
        await asyncio.sleep(DRAIN_POLL_S)


def _app(asked: Asked, copies: list[RealTime], health: Health) -> web.Application:
    async def is_healthy(request: web.Request) -> web.Response:
        return web.Response(status=200 if health.is_ready else 503)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text=exposition(asked.configuration.engine, asked.served_name, copies))

    async def reset(request: web.Request) -> web.Response:
        done = all([copy.reset_cache() for copy in copies])
        if asked.configuration.engine == "vllm":
            return web.json_response({"success": done})
        return web.Response(text="Cache flushed.\n" if done else "Not idle.\n", status=200 if done else 400)

    async def version(request: web.Request) -> web.Response:
        return web.json_response({"version": "simulated"})

    app = web.Application(client_max_size=64 * 2**20)
    app.add_routes(OpenAiApi(asked.served_name, copies).routes())
    app.add_routes([web.get("/health", is_healthy), web.get("/ping", is_healthy)])
    app.add_routes([web.get("/metrics", metrics), web.get("/version", version)])
    app.add_routes([web.post("/reset_prefix_cache", reset), web.post("/flush_cache", reset)])
    return app


if __name__ == "__main__":
    main()
