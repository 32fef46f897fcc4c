"""The simulated engine as a server process that speaks the real engine's command line and HTTP.

    python -m launchers.sim.server vllm serve qwen-7b --port 8000 --max-num-batched-tokens 2048
    python -m launchers.sim.server sglang serve --model-path qwen-7b --port 30000

Hidden flags: `--sim-model NAME` (a model of the catalog, where MODEL is a path), `--sim-gpu NAME` (h100),
`--sim-acceptance SHARE` (or one for each guess in turn, `0.8,0.6`), `--sim-calibration JSON` (else the shipped one).
`GOODTUNE_SIM_FAULT` says what shall go wrong (`launchers.sim.faults`).
"""

import asyncio
import gc
import os
import signal
import sys
from dataclasses import dataclass

import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler

from launchers.sim.commandline import Asked, read
from launchers.sim.faults import STAGES, Fault, ordered, say
from launchers.sim.memory import out_of_memory
from launchers.sim.metrics import exposition
from launchers.sim.mischief import Mischief
from launchers.sim.openai_api import OpenAiApi
from launchers.sim.overrides import as_loaded, as_sized
from launchers.sim.realtime import RealTime
from launchers.sim.settings import settings_of
from launchers.sim.steptime import step_time
from tuner.config.catalog import load, load_model, names
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.errors import FailureKind, ServerFailed, UserError

DRAIN_POLL_S = 0.05
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
CLOSE_WITHIN_S = 2.0


@dataclass
class Health:
    """Whether the server has started, and is not stopping."""

    is_ready: bool = False


def main() -> None:
    """Serve until told to stop. Exits 1 where the real engine would not start."""
    asked = read(sys.argv[1:])
    try:
        fault = ordered(os.environ)
        copies = _copies(asked, fault)
    except UserError as error:
        _die(str(error))
    except ServerFailed as failed:
        if failed.kind is FailureKind.WEIGHTS_OUT_OF_MEMORY:
            say(STAGES["oom-at-start"][asked.configuration.engine])
        _die(failed.fault.evidence)
    if fault.kind in STAGES:
        say(STAGES[fault.kind][asked.configuration.engine])
        _die(out_of_memory(load(Gpu, asked.gpu)))
    if fault.kind == "exit-at-start":
        process = "Failed core proc(s): {'EngineCore': 1}"
        _die(f"RuntimeError: Engine core initialization failed. See root cause above. {process}")
    uvloop.run(_serve(asked, copies, fault))


def _copies(asked: Asked, fault: Fault) -> list[RealTime]:
    """One engine per data-parallel copy."""
    model, gpu = as_loaded(load_model(_name_of(asked.model)), asked.overrides), load(Gpu, asked.gpu)
    settings = settings_of(asked.configuration, model, gpu, asked.acceptance, asked.max_model_len)
    settings = as_sized(settings, model.architecture, asked.overrides)
    steps = step_time(settings, model, gpu, asked.calibration)
    say(f"INFO simulating {asked.configuration.engine} with {model.title} on {gpu.title}; step time: {steps.source}")
    say(f"INFO GPU KV cache size: {settings.kv_tokens:,} tokens")
    without_effect = [*settings.unmodelled, *asked.ignored]
    if without_effect:
        say(f"WARNING without effect in the simulation: {' '.join(without_effect)}")
    return [RealTime(settings, steps, fault) for _ in range(settings.dp)]


def _name_of(path: str) -> str:
    """The name of the catalog's model that engines know by this path; the path itself if there is none."""
    return next((name for name in names(Model) if load(Model, name).path == path), path)


def _die(evidence: str) -> None:
    say(f"(EngineCore pid={os.getpid()}) ERROR 01-01 00:00:00 [core.py:1100] EngineCore failed to start.")
    say(f"(EngineCore pid={os.getpid()}) ERROR 01-01 00:00:00 [core.py:1100] {evidence}")
    sys.exit(1)


async def _serve(asked: Asked, copies: list[RealTime], fault: Fault) -> None:
    """Listen at once, be healthy when started, stop on SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health = Health()
    closed = asyncio.Event()
    runner = web.AppRunner(
        _app(asked, copies, health, Mischief(fault, closed.set)),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=CLOSE_WITHIN_S,
    )
    await runner.setup()
    site = web.TCPSite(runner, asked.host, asked.port)
    try:
        await site.start()
    except OSError as error:
        _die(f"OSError: [Errno {error.errno}] {error.strerror}")
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(copy.run()) for copy in copies]
        running += [group.create_task(_start(health, fault)), group.create_task(_close_when(closed, site))]
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


async def _start(health: Health, fault: Fault) -> None:
    if fault.kind == "hang-at-start":
        return
    if fault.kind == "slow-start":
        await asyncio.sleep(fault.number)
    # What is there by now stays for ever: looking through it again took a collection up to 50 ms, between two steps.
    gc.collect()
    gc.freeze()
    health.is_ready = True
    say("INFO:     Application startup complete.")


async def _close_when(closed: asyncio.Event, site: web.TCPSite) -> None:
    """Refuse new connections from then on."""
    await closed.wait()
    await site.stop()


async def _finish_answers(engine: str, copies: list[RealTime]) -> None:
    """vLLM ends its answers where they are, and cleanly; SGLang lets them run to their end."""
    if engine == "vllm":
        for copy in copies:
            copy.stop_all()
        return
    while any(copy.running or copy.waiting for copy in copies):
        await asyncio.sleep(DRAIN_POLL_S)


def _app(asked: Asked, copies: list[RealTime], health: Health, mischief: Mischief) -> web.Application:
    async def is_healthy(request: web.Request) -> web.Response:
        return web.Response()

    async def metrics(request: web.Request) -> web.Response:
        text = exposition(asked.configuration.engine, asked.served_name, copies)
        return web.Response(body=text.encode(), headers={"content-type": EXPOSITION})

    async def reset(request: web.Request) -> web.Response:
        done = all([copy.reset_cache() for copy in copies])
        if asked.configuration.engine == "vllm":
            return web.json_response({"success": done})
        return web.Response(text="Cache flushed.\n" if done else "Not idle.\n", status=200 if done else 400)

    async def version(request: web.Request) -> web.Response:
        return web.json_response({"version": "simulated"})

    @web.middleware
    async def when_ready(request: web.Request, handler: Handler) -> web.StreamResponse:
        """The real engines do not listen before they are ready; `/metrics` tells a test what goes on meanwhile."""
        if health.is_ready or request.path == "/metrics":
            return await handler(request)
        return web.Response(status=503)

    app = web.Application(client_max_size=64 * 2**20, middlewares=[when_ready, mischief.middleware()])
    app.add_routes(OpenAiApi(asked.served_name, copies).routes())
    app.add_routes([web.get("/health", is_healthy), web.get("/ping", is_healthy)])
    app.add_routes([web.get("/metrics", metrics), web.get("/version", version)])
    app.add_routes([web.post("/reset_prefix_cache", reset), web.post("/flush_cache", reset)])
    return app


if __name__ == "__main__":
    main()
