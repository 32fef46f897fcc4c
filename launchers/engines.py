"""The table of engines: one line each."""

from collections.abc import Mapping

from launchers.engine import Engine
from launchers.sglang import SGLANG
from launchers.tgi import TGI
from launchers.trtllm import TRTLLM
from launchers.vllm import VLLM

ENGINES: Mapping[str, Engine] = {engine.name: engine for engine in (VLLM, SGLANG, TRTLLM, TGI)}
