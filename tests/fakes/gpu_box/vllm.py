"""`vllm` of a box with fake GPUs: its help names the flags of the search space, and it serves by simulation."""

import os
import sys

from launchers.engines import ENGINES
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec

if "--help=all" in sys.argv:
    spec, engine = load(EngineSpec, "vllm"), ENGINES["vllm"]
    flags = {
        word
        for knob in spec.knobs.values()
        for words in (knob.choices or {"": [knob.flag]}).values()
        for word in words
    }
    named = {word for word in (*flags, *engine.measuring_flags, engine.context_flag) if word and word.startswith("-")}
    print("\n".join(f"  {flag} VALUE" for flag in sorted(named)))
else:
    hidden = ("--sim-model", "qwen-7b", "--sim-gpu", "h100")
    os.execv(sys.executable, [sys.executable, "-m", "launchers.sim.server", "vllm", *sys.argv[1:], *hidden])
