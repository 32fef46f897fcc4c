"""How tests start a simulated server, and what they ask it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from launchers.sim.virtual import VirtualTarget, virtual_target
from tuner.config.catalog import load
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.configuration import Configuration

WITHIN_S = 30.0
COMMON_LABELS = {"engine", "model_name", "tp_rank", "pp_rank", "dp_rank", "engine_type"}
COMMANDS = {
    "vllm": ("vllm", "serve", "Qwen/Qwen2.5-7B-Instruct", "--max-model-len", "4096"),
    "sglang": ("sglang", "serve", "--model-path", "Qwen/Qwen2.5-7B-Instruct", "--context-length", "4096"),
}


class Running:
    """A simulated server that is ready."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.log = process, log
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN_S, trust_env=False)

    def events(self, path: str = "/v1/completions", **overrides) -> list[dict | str]:
        """What a streamed answer says."""
        with self.client.stream("POST", path, json=a_body(**overrides)) as response:
            assert response.status_code == 200
            return list(events_of(response))

    def metrics(self) -> dict[str, float]:
        """The value of every sample by its name, with those labels that tell samples of one server apart."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return {_name(sample): sample.value for family in families for sample in family.samples}


def _name(sample: Sample) -> str:
    own = {label: value for label, value in sample.labels.items() if label not in COMMON_LABELS}
    return sample.name + ("{" + ",".join(f'{label}="{value}"' for label, value in own.items()) + "}" if own else "")


def a_body(**overrides) -> dict:
    values = {
        "model": "qwen-7b", "prompt": list(range(100)), "max_tokens": 8, "stream": True,
        "stream_options": {"include_usage": True}, "ignore_eos": True,
    }  # fmt: skip
    return values | overrides


def events_of(response: httpx.Response) -> Iterator[dict | str]:
    for line in response.iter_lines():
        if line:
            text = line.removeprefix("data: ")
            yield text if text == "[DONE]" else json.loads(text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(log: Path, engine: str, *flags: str, port: int = 0, **environment: str) -> subprocess.Popen[bytes]:
    identity = ("--served-model-name", "qwen-7b", "--sim-model", "qwen-7b", "--port", str(port or free_port()))
    with log.open("wb") as file:
        return subprocess.Popen(
            (sys.executable, "-m", "launchers.sim.server", *COMMANDS[engine], *identity, *flags),
            stdout=file,
            stderr=file,
            env={**os.environ, **environment},
        )


@contextmanager
def serving(folder: Path, engine: str = "vllm", *flags: str, **environment: str) -> Iterator[Running]:
    port = free_port()
    process = started(folder / "server.log", engine, *flags, port=port, **environment)
    running = Running(process, port, folder / "server.log")
    try:
        while process.poll() is None and not is_healthy(running.client):
            pass
        yield running
    finally:
        running.client.close()
        process.kill()
        process.wait(WITHIN_S)


def a_virtual_server() -> VirtualTarget:
    """One in virtual time: the simulated vLLM on an H100."""
    knobs = {"max_batch_size": 64, "token_budget": 2048, "tp": 1}
    return virtual_target(Configuration("vllm", knobs), load(Model, "qwen-7b"), load(Gpu, "h100"), 0.6)


def is_healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False
