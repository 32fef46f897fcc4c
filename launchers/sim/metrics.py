"""What the simulated engine says of itself at `/metrics`: Prometheus text under the real engine's names. Pure.

Besides, `goodtune:step_lateness_seconds`: how far its steps were behind their own schedule.
"""

from launchers.sim.lateness import BOUNDS_S
from launchers.sim.realtime import RealTime


def exposition(engine: str, model: str, copies: list[RealTime]) -> str:
    """Gauges and counters of all copies together."""
    label = f'{{model_name="{model}"}}'
    values = (_vllm if engine == "vllm" else _sglang)(copies)
    lines = []
    for name, value in values.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines += [f"# TYPE {name} {kind}", f"{name}{label} {value:g}"]
    lines += _lateness(model, copies)
    return "\n".join(lines) + "\n"


def _lateness(model: str, copies: list[RealTime]) -> list[str]:
    """A histogram over the steps of all copies."""
    name = "goodtune:step_lateness_seconds"
    counts = {f"{bound_s:g}": sum(copy.lateness.within(bound_s) for copy in copies) for bound_s in BOUNDS_S}
    steps = sum(copy.lateness.steps for copy in copies)
    sum_s = sum(copy.lateness.sum_s for copy in copies)
    return [
        f"# TYPE {name} histogram",
        *(f'{name}_bucket{{le="{le}",model_name="{model}"}} {n}' for le, n in (counts | {"+Inf": steps}).items()),
        f'{name}_sum{{model_name="{model}"}} {sum_s:g}',
        f'{name}_count{{model_name="{model}"}} {steps}',
    ]


def _vllm(copies: list[RealTime]) -> dict[str, float]:
    caches = [copy.scheduler.cache for copy in copies if copy.scheduler.cache]
    return {
        "vllm:num_requests_running": sum(copy.running for copy in copies),
        "vllm:num_requests_waiting": sum(copy.waiting for copy in copies),
        "vllm:kv_cache_usage_perc": _kv_used_frac(copies),
        "vllm:prefix_cache_queries_total": sum(cache.queried_tokens for cache in caches),
        "vllm:prefix_cache_hits_total": sum(cache.hit_tokens for cache in caches),
        "vllm:num_preemptions_total": sum(copy.scheduler.preemptions for copy in copies),
        "vllm:prompt_tokens_total": sum(copy.prompt_tokens for copy in copies),
        "vllm:generation_tokens_total": sum(copy.generated_tokens for copy in copies),
    }


def _sglang(copies: list[RealTime]) -> dict[str, float]:
    caches = [copy.scheduler.cache for copy in copies if copy.scheduler.cache]
    queried = sum(cache.queried_tokens for cache in caches)
    return {
        "sglang:num_running_reqs": sum(copy.running for copy in copies),
        "sglang:num_queue_reqs": sum(copy.waiting for copy in copies),
        "sglang:token_usage": _kv_used_frac(copies),
        "sglang:cache_hit_rate": sum(cache.hit_tokens for cache in caches) / queried if queried else 0.0,
        "sglang:num_retracted_reqs": sum(copy.scheduler.preemptions for copy in copies),
        "sglang:prompt_tokens_total": sum(copy.prompt_tokens for copy in copies),
        "sglang:generation_tokens_total": sum(copy.generated_tokens for copy in copies),
    }


def _kv_used_frac(copies: list[RealTime]) -> float:
    blocks = sum(copy.settings.blocks for copy in copies)
    return 1 - sum(copy.scheduler.free_blocks for copy in copies) / blocks
