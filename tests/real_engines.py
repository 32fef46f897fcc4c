"""How tests open a real engine on this CPU, with the tiny model of $GOODTUNE_TINY_MODEL, and what they ask it."""

import os
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from launchers.open import open_target
from launchers.served import ServedTarget
from launchers.sim.faults import Fault
from launchers.sim.metrics import exposition
from launchers.sim.realtime import RealTime
from launchers.sim.settings import SimSettings
from tests.builders import a_plan, an_slo
from tuner.config.catalog import load, load_model
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.plan import Box
from tuner.config.slo import Limits
from tuner.configuration import Configuration
from tuner.requests import Message, Requests, Segment
from tuner.target import Target
from tuner.workload.chats import chat_segments, prompt_lengths

without_sglang = pytest.mark.skipif("GOODTUNE_SGLANG" not in os.environ, reason="GOODTUNE_SGLANG names no SGLang")
real_engines = pytest.mark.parametrize(
    "engine", ["vllm", pytest.param("sglang", marks=without_sglang)], scope="module"
)
OUTPUT_TOKENS = 16
WORKER = {"vllm": "EngineCore", "sglang": "scheduler"}

Exported = tuple[str, frozenset[tuple[str, object]]]


def exported(text: str) -> set[Exported]:
    """The names of an exposition's samples with their labels, of whose values those count that are the same wherever
    the engine runs."""
    return {
        (sample.name, frozenset((label, _value(label, value)) for label, value in sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def exported_by_simulation(engine: str, longest: int, drafts: int = 0) -> set[Exported]:
    """The same of a simulated server that has done nothing yet, but for what is our own."""
    settings = SimSettings(policy="sglang" if engine == "sglang" else "vllm", max_model_len=longest, drafts=drafts)
    text = exposition(engine, "m", [RealTime(settings, Roofless(), Fault())])
    return {sample for sample in exported(text) if not sample[0].startswith("goodtune:")}


class Roofless:
    """Step times that nobody asks for."""

    source = "none"

    def step_s(self, tokens: int, cached: int, prompts: int, answers: int, context: int) -> float:
        raise AssertionError("no step is taken")


def _value(label: str, value: str) -> object:
    if label == "le":
        return float(value)
    return value if label in ("finished_reason", "position") else None


def open_real(engine: str, folder: Path, **knobs: Any) -> AbstractContextManager[Target]:
    """A real server; $GOODTUNE_VLLM or $GOODTUNE_SGLANG says where the engine is."""
    plan = a_plan(
        # So wide a limit tolerates a late client, which a busy machine makes.
        slo=an_slo(limits=Limits(ttft_s=60.0)),
        model=load_model("tiny"),
        engines=(load(EngineSpec, engine),),
        box=Box(load(Gpu, "cpu"), (0,), None),
    )
    configuration = Configuration(engine, {"max_batch_size": 8, "token_budget": 512} | knobs)
    return open_target(plan, configuration, (0,), folder)


def processes_of(target: ServedTarget) -> list[int]:
    return [process.pid for process in psutil.Process(target.server.guard.pid).children(recursive=True)]


def some_requests(n: int) -> Requests:
    return Requests(
        seed=0,
        prompt_tokens=np.full(n, 64),
        output_tokens=np.full(n, OUTPUT_TOKENS),
        session=np.arange(n),
        unit_gaps=np.ones(n),
        think_s=np.zeros(n),
        segments=tuple((Segment(i, 64),) for i in range(n)),
    )


def long_prompts(n: int) -> Requests:
    prompt = np.full(n, 1500)
    segments = tuple((Segment(i, 1500),) for i in range(n))
    return replace(some_requests(n), prompt_tokens=prompt, output_tokens=np.full(n, 24), segments=segments)


def some_chats(n: int) -> Requests:
    """Conversations that a model can copy from, of about 100 tokens; the first half of each is the same."""
    rules = "You are a helpful assistant. Answer in short sentences, one after the other. " * 4
    chats = tuple(
        (Message("system", rules), Message("user", f"Count from {row} on: 1 2 3 4 1 2 3 4 1 2 3 4"))
        for row in range(n)
    )
    requests = some_requests(n)
    return replace(requests, prompt_tokens=prompt_lengths(chats), segments=chat_segments(chats), chats=chats)


def metrics_of(target: ServedTarget) -> str:
    return httpx.get(f"{target.endpoint.base_url}/metrics", timeout=30).text


def longest_of(target: ServedTarget) -> int:
    models = httpx.get(f"{target.endpoint.base_url}/v1/models", timeout=30).json()
    return int(models["data"][0]["max_model_len"])
