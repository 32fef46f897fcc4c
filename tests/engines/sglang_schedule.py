"""SGLang's own scheduler without a model: cases as JSON on stdin, what each step held as JSON on stdout.

Runs in SGLang's environment (`tests/test_real_schedule.py` starts it), so it imports nothing of ours. Planning
(`Scheduler.get_next_batch_to_run`, `PrefillAdder`, retraction), radix cache and allocator are the real ones; instead
of a model there is one token a step, and what has to do with processes is left out.
"""

import json
import sys
from array import array
from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt.disaggregation.utils import DisaggregationMode
from sglang.srt.managers.schedule_batch import Req, ScheduleBatch
from sglang.srt.managers.schedule_policy import SchedulePolicy
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.managers.scheduler_components.new_token_ratio_tracker import NewTokenRatioTracker
from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator
from sglang.srt.mem_cache.cache_init_params import CacheInitParams
from sglang.srt.mem_cache.common import checkpoint_kv_cache, release_kv_cache
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
from sglang.srt.mem_cache.unified_cache.components import ComponentType
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache
from sglang.srt.runtime_context import get_context
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

MOST_STEPS = 50_000
VOCABULARY = 2_000_000_000


class Unheard:
    """Whatever is called on it answers nothing: reports, embeddings, grammars, other processes."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


class PassOn(Unheard):
    """Hands a batch on as it is."""

    def prepare_for_forward(self, batch: Any, **kwargs: Any) -> Any:
        return batch

    def maybe_prepare_mlp_sync_batch(self, batch: Any, **kwargs: Any) -> Any:
        return batch

    def maybe_convert_decode_to_extend(self, batch: Any) -> Any:
        return batch


class NoModel(Scheduler):
    """The scheduler with everything turned off that one dense model on one GPU does not use."""

    disaggregation_mode = DisaggregationMode.NULL
    spec_algorithm = SpeculativeAlgorithm.NONE
    page_size = 1
    priority_scheduling_preemption_threshold = max_prefill_bs = processed_tokens_counter = forward_ct = 0
    _prefill_decode_interval_remaining = prefill_decode_interval = 0
    _pending_chunked_abort_req = chunked_req = last_batch = dllm_config = truncation_align_size = None
    dynamic_chunk_sizer = prefill_delayer = min_free_slots_delayer = hisparse_coordinator = lora_drainer = None
    decode_offload_manager = result_queue = None
    enable_hisparse = enable_priority_preemption = enable_priority_scheduling = is_hybrid_swa = enable_lora = False
    enable_overlap = enable_skip_finishing_decode = require_mlp_sync = enable_lmcache = False
    enable_hierarchical_cache = enable_hicache_storage = enable_unified_cache_external_linker = False
    enable_decode_hicache = False
    scheduler_stage_metrics = None
    max_queued_requests = None
    ngram_embedding_manager = dp_attn_adapter = PassOn()
    grammar_manager = load_inquirer = Unheard()
    beam_coordinator = SimpleNamespace(pending_member_rows=lambda batch: 0)
    tp_worker = SimpleNamespace(model_runner=SimpleNamespace(attn_backend=None, prefill_aware_swa=False))
    model_config = SimpleNamespace(vocab_size=VOCABULARY, is_encoder_decoder=False, hf_eos_token_id=None)

    def __init__(self, case: dict[str, Any]) -> None:
        self.req_to_token_pool = ReqToTokenPool(case["max_batch"], case["max_model_len"], "cpu", False)
        self.token_to_kv_pool_allocator = TokenToKVPoolAllocator(
            case["blocks"], torch.float32, "cpu", SimpleNamespace(), False
        )
        self.tree_cache = UnifiedRadixCache(
            CacheInitParams(
                disable=not case["prefix_caching"],
                req_to_token_pool=self.req_to_token_pool,
                token_to_kv_pool_allocator=self.token_to_kv_pool_allocator,
                page_size=self.page_size,
                tree_components=(ComponentType.FULL,),
            )
        )
        self.policy = SchedulePolicy("fcfs", self.tree_cache, False, False, False)
        self.new_token_ratio_tracker = NewTokenRatioTracker.from_config()
        self.max_running_requests = case["max_batch"]
        self.max_prefill_tokens = case["max_prefill_tokens"]
        self.chunked_prefill_size = case["token_budget"] if case["chunked_prefill"] else None
        self.is_mixed_chunk = case["mixed_chunk"]
        self.metrics_reporter = SimpleNamespace(enable_metrics=False)
        self.waiting_queue = []
        self.running_batch = ScheduleBatch(reqs=[], batch_is_full=False)


def new_request(number: int, wanted: int, prompt: list[int]) -> Req:
    """A request of token ids that might end earlier, and answers `wanted` tokens."""
    asked = SamplingParams(max_new_tokens=wanted)
    asked.normalize(None)
    return Req(str(number), "", array("q", prompt), asked, vocab_size=VOCABULARY)


def step(s: NoModel) -> ScheduleBatch | None:
    """Plan as the event loop without overlap does."""
    plan = s.get_next_batch_to_run(running_batch=s.running_batch, last_batch=s.last_batch)
    s.running_batch = plan.running_batch
    if plan.batch_to_run is None:
        s.new_token_ratio_tracker.reset()
    return plan.batch_to_run


def answer(s: NoModel, batch: ScheduleBatch) -> list[int]:
    """Give every request its token, as `process_batch_result_prefill` and `..._decode` do; who has got one."""
    got = []
    decoding = batch.reqs if batch.forward_mode.is_decode() else batch.decoding_reqs or []
    for req in batch.reqs:
        if req.inflight_middle_chunks > 0:
            req.inflight_middle_chunks -= 1
            continue
        got.append(int(req.rid))
        # No two tokens of an answer are alike, so that no prefix is shared by chance.
        req.output_ids.append(1_000_000 * (int(req.rid) + 1) + len(req.output_ids))
        req.update_finish_state()
        if req.finished():
            release_kv_cache(req, s.tree_cache, checkpoint=True)
        elif req not in decoding:
            checkpoint_kv_cache(req, s.tree_cache)
    return got


def play(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case to its end. Who arrives at t is there for the step begun at t."""
    s = NoModel(case)
    arrivals = [(at, number) for number, (at, _, _) in enumerate(case["requests"])]
    steps: list[list[list[int]]] = []
    now = 0
    while True:
        while arrivals and arrivals[0][0] <= now:
            number = arrivals.pop(0)[1]
            _, wanted, prompt = case["requests"][number]
            s._add_request_to_queue(new_request(number, wanted, prompt))
        batch = step(s)
        s.last_batch = batch
        if batch is None:
            if not arrivals:
                return {"steps": steps}
            now = arrivals[0][0]
            continue
        held = s.token_to_kv_pool_allocator.size - free_tokens(s)
        steps.append([[now, held], *sorted([int(req.rid), tokens] for req, tokens in contents(batch))])
        answer(s, batch)
        now += 1
        if len(steps) > MOST_STEPS:
            raise RuntimeError("a request starves")


def contents(batch: ScheduleBatch) -> list[tuple[Req, int]]:
    """Who is in a step, with how many tokens."""
    if batch.forward_mode.is_decode():
        return [(req, 1) for req in batch.reqs]
    return list(zip(batch.reqs, batch.extend_lens, strict=True))


def free_tokens(s: NoModel) -> int:
    """Slots that nobody uses, cached ones among them."""
    return int(s.token_to_kv_pool_allocator.available_size() + s.tree_cache.evictable_size())


def main() -> None:
    """Read cases, write what came of them."""
    played = []
    for case in json.load(sys.stdin):
        fields = {"device": "cpu", "schedule_conservativeness": case["conservativeness"]}
        with get_context().override_server_args(**fields, pp_max_micro_batch_size=case["max_batch"]):
            played.append(play(case))
    json.dump(played, sys.stdout)


if __name__ == "__main__":
    main()
