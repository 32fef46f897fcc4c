"""The table of scheduling orders: one line each."""

from collections.abc import Callable, Mapping

from launchers.sim.orca_order import plan_orca
from launchers.sim.prefill_first_order import plan_prefill_first
from launchers.sim.settings import Policy
from launchers.sim.sglang_order import plan_sglang
from launchers.sim.state import Scheduler, Step
from launchers.sim.vllm_order import plan_vllm

PLANS: Mapping[Policy, Callable[[Scheduler], Step]] = {
    "vllm": plan_vllm,
    "sglang": plan_sglang,
    "prefill-first": plan_prefill_first,
    "orca": plan_orca,
}
