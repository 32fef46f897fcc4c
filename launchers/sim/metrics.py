"""What the simulated engine says of itself at `/metrics`: Prometheus text under the real engine's names. Pure.


Besides, `goodtune:step_lateness_seconds`: how far its steps were behind their own schedule.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf

from launchers.sim.lateness import BOUNDS_S
from launchers.sim.realtime import RealTime
from launchers.sim.tally import QUEUE_BOUNDS_S

QUEUE_TIME = {"vllm": "vllm:request_queue_time_seconds", "sglang": "sglang:queue_time_seconds"}
LATENESS = "goodtune:step_lateness_seconds"


def exposition(engine: str, model: str, copies: list[RealTime]) -> str:
    """Gauges, counters and histograms of all copies together."""
    label = f'model_name="{model}"'
    values = (_vllm if engine == "vllm" else _sglang)(copies)
    lines = [*_samples(values, label), *_waits(QUEUE_TIME[engine], label, copies), *_lateness(label, copies)]
    return "\n".join(lines) + "\n"


def _samples(values: Mapping[str, float], label: str) -> Iterator[str]:
    for name, value in values.items():
        bare, _, own = name.rstrip("}").partition("{")
        if bare.endswith("_total"):
            yield f"# TYPE {bare} counter"
        yield f"{bare}{{{','.join(filter(None, (label, own)))}}} {value:.12g}"


def _waits(name: str, label: str, copies: list[RealTime]) -> Iterator[str]:
    """How long requests waited for their place in the batch."""
    counts = list(accumulate(sum(each) for each in zip(*(copy.tally.queued for copy in copies), strict=True)))
    sum_s = sum(copy.tally.queued_s for copy in copies)
    return _histogram(name, label, list(zip(QUEUE_BOUNDS_S, counts, strict=True)), sum_s)


def _lateness(label: str, copies: list[RealTime]) -> Iterator[str]:
    """How late the steps were."""
    counts = [(bound_s, sum(copy.lateness.within(bound_s) for copy in copies)) for bound_s in BOUNDS_S]
    steps = sum(copy.lateness.steps for copy in copies)
    sum_s = sum(copy.lateness.sum_s for copy in copies)
    return _histogram(LATENESS, label, [*counts, (inf, steps)], sum_s)


def _histogram(name: str, label: str, counts: Sequence[tuple[float, int]], sum_s: float) -> Iterator[str]:
    """`counts` holds each bound and how many were at most that, the last one all."""
    yield f"# TYPE {name} histogram"
    for bound_s, count in counts:
        yield f'{name}_bucket{{{label},le="{"+Inf" if bound_s == inf else f"{bound_s:g}"}"}} {count}'
    yield f"{name}_sum{{{label}}} {sum_s:.12g}"
    yield f"{name}_count{{{label}}} {counts[-1][1]}"


def _vllm(copies: list[RealTime]) -> dict[str, float]:
    tallies = [copy.tally for copy in copies]
    queried, hit = _prefix_cache(copies)
    values = {
        "vllm:num_requests_running": sum(copy.running for copy in copies),
        "vllm:num_requests_waiting": sum(copy.waiting for copy in copies),
        "vllm:kv_cache_usage_perc": _kv_used_frac(copies),
        "vllm:prefix_cache_queries_total": queried,
        "vllm:prefix_cache_hits_total": hit,
        "vllm:num_preemptions_total": sum(copy.scheduler.preemptions for copy in copies),
        "vllm:prompt_tokens_total": sum(tally.prompt_tokens for tally in tallies),
        "vllm:generation_tokens_total": sum(tally.generated_tokens for tally in tallies),
        "vllm:iteration_tokens_total_count": sum(tally.steps for tally in tallies),
        "vllm:iteration_tokens_total_sum": sum(t.computed_tokens + t.generated_tokens for t in tallies),
    }
    if not any(copy.settings.drafts for copy in copies):
        return values
    return values | {
        "vllm:spec_decode_num_draft_tokens_total": sum(tally.guessed_tokens for tally in tallies),
        "vllm:spec_decode_num_accepted_tokens_total": sum(tally.accepted_tokens for tally in tallies),
    }


def _sglang(copies: list[RealTime]) -> dict[str, float]:
    tallies = [copy.tally for copy in copies]
    queried, hit = _prefix_cache(copies)
    guessed = sum(tally.guessed_tokens for tally in tallies)
    return {
        "sglang:num_running_reqs": sum(copy.running for copy in copies),
        "sglang:num_queue_reqs": sum(copy.waiting for copy in copies),
        "sglang:token_usage": _kv_used_frac(copies),
        "sglang:cache_hit_rate": hit / queried if queried else 0.0,
        'sglang:prefill_effective_tokens_total{mode="input"}': queried - hit,
        'sglang:prefill_effective_tokens_total{mode="device_hit"}': hit,
        "sglang:num_retracted_requests_total": sum(copy.scheduler.preemptions for copy in copies),
        "sglang:prompt_tokens_total": sum(tally.prompt_tokens for tally in tallies),
        "sglang:generation_tokens_total": sum(tally.generated_tokens for tally in tallies),
        'sglang:realtime_tokens_total{mode="prefill_compute"}': sum(tally.computed_tokens for tally in tallies),
        'sglang:realtime_tokens_total{mode="decode"}': sum(tally.generated_tokens for tally in tallies),
        'sglang:cuda_graph_passes_total{mode="decode_cuda_graph"}': sum(tally.steps for tally in tallies),
        "sglang:spec_accept_rate": sum(tally.accepted_tokens for tally in tallies) / guessed if guessed else 0.0,
    }


def _prefix_cache(copies: list[RealTime]) -> tuple[int, int]:
    counts = [copy.prefix_cache() for copy in copies]
    return sum(queried for queried, _ in counts), sum(hit for _, hit in counts)


def _kv_used_frac(copies: list[RealTime]) -> float:
    blocks = sum(copy.settings.blocks for copy in copies)
    return 1 - sum(copy.scheduler.free_blocks for copy in copies) / blocks
