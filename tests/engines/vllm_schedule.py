"""vLLM's own scheduler without a model: cases as JSON on stdin, what each step held as JSON on stdout.

Runs in vLLM's environment (`tests/test_real_schedule.py` starts it), so it imports nothing of ours. Instead of a
model there is an answer known beforehand: one token a step, and of the guessed ones as many as the case says.
"""

import json
import os
import sys
from typing import Any

import torch
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, SpeculativeConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

MOST_STEPS = 50_000
# One block of vLLM's pool is a placeholder that is never handed out.
NULL_BLOCKS = 1


def new_scheduler(case: dict[str, Any]) -> Scheduler:
    """A scheduler with the case's limits and KV blocks."""
    model = ModelConfig(
        model=os.environ["GOODTUNE_TINY_MODEL"],
        max_model_len=case["max_model_len"],
        skip_tokenizer_init=True,
        dtype="float32",
    )
    limits = SchedulerConfig(
        max_num_seqs=case["max_batch"],
        max_num_batched_tokens=case["token_budget"],
        max_model_len=case["max_model_len"],
        long_prefill_token_threshold=case["long_prefill_tokens"],
        enable_chunked_prefill=case["chunked_prefill"],
        async_scheduling=False,
        is_encoder_decoder=False,
    )
    caching = CacheConfig(block_size=case["block_tokens"], enable_prefix_caching=case["prefix_caching"])
    speculation = None
    if case["drafts"]:
        speculation = SpeculativeConfig(
            method="ngram", num_speculative_tokens=case["drafts"], prompt_lookup_max=2, prompt_lookup_min=1
        )
    config = VllmConfig(
        model_config=model,
        scheduler_config=limits,
        cache_config=caching,
        device_config=DeviceConfig("cpu"),
        speculative_config=speculation,
    )
    # VllmConfig adjusts some limits to the platform; the case says what they are.
    limits.max_num_batched_tokens = case["token_budget"]
    limits.max_num_scheduled_tokens = None
    limits.enable_chunked_prefill = case["chunked_prefill"]
    caching.enable_prefix_caching = case["prefix_caching"]
    caching.block_size = case["block_tokens"]
    blocks = case["blocks"] + NULL_BLOCKS
    caching.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=case["block_tokens"], num_kv_heads=1, head_size=1, dtype=torch.float32)
    return Scheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=case["block_tokens"],
    )


def new_request(number: int, wanted: int, prompt: list[int], block_tokens: int) -> Request:
    """A request of token ids that answers `wanted` tokens, whatever they are."""
    asked = SamplingParams(max_tokens=wanted, ignore_eos=True)
    return Request(
        request_id=str(number),
        prompt_token_ids=prompt,
        sampling_params=asked,
        pooling_params=None,
        block_hasher=get_request_block_hasher(block_tokens, sha256),
    )


def answered(scheduler: Scheduler, step: SchedulerOutput, case: dict[str, Any]) -> ModelRunnerOutput:
    """What a model makes of `step`: nothing of a part of a prompt, else a token and the guesses that were right."""
    names = list(step.num_scheduled_tokens)
    sampled = []
    for name in names:
        request = scheduler.requests[name]
        guessed = len(step.scheduled_spec_decode_tokens.get(name, ()))
        is_complete = request.num_computed_tokens >= request.num_tokens
        right = min(guessed, case["accepted"])
        # No two tokens of an answer are alike, so that no prefix is shared by chance.
        first = 1_000_000 * (int(name) + 1) + request.num_output_tokens
        sampled.append([first + j for j in range(1 + right)] if is_complete else [])
    return ModelRunnerOutput(names, {name: j for j, name in enumerate(names)}, sampled)


def play(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case to its end. Who arrives at t is there for the step begun at t."""
    scheduler = new_scheduler(case)
    arrivals = [(at, number) for number, (at, _, _) in enumerate(case["requests"])]
    steps: list[list[list[int]]] = []
    times: list[list[float]] = [[] for _ in arrivals]
    preempted = 0
    now = 0
    while arrivals or scheduler.has_unfinished_requests():
        if not scheduler.has_unfinished_requests():
            now = max(now, arrivals[0][0])
        while arrivals and arrivals[0][0] <= now:
            number = arrivals.pop(0)[1]
            _, wanted, prompt = case["requests"][number]
            scheduler.add_request(new_request(number, wanted, prompt, case["block_tokens"]))
        step = scheduler.schedule()
        preempted += len(step.preempted_req_ids)
        held = sorted([int(name), tokens] for name, tokens in step.num_scheduled_tokens.items())
        steps.append([[now, case["blocks"] - free_blocks(scheduler)], *held])
        out = answered(scheduler, step, case)
        now += length_of(step, scheduler, out, case)
        for name, tokens in zip(out.req_ids, out.sampled_token_ids, strict=True):
            times[int(name)] += [now] * bool(tokens)
        scheduler.update_from_output(step, out)
        if case["drafts"]:
            names = out.req_ids
            scheduler.update_draft_token_ids(DraftTokenIds(names, [[7] * case["drafts"] for _ in names]))
        if len(steps) > MOST_STEPS:
            raise RuntimeError("a request starves")
    return {"steps": steps, "times": times, "preemptions": preempted}


def length_of(step: SchedulerOutput, scheduler: Scheduler, out: ModelRunnerOutput, case: dict[str, Any]) -> float:
    """One unit of time, or `prompt_ms` for a step with prompts and `token_ms` for one that gives anybody a token."""
    if "prompt_ms" not in case:
        return 1
    requests = [(scheduler.requests[name], tokens) for name, tokens in step.num_scheduled_tokens.items()]
    has_prompts = any(
        request.num_computed_tokens - tokens < max(request.num_prompt_tokens, request.num_tokens - 1)
        for request, tokens in requests
    )
    return case["prompt_ms"] * has_prompts + case["token_ms"] * any(out.sampled_token_ids)


def free_blocks(scheduler: Scheduler) -> int:
    """Blocks that nobody uses, cached ones among them."""
    return int(scheduler.kv_cache_manager.block_pool.get_num_free_blocks())


def main() -> None:
    """Read cases, write what came of them."""
    init_none_hash(sha256)
    json.dump([play(case) for case in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
