"""Families: under which names vLLM 0.32 and SGLang 0.5.23 export what they count, and where the simulation has it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from launchers.sim.realtime import RealTime
from launchers.sim.tally import Histogram

Said = float | Mapping[str, float] | Histogram
"""A number; numbers by the value of the family's own label; or a histogram."""


@dataclass(frozen=True)
class Family:
    """What is exported under one name. `source`: where `RealTime` has it, or how it is worked out; `label` tells the
    numbers of one copy apart."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    source: str | Callable[[RealTime], Said]
    help: str
    label: str = ""

    def of(self, copy: RealTime) -> Said:
        """What it says of one copy of the engine."""
        said: Said = attrgetter(self.source)(copy) if isinstance(self.source, str) else self.source(copy)
        return said


def families(engine: str, guesses: bool) -> tuple[Family, ...]:
    """What this engine exports; of its guesses only if it makes any."""
    if engine == "sglang":
        return SGLANG
    return VLLM + VLLM_SPECULATION if guesses else VLLM


def _queried(copy: RealTime) -> float:
    return copy.prefix_cache()[0]


def _hit(copy: RealTime) -> float:
    return copy.prefix_cache()[1]


def _hit_frac(copy: RealTime) -> float:
    return _hit(copy) / (_queried(copy) or 1)


def _accepted_frac(copy: RealTime) -> float:
    return copy.tally.accepted_tokens / (copy.tally.guessed_tokens or 1)


def _accepted_by_place(copy: RealTime) -> Mapping[str, float]:
    return {str(place): accepted for place, accepted in enumerate(copy.tally.accepted)}


def _ended(copy: RealTime) -> float:
    return sum(copy.tally.finished.values())


def _aborted(copy: RealTime) -> float:
    return copy.tally.finished["abort"]


def _steps_by_mode(copy: RealTime) -> Mapping[str, float]:
    return {"decode_cuda_graph": copy.tally.steps}


def _prompt_tokens_by_place(copy: RealTime) -> Mapping[str, float]:
    return {"input": _queried(copy) - _hit(copy), "device_hit": _hit(copy)}


def _tokens_by_mode(copy: RealTime) -> Mapping[str, float]:
    return {"prefill_compute": copy.tally.computed_tokens, "decode": copy.tally.generated_tokens}


RUNNING, WAITING, KV = "Requests in the batch.", "Requests in the queue.", "Share of the KV cache in use, 0 to 1."
FIRST, GAP = "From a request's coming to its first token.", "From one step of an answer to its next."
WHOLE, QUEUED = "From a request's coming to its last token.", "From a request's coming to its place in the batch."
PREEMPTED, PROMPTS, ANSWERS = "Requests put back into the queue.", "Tokens of prompts.", "Tokens of answers."
PROMPT_LENGTHS, ANSWER_LENGTHS = "Lengths of prompts.", "Lengths of answers."

VLLM = (
    Family("vllm:num_requests_running", "gauge", "running", RUNNING),
    Family("vllm:num_requests_waiting", "gauge", "waiting", WAITING),
    Family("vllm:kv_cache_usage_perc", "gauge", "kv_used_frac", KV),
    Family("vllm:prefix_cache_queries_total", "counter", _queried, "Prompt tokens looked up in the prefix cache."),
    Family("vllm:prefix_cache_hits_total", "counter", _hit, "Prompt tokens found in the prefix cache."),
    Family("vllm:num_preemptions_total", "counter", "scheduler.preemptions", PREEMPTED),
    Family("vllm:prompt_tokens_total", "counter", "tally.prompt_tokens", PROMPTS),
    Family("vllm:prompt_tokens_cached_total", "counter", "tally.cached_tokens", "Tokens of prompts from the cache."),
    Family("vllm:generation_tokens_total", "counter", "tally.generated_tokens", ANSWERS),
    Family("vllm:request_success_total", "counter", "tally.finished", "Requests that ended.", "finished_reason"),
    Family(
        "vllm:iteration_tokens_total", "histogram", "tally.step_tokens", "A prompt counts in the step that ends it."
    ),
    Family("vllm:time_to_first_token_seconds", "histogram", "tally.first_token_s", FIRST),
    Family("vllm:inter_token_latency_seconds", "histogram", "tally.gap_s", GAP),
    Family(
        "vllm:request_time_per_output_token_seconds", "histogram", "tally.mean_gap_s", "Mean after the first token."
    ),
    Family("vllm:e2e_request_latency_seconds", "histogram", "tally.request_s", WHOLE),
    Family("vllm:request_queue_time_seconds", "histogram", "tally.queue_s", QUEUED),
    Family("vllm:request_inference_time_seconds", "histogram", "tally.inference_s", "From then to the last token."),
    Family("vllm:request_prefill_time_seconds", "histogram", "tally.prefill_s", "From then to the first token."),
    Family("vllm:request_decode_time_seconds", "histogram", "tally.decode_s", "From the first token to the last."),
    Family("vllm:request_prompt_tokens", "histogram", "tally.prompt_lengths", PROMPT_LENGTHS),
    Family("vllm:request_generation_tokens", "histogram", "tally.answer_lengths", ANSWER_LENGTHS),
    Family("vllm:request_params_max_tokens", "histogram", "tally.asked_lengths", "Lengths that were asked for."),
)

VLLM_SPECULATION = (
    Family("vllm:spec_decode_num_drafts_total", "counter", "tally.drafts", "Steps of answers with guesses."),
    Family("vllm:spec_decode_num_draft_tokens_total", "counter", "tally.guessed_tokens", "Guesses."),
    Family("vllm:spec_decode_num_accepted_tokens_total", "counter", "tally.accepted_tokens", "Right guesses."),
    Family(
        "vllm:spec_decode_num_accepted_tokens_per_pos_total",
        "counter",
        _accepted_by_place,
        "Right guesses by their place in a step.",
        "position",
    ),
)

SGLANG = (
    Family("sglang:num_running_reqs", "gauge", "running", RUNNING),
    Family("sglang:num_queue_reqs", "gauge", "waiting", WAITING),
    Family("sglang:token_usage", "gauge", "kv_used_frac", KV),
    Family("sglang:cache_hit_rate", "gauge", _hit_frac, "Share of prompt tokens that were in the cache."),
    Family("sglang:spec_accept_rate", "gauge", _accepted_frac, "Share of guesses that were right."),
    Family("sglang:num_retracted_requests_total", "counter", "scheduler.preemptions", PREEMPTED),
    Family("sglang:prompt_tokens_total", "counter", "tally.prompt_tokens", PROMPTS),
    Family("sglang:generation_tokens_total", "counter", "tally.generated_tokens", ANSWERS),
    Family("sglang:num_requests_total", "counter", _ended, "Requests that ended."),
    Family("sglang:num_aborted_requests_total", "counter", _aborted, "Requests that were aborted."),
    Family("sglang:prefill_effective_tokens_total", "counter", _prompt_tokens_by_place, "By where it was.", "mode"),
    Family("sglang:realtime_tokens_total", "counter", _tokens_by_mode, "Tokens as they are computed.", "mode"),
    Family("sglang:cuda_graph_passes_total", "counter", _steps_by_mode, "Steps.", "mode"),
    Family("sglang:queue_time_seconds", "histogram", "tally.admitted_after_s", QUEUED),
    Family("sglang:time_to_first_token_seconds", "histogram", "tally.first_token_s", FIRST),
    Family("sglang:inter_token_latency_seconds", "histogram", "tally.gap_s", GAP),
    Family("sglang:e2e_request_latency_seconds", "histogram", "tally.request_s", WHOLE),
    Family("sglang:prompt_tokens_histogram", "histogram", "tally.prompt_lengths", PROMPT_LENGTHS),
    Family("sglang:generation_tokens_histogram", "histogram", "tally.answer_lengths", ANSWER_LENGTHS),
)
