"""The table of scheduling orders: one line each."""

from collections.abc import Callable, Mapping

from launchers.sim.sglang_order import plan_sglang
from launchers.sim.state import Scheduler, Step
from launchers.sim.vllm_order import plan_vllm

PLANS: Mapping[str, Callable[[Scheduler], Step]] = {"vllm": plan_vllm, "sglang": plan_sglang}
