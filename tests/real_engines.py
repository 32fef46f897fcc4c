"""How tests open a real engine on this machine's CPU, with the tiny model of $GOODTUNE_TINY_MODEL."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from launchers.open import open_target
from launchers.sim.faults import Fault
from launchers.sim.metrics import exposition
from launchers.sim.realtime import RealTime
from launchers.sim.settings import SimSettings
from tests.builders import a_plan
from tuner.config.catalog import load, load_model
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.plan import Box
from tuner.configuration import Configuration
from tuner.target import Target

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
        model=load_model("tiny"),
        engines=(load(EngineSpec, engine),),
        box=Box(load(Gpu, "cpu"), (0,), None),
    )
    configuration = Configuration(engine, {"max_batch_size": 8, "token_budget": 512} | knobs)
    return open_target(plan, configuration, (0,), folder)
