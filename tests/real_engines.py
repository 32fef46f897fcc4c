"""How tests open a real engine on this machine's CPU, with the tiny model of $GOODTUNE_TINY_MODEL."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from launchers.open import open_target
from tests.builders import a_plan
from tuner.config.catalog import load, load_model
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.plan import Box
from tuner.configuration import Configuration
from tuner.target import Target


def open_real(engine: str, folder: Path, **knobs: Any) -> AbstractContextManager[Target]:
    """A real server; $GOODTUNE_VLLM or $GOODTUNE_SGLANG says where the engine is."""
    plan = a_plan(
        model=load_model("tiny"),
        engines=(load(EngineSpec, engine),),
        box=Box(load(Gpu, "cpu"), (0,), None),
    )
    configuration = Configuration(engine, {"max_batch_size": 8, "token_budget": 512} | knobs)
    return open_target(plan, configuration, (0,), folder)
