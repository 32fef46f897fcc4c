"""Constraints: the arithmetic between knobs that engines demand. A choice that breaks it is moved next door. Pure."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tuner.config.engine import Constraint, KnobValue

Chosen = dict[str, KnobValue]
Allowed = Mapping[str, tuple[KnobValue, ...]]

# Without this much KV cache beside the weights no engine serves one long request.
LEAST_KV_GIB = 1.0


@dataclass(frozen=True)
class Bounds:
    """What configurations have to fit into: GPUs in the box, the longest request in tokens, the model's weights and
    the memory of one GPU in GiB (0: it does not matter, as on a CPU)."""

    gpus: int
    context: int
    weights_gib: float = 0.0
    memory_gib: float = 0.0


def cover_batch(chosen: Chosen, allowed: Allowed, bounds: Bounds) -> None:
    """vLLM refuses a token budget below the batch size: raise the budget, or where it cannot rise lower the batch."""
    budget, batch = chosen.get("token_budget"), chosen.get("max_batch_size")
    if not isinstance(budget, int) or not isinstance(batch, int) or budget >= batch:
        return
    large_enough = _numbers(allowed, "token_budget", least=batch)
    small_enough = _numbers(allowed, "max_batch_size", most=budget)
    if large_enough:
        chosen["token_budget"] = large_enough[0]
    elif small_enough:
        chosen["max_batch_size"] = small_enough[-1]


def cover_context(chosen: Chosen, allowed: Allowed, bounds: Bounds) -> None:
    """Without chunked prefill vLLM refuses a token budget below the longest request: raise it, or chunk after all."""
    budget = chosen.get("token_budget")
    if chosen.get("chunked_prefill") != "off" or not isinstance(budget, int) or budget >= bounds.context:
        return
    large_enough = _numbers(allowed, "token_budget", least=bounds.context)
    if large_enough:
        chosen["token_budget"] = large_enough[0]
    elif "on" in allowed["chunked_prefill"]:
        chosen["chunked_prefill"] = "on"


def drop_idle_threshold(chosen: Chosen, allowed: Allowed, bounds: Bounds) -> None:
    """A threshold for long prompts that the token budget never reaches does nothing, and vLLM refuses one beyond the
    longest request: off says the same."""
    threshold, budget = str(chosen.get("long_prefill_token_threshold", "off")), chosen.get("token_budget")
    bound = min(budget, bounds.context + 1) if isinstance(budget, int) else bounds.context + 1
    idle = threshold.isdigit() and int(threshold) >= bound
    if idle and "off" in allowed["long_prefill_token_threshold"]:
        chosen["long_prefill_token_threshold"] = "off"


def fit_weights(chosen: Chosen, allowed: Allowed, bounds: Bounds) -> None:
    """The server's share of memory must hold its part of the weights: raise the share, or split them further."""
    if not bounds.memory_gib or "gpu_memory_utilization" not in chosen:
        return
    for tp in _numbers(allowed, "tp", least=int(chosen.get("tp", 1))) or (1,):
        split = {**chosen, "tp": tp} if "tp" in chosen else chosen
        needed_gib = bounds.weights_gib / (tp * int(chosen.get("pp", 1))) + LEAST_KV_GIB
        shares = [share for share in allowed["gpu_memory_utilization"] if _holds(share, needed_gib, bounds)]
        if shares:
            least = float(chosen["gpu_memory_utilization"])
            enough = [share for share in shares if float(share) >= least]
            chosen |= {**split, "gpu_memory_utilization": min(enough or shares, key=float)}
            return


def fit_box(chosen: Chosen, allowed: Allowed, bounds: Bounds) -> None:
    """tp·pp·dp GPUs must be there: lower dp, then pp, then tp, to what the others leave."""
    for name in ("dp", "pp", "tp"):
        others = math.prod(int(chosen.get(other, 1)) for other in ("dp", "pp", "tp") if other != name)
        if name in chosen and int(chosen[name]) * others > bounds.gpus:
            fitting = [value for value in allowed[name] if int(value) * others <= bounds.gpus]
            chosen[name] = fitting[-1] if fitting else allowed[name][0]


CONSTRAINTS: Mapping[Constraint, Callable[[Chosen, Allowed, Bounds], None]] = {
    "token-budget-covers-batch": cover_batch,
    "token-budget-covers-context": cover_context,
    "long-prefill-below-budget": drop_idle_threshold,
    "weights-fit": fit_weights,
}
"""What each of an engine's `constraints` does to a choice, in this order."""


def _numbers(allowed: Allowed, name: str, least: float = 0, most: float = math.inf) -> list[int]:
    """The whole numbers that a knob may take within bounds, ascending."""
    return sorted(value for value in allowed.get(name, ()) if isinstance(value, int) and least <= value <= most)


def _holds(share: KnobValue, needed_gib: float, bounds: Bounds) -> bool:
    return float(share) * bounds.memory_gib >= needed_gib
