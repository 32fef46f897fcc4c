"""vLLM's order: against its source written down plainly, and what sets it apart."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launchers.sim.settings import SimSettings
from launchers.sim.state import tokens_said
from tests.simruns import any_settings, play, small, some_requests, step_s


class PlainVllm:
    """vLLM's order written down request by request, as its source has it, to compare the fast one with."""

    def __init__(self, chosen: SimSettings) -> None:
        self.chosen, self.running, self.waiting = chosen, [], []
        self.free = chosen.blocks

    def blocks(self, tokens: int) -> int:
        return -(-tokens // self.chosen.block_tokens)

    def plan(self) -> list[tuple[dict, int]]:
        alone = len(self.running) + len(self.waiting) <= 1
        limit = self.chosen.long_prefill_tokens if self.chosen.long_prefill_tokens and not alone else 10**9
        batch, preempted = self.go_on(limit)
        if not preempted:
            self.admit(batch, limit)
        return [(request, tokens) for request, tokens in batch if request in self.running]

    def left(self, batch) -> int:
        return self.chosen.token_budget - sum(tokens for _, tokens in batch)

    def go_on(self, limit: int) -> tuple[list[tuple[dict, int]], bool]:
        batch, preempted, at = [], False, 0
        while at < len(self.running) and self.left(batch) > 0:
            request = self.running[at]
            tokens = min(request["tokens"] - request["computed"], limit, self.left(batch))
            while (need := self.blocks(request["computed"] + tokens) - request["blocks"]) > self.free:
                victim = self.running.pop()
                self.free += victim["blocks"]
                victim.update(computed=0, blocks=0, is_answer=False)
                self.waiting.insert(0, victim)
                preempted = True
                if victim is request:
                    return batch, preempted
            self.free -= need
            request["blocks"] += need
            batch.append((request, tokens))
            at += 1
        return batch, preempted

    def admit(self, batch: list[tuple[dict, int]], limit: int) -> None:
        while self.waiting and self.left(batch) > 0 and len(self.running) < self.chosen.max_batch:
            request = self.waiting[0]
            tokens = min(request["tokens"], limit)
            is_too_long = tokens > self.left(batch) and not self.chosen.chunked_prefill
            if is_too_long or self.blocks(request["tokens"]) > self.free:
                return
            tokens = min(tokens, self.left(batch))
            self.running.append(self.waiting.pop(0))
            request["blocks"] = self.blocks(tokens)
            self.free -= request["blocks"]
            batch.append((request, tokens))

    def run(self, requests) -> list[list[float]]:
        made = [
            {
                "at": at,
                "tokens": prompt,
                "wanted": wanted,
                "computed": 0,
                "blocks": 0,
                "times": [],
                "is_answer": False,
            }
            for at, prompt, wanted in requests
        ]
        arrivals, now_s = list(made), 0.0
        while arrivals or self.running or self.waiting:
            while arrivals and arrivals[0]["at"] <= now_s:
                self.waiting.append(arrivals.pop(0))
            batch = self.plan()
            if not batch:
                now_s = max(now_s, arrivals[0]["at"])
                continue
            now_s += step_s(*self.contents(batch))
            for request, tokens in batch:
                request["computed"] += tokens
                if request["computed"] == request["tokens"]:
                    request.update(tokens=request["tokens"] + 1, is_answer=True)
                    request["times"].append(now_s)
                if len(request["times"]) == request["wanted"]:
                    self.running.remove(request)
                    self.free += request["blocks"]
        return [request["times"] for request in made]

    @staticmethod
    def contents(batch) -> tuple[int, int, int, int, int]:
        prompts = [(request, tokens) for request, tokens in batch if not request["is_answer"]]
        answers = [request for request, _ in batch if request["is_answer"]]
        return (
            sum(tokens for _, tokens in prompts),
            sum(request["computed"] for request, _ in prompts),
            len(prompts),
            len(answers),
            sum(request["computed"] for request in answers),
        )


@settings(max_examples=300, deadline=None)
@given(any_settings, some_requests, st.booleans())
def test_vllms_order_is_that_of_its_source_request_by_request(chosen, requests, chunked):
    chosen = replace(
        chosen, policy="vllm", drafts=0, chunked_prefill=chunked, token_budget=chosen.token_budget if chunked else 64
    )
    assert play(chosen, requests, ahead=True).times == PlainVllm(chosen).run(requests)


def test_the_request_admitted_last_is_preempted_when_the_cache_is_full():
    run = play(small(kv_tokens=64), [(0, 24, 20), (0, 24, 20)])
    assert run.scheduler.preemptions == 1
    assert run.times[0][-1] < run.times[1][-1]


def test_without_chunked_prefill_a_prompt_is_computed_in_one_step():
    run = play(small(token_budget=64, chunked_prefill=False), [(0, 40, 4), (0, 40, 4)])
    assert [step[0] for step in run.steps if step[0]] == [40, 40]


def test_a_limit_on_long_prompts_lets_short_ones_pass():
    requests = [(0, 40, 2), (0, 4, 2)]
    limited = play(small(long_prefill_tokens=8), requests).times
    unlimited = play(small(), requests).times
    assert limited[1][0] < unlimited[1][0]
    assert limited[0][0] > limited[1][0]


@pytest.mark.parametrize(
    "acceptance, steps",
    [
        pytest.param(0.0, [(2, 2), (2, 2), (2, 2), (0, 1), (0, 1), (0, 1)], id="wrong guesses"),
        pytest.param(1.0, [(2, 2), (0, 1)], id="right guesses"),
    ],
)
def test_answers_whose_guesses_the_budget_does_not_reach_wait_or_have_fewer_checked(acceptance, steps):
    chosen = small(drafts=3, acceptance=acceptance, token_budget=10, kv_tokens=400)
    run = play(chosen, [(0, 2, 4), (0, 2, 4), (0, 2, 7)])
    assert [tokens_said(run.scheduler, i) for i in range(3)] == [4, 4, 7]
    assert all(tokens + 4 * answers <= 10 for tokens, _, _, answers, _ in run.steps)
    assert [(step[0], step[3]) for step in run.steps[1:]] == steps
