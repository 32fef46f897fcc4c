"""The orders that today's are compared with: prefill-first, and Orca's."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launchers.sim.settings import Policy
from launchers.sim.state import Scheduler
from launchers.sim.virtual import VirtualTarget, under_policy, virtual_target
from tests.simruns import any_settings, play, small, some_requests
from tests.test_sim_vllm_order import PlainVllm
from tuner.config.catalog import load, load_model
from tuner.config.gpu import Gpu
from tuner.config.slo import Limits
from tuner.config.workload import Lengths, Workload
from tuner.configuration import Configuration
from tuner.latencies import Percentiles
from tuner.score import score
from tuner.target import OpenLoop, Window
from tuner.workload.build import build

WHOLE = 64
"""A budget for the longest request."""


class PlainPrefillFirst(PlainVllm):
    """vLLM's V0 order written down request by request, as its source has it."""

    def plan(self) -> list[tuple[dict, int]]:
        batch: list[tuple[dict, int]] = []
        while self.waiting and len(self.running) < self.chosen.max_batch:
            request = self.waiting[0]
            need, watermark = self.blocks(request["tokens"]), self.chosen.blocks // 100 if self.running else 0
            if need > self.free - watermark or request["tokens"] > self.left(batch):
                break
            self.running.append(self.waiting.pop(0))
            self.free -= need
            request["blocks"] = need
            batch.append((request, request["tokens"]))
        return batch or self.go_on(10**9)[0]


class PlainOrca(PlainVllm):
    """Orca's order request by request; nobody's blocks are counted, since places are reserved."""

    def plan(self) -> list[tuple[dict, int]]:
        reserved = min(self.blocks(self.chosen.max_model_len), self.chosen.blocks)
        places = min(self.chosen.max_batch, self.chosen.blocks // reserved)
        while self.waiting and len(self.running) < places:
            self.running.append(self.waiting.pop(0))
        return [(request, request["tokens"] - request["computed"]) for request in self.running]


@settings(max_examples=150, deadline=None)
@given(any_settings, some_requests, st.sampled_from([64, 96, 800, 1600]))
def test_prefill_first_is_v0s_order_request_by_request(chosen, requests, kv_tokens):
    chosen = replace(chosen, policy="prefill-first", token_budget=WHOLE, drafts=0, kv_tokens=kv_tokens)
    assert play(chosen, requests, ahead=True).times == PlainPrefillFirst(chosen).run(requests)


@settings(max_examples=150, deadline=None)
@given(any_settings, some_requests)
def test_orcas_order_is_that_of_its_description_request_by_request(chosen, requests):
    chosen = replace(chosen, policy="orca", drafts=0)
    assert play(chosen, requests, ahead=True).times == PlainOrca(chosen).run(requests)


@settings(max_examples=100, deadline=None)
@given(any_settings, some_requests)
def test_prefill_first_never_mixes_prompts_with_answers_and_never_cuts_a_prompt(chosen, requests):
    chosen = replace(chosen, policy="prefill-first", token_budget=WHOLE)
    run = play(chosen, requests, check=no_prompt_is_under_way)
    assert all(not answers for tokens, _, _, answers, _ in run.steps if tokens)


@settings(max_examples=100, deadline=None)
@given(any_settings, some_requests)
def test_orca_never_cuts_a_prompt_makes_no_answer_wait_and_preempts_nobody(chosen, requests):
    def check(s: Scheduler, step: tuple[int, ...]) -> None:
        no_prompt_is_under_way(s, step)
        assert step[3] == s.answering

    run = play(replace(chosen, policy="orca"), requests, check=check)
    assert run.scheduler.preemptions == 0


def no_prompt_is_under_way(s: Scheduler, step: tuple[int, ...]) -> None:
    assert all(s.computed[i] + tokens == s.target[i] for i, tokens in s.chunks)
    assert len(s.prefilling) == len(s.chunks)


def test_prefill_first_lets_answers_wait_for_every_prompt_that_fits():
    run = play(small(policy="prefill-first", token_budget=WHOLE, kv_tokens=400), [(0, 4, 10), (3, 40, 2), (3, 24, 2)])
    prompts = [step[0] for step in run.steps if step[0]]
    assert prompts == [4, 64]
    assert max(late - early for early, late in zip(run.times[0], run.times[0][1:], strict=False)) > 2


def test_prefill_first_computes_prompts_beyond_its_budget_in_the_next_batch():
    run = play(small(policy="prefill-first", token_budget=WHOLE, kv_tokens=400), [(0, 40, 1), (0, 40, 1)])
    assert [step[0] for step in run.steps] == [40, 40]


def test_prefill_first_keeps_a_hundredth_of_the_cache_free_at_admission():
    roomy = small(policy="prefill-first", token_budget=400, kv_tokens=400, max_batch=16)
    fitting, too_many = [(0, 40, 1)] * 9 + [(0, 36, 1)], [(0, 40, 1)] * 10
    assert [step[2] for step in play(roomy, fitting).steps] == [10]
    assert [step[2] for step in play(roomy, too_many).steps] == [9, 1]


def test_prefill_first_lets_a_request_that_is_alone_have_the_whole_cache():
    run = play(small(policy="prefill-first", token_budget=400, kv_tokens=400, max_model_len=400), [(0, 398, 2)])
    assert len(run.times[0]) == 2


@pytest.mark.parametrize("policy", ["vllm", "prefill-first"])
def test_a_cached_prefix_that_nobody_holds_takes_room_and_one_that_is_held_takes_none(policy):
    chosen = small(policy=policy, token_budget=WHOLE, kv_tokens=64, prefix_caching=True)
    unheld = play(chosen, [(0, 8, 1), (20, 40, 8), (22, 28, 1)], names=[[1, 2], [], [1, 2]])
    assert unheld.times[2][0] > unheld.times[1][-1]
    held = play(chosen, [(20, 40, 8), (22, 44, 1)], names=[[*range(10)], [*range(10)]])
    assert held.times[1][0] < held.times[0][-1]
    assert [step[:2] for step in held.steps if step[0]] == [(40, 0), (4, 40)]


def test_orca_takes_prefixes_from_the_cache_too():
    run = play(small(policy="orca", prefix_caching=True), [(0, 14, 2), (20, 18, 2)], names=[[1, 2, 3], [1, 2, 3, 4]])
    assert [step[:2] for step in run.steps if step[0]] == [(14, 0), (6, 12)]


def test_prefill_first_preempts_the_last_when_answers_outgrow_the_cache():
    run = play(small(policy="prefill-first", token_budget=WHOLE, kv_tokens=64), [(0, 24, 20), (0, 24, 20)])
    assert run.scheduler.preemptions == 1
    assert run.times[0][-1] < run.times[1][-1]


def test_orca_computes_whole_prompts_beside_answers_whatever_the_budget():
    run = play(small(policy="orca", token_budget=8, kv_tokens=400), [(0, 4, 10), (3, 40, 2), (3, 24, 2)])
    assert (64, 0, 2) in [step[:3] for step in run.steps if step[3]]


@pytest.mark.parametrize(
    "kv_tokens, at_once",
    [pytest.param(400, 4, id="the batch"), pytest.param(160, 2, id="reservations"), pytest.param(40, 1, id="one")],
)
def test_orca_runs_as_many_as_its_batch_and_reservations_of_the_longest_allow(kv_tokens, at_once):
    run = play(small(policy="orca", kv_tokens=kv_tokens), [(0, 8, 4)] * 6)
    assert run.steps[0][2] == at_once
    assert max(step[2] + step[3] for step in run.steps) == at_once


def a_target() -> VirtualTarget:
    knobs = {"max_batch_size": 128, "token_budget": 8192}
    return virtual_target(Configuration("vllm", knobs), load_model("qwen-7b"), load(Gpu, "h100"), 0.6, 8192)


def gaps(target: VirtualTarget) -> Percentiles:
    lengths = {"prompt": Lengths(fixed=4000), "output": Lengths(fixed=200)}
    requests = build(Workload(title="t", source="t", **lengths), 1, 400)
    log = target.replay(requests, OpenLoop(3.0), Window(10.0, 60.0, 60.0), lambda log: None)
    found = score(log, OpenLoop(3.0), Limits(ttft_s=2.0)).itl_s
    assert found
    return found


def test_another_policy_changes_the_order_and_nothing_else():
    target = a_target()
    other = under_policy(target, "orca")
    assert other.steps is target.steps
    assert replace(other.settings, policy="vllm") == target.settings


def test_chunks_bound_the_gaps_that_whole_prompts_tear_open():
    target = a_target()
    chunked = VirtualTarget(replace(target.settings, token_budget=512), target.steps)
    stalls_s = {policy: gaps(under_policy(target, policy)).p99 for policy in ("prefill-first", "orca")}
    one_prompt_s = target.steps.step_s(4000, 0, 1, 0, 0)
    assert gaps(chunked).p99 < one_prompt_s / 3
    assert all(stall_s > one_prompt_s for stall_s in stalls_s.values())


def p99_gap_s(policy: Policy, token_budget: int) -> float:
    """Of Sarathi-Serve's chat at 2 requests per second on its model and GPU."""
    knobs = {"max_batch_size": 128, "token_budget": token_budget, "prefix_caching": "off"}
    server = virtual_target(Configuration("vllm", knobs), load_model("mistral-7b"), load(Gpu, "a100"), 0.0, 8192)
    requests = build(load(Workload, "sarathi-sharegpt").fitted(8192), 1, 600)
    window = Window(30.0, 150.0, 120.0)
    log = under_policy(server, policy).replay(requests, OpenLoop(2.0), window, lambda log: None)
    found = score(log, OpenLoop(2.0), Limits(ttft_s=2.0)).itl_s
    assert found
    return found.p99


@pytest.mark.parametrize(
    "policy, token_budget, holds",
    [
        pytest.param("vllm", 512, True, id="small chunks"),
        pytest.param("vllm", 2048, False, id="large chunks"),
        pytest.param("prefill-first", 8192, False, id="prefill-first"),
        pytest.param("orca", 8192, False, id="Orca's"),
    ],
)
def test_of_the_orders_that_sarathi_serve_compares_only_small_chunks_hold_100_ms(policy, token_budget, holds):
    assert (p99_gap_s(policy, token_budget) <= 0.1) == holds
