from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launchers.sim.orders import PLANS
from launchers.sim.scheduler import abort, add, finish, new_scheduler, run_answers
from launchers.sim.settings import SimSettings
from launchers.sim.state import ANSWERING, ENDED, PREFILLING, Scheduler, chunk_times_s, held, steps_run, tokens_said

BLOCK = 4


def small(**overrides) -> SimSettings:
    """A server small enough for every limit to be met."""
    values = {"max_batch": 4, "token_budget": 16, "kv_tokens": 96, "max_model_len": 64, "block_tokens": BLOCK}
    return SimSettings(**values | overrides)


def step_s(prefill_tokens: int, cached: int, prompts: int, answers: int, context: int) -> float:
    """A step time with binary fractions, so that sums are exact in any order."""
    return 1 + prefill_tokens / 64 + cached / 4096 + prompts / 8 + answers / 128 + context / 8192


@dataclass
class Run:
    """What came of it: times and ends of every request, and the contents of every step."""

    scheduler: Scheduler
    times: list[list[float]]
    steps: list[tuple[int, ...]] = field(default_factory=list)


def play(
    chosen: SimSettings, requests, *, ahead=False, names=None, giving_up=None, check=lambda s, step: None
) -> Run:
    """Run requests (arrival, prompt, answer) to their ends; `giving_up` maps requests to when they are aborted."""
    s = new_scheduler(chosen, shares_prefixes=names is not None)
    plan = PLANS[chosen.policy]
    pending = sorted(range(len(requests)), key=lambda i: (requests[i][0], i))
    steps = []
    now_s = 0.0
    while True:
        while pending and requests[pending[0]][0] <= now_s:
            i = pending.pop(0)
            add(s, *requests[i][1:], seed=i, names=names[i] if names else None)
        for i, at_s in (giving_up or {}).items():
            if i < len(s.phase) and at_s <= now_s:
                abort(s, i)
        step = plan(s)
        check(s, step)
        if not step[2] and not step[3]:
            if not pending:
                break
            now_s = requests[pending[0]][0]
            continue
        steps.append(step)
        now_s += step_s(*step)
        finish(s, now_s)
        if ahead and not s.ended and s.answering and not s.prefilling and (s.stuck or not s.waiting):
            now_s = run_answers(s, now_s, requests[pending[0]][0] if pending else 1e9, step_s)
        s.ended.clear()
        assert len(steps) < 20_000, "somebody starves"
    return Run(s, [chunk_times_s(s, i) for i in range(len(requests))], steps)


a_request = st.tuples(st.integers(0, 40), st.integers(1, 44), st.integers(1, 20))
some_requests = st.lists(a_request, min_size=1, max_size=14).map(sorted)


def startable(chosen: SimSettings) -> SimSettings:
    """Prompts that are never cut need a budget for the longest."""
    return replace(chosen, token_budget=64) if chosen.policy == "prefill-first" else chosen


any_settings = st.builds(
    small,
    policy=st.sampled_from(sorted(PLANS)),
    max_batch=st.integers(1, 6),
    token_budget=st.sampled_from([8, 16, 64]),
    kv_tokens=st.sampled_from([64, 96, 400]),
    long_prefill_tokens=st.sampled_from([0, 5]),
    mixed_chunk=st.booleans(),
    drafts=st.sampled_from([0, 0, 1]),
    acceptance=st.sampled_from([0.0, 0.5, 1.0]),
).map(startable)


def held_blocks(s: Scheduler) -> int:
    answers = sum(held(s, i, steps_run(s, i)) for i, phase in enumerate(s.phase) if phase == ANSWERING)
    return answers + sum(s.blocks[i] for i, phase in enumerate(s.phase) if phase == PREFILLING)


@settings(max_examples=150, deadline=None)
@given(any_settings, some_requests)
def test_every_request_gets_exactly_its_tokens_one_after_the_other(chosen, requests):
    run = play(chosen, requests)
    for i, (arrival_s, _, wanted) in enumerate(requests):
        assert tokens_said(run.scheduler, i) == wanted
        assert all(late > early for early, late in zip([arrival_s, *run.times[i]], run.times[i], strict=False))
        if not chosen.drafts:
            assert len(run.times[i]) == wanted
    assert set(run.scheduler.phase) == {ENDED}


@settings(max_examples=150, deadline=None)
@given(any_settings, some_requests)
def test_budget_batch_and_cache_are_never_exceeded_and_no_block_is_lost(chosen, requests):
    def check(s: Scheduler, step: tuple[int, ...]) -> None:
        prefill_tokens, _, prompts, answers, _ = step
        riding = answers * (1 + chosen.drafts) if chosen.policy == "vllm" else answers
        has_budget = chosen.policy != "orca"
        assert prefill_tokens == 0 or not has_budget or prefill_tokens + riding <= chosen.token_budget
        assert prompts + answers <= s.answering + len(s.prefilling) <= chosen.max_batch
        assert s.free_blocks >= 0

    s = play(chosen, requests, check=check).scheduler
    assert s.free_blocks == chosen.blocks
    assert not any(s.growth[len(s.step_s) :])
    assert (s.answering, s.context_tokens, s.ends_sum) == (0, 0, 0)


@settings(max_examples=80, deadline=None)
@given(any_settings, some_requests)
def test_blocks_are_either_free_or_held_between_steps(chosen, requests):
    def check(s: Scheduler, step: tuple[int, ...]) -> None:
        if not s.runs_answers:
            assert s.free_blocks + held_blocks(s) == chosen.blocks

    play(chosen, requests, check=check)


@settings(max_examples=150, deadline=None)
@given(any_settings, some_requests)
def test_running_ahead_gives_the_times_of_planning_every_step(chosen, requests):
    assert play(chosen, requests, ahead=True).times == play(chosen, requests).times


@settings(max_examples=60, deadline=None)
@given(any_settings, some_requests, st.dictionaries(st.integers(0, 13), st.integers(0, 60), max_size=5))
def test_whoever_gives_up_frees_his_cache_and_keeps_what_he_has_heard(chosen, requests, giving_up):
    run = play(chosen, requests, giving_up=giving_up)
    assert run.scheduler.free_blocks == chosen.blocks
    for i, (_, _, wanted) in enumerate(requests):
        assert tokens_said(run.scheduler, i) <= wanted
        assert i in giving_up or tokens_said(run.scheduler, i) == wanted


@settings(max_examples=80, deadline=None)
@given(any_settings, some_requests, st.lists(st.integers(0, 2), min_size=14, max_size=14))
def test_a_prefix_cache_loses_no_block_and_changes_no_count(chosen, requests, kinds):
    names = [
        [100 * kind + block for block in range(prompt // BLOCK)]
        for (_, prompt, _), kind in zip(requests, kinds, strict=False)
    ]
    run = play(replace(chosen, prefix_caching=True), requests, names=names)
    cache = run.scheduler.cache
    assert run.scheduler.free_blocks == chosen.blocks
    assert all(users == 0 for users in cache.users.values())
    assert [tokens_said(run.scheduler, i) for i in range(len(requests))] == [wanted for _, _, wanted in requests]
    assert 0 <= cache.hit_tokens <= cache.queried_tokens


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


@pytest.mark.parametrize("policy, computed_again", [("vllm", 14), ("sglang", 24)])
def test_whoever_was_preempted_finds_again_what_is_still_cached(policy, computed_again):
    requests = [(0, 24, 40), (3, 24, 40)]
    chosen = small(policy=policy, conservativeness=0.0)
    forgetful, caching = (play(replace(chosen, prefix_caching=caches), requests) for caches in (False, True))
    assert forgetful.scheduler.preemptions == caching.scheduler.preemptions == 1
    prefilled = [sum(step[0] for step in run.steps) - 48 for run in (forgetful, caching)]
    assert prefilled[1] == computed_again < prefilled[0]
    assert caching.scheduler.free_blocks == chosen.blocks


def test_without_chunked_prefill_a_prompt_is_computed_in_one_step():
    run = play(small(token_budget=64, chunked_prefill=False), [(0, 40, 4), (0, 40, 4)])
    assert [step[0] for step in run.steps if step[0]] == [40, 40]


def test_a_limit_on_long_prompts_lets_short_ones_pass():
    requests = [(0, 40, 2), (0, 4, 2)]
    limited = play(small(long_prefill_tokens=8), requests).times
    unlimited = play(small(), requests).times
    assert limited[1][0] < unlimited[1][0]
    assert limited[0][0] > limited[1][0]


def test_sglang_computes_prompts_before_it_goes_on_with_answers():
    requests = [(0, 4, 20), (3, 40, 2)]
    contents = play(small(policy="sglang"), requests).steps
    assert all(not answers for tokens, _, _, answers, _ in contents if tokens)
    mixed = play(small(policy="sglang", mixed_chunk=True), requests).steps
    assert any(answers for tokens, _, _, answers, _ in mixed if tokens)


@pytest.mark.parametrize("acceptance, steps", [(0.0, 13), (1.0, 4)])
def test_accepted_guesses_shorten_an_answer(acceptance, steps):
    run = play(small(drafts=3, acceptance=acceptance), [(0, 8, 13)])
    assert len(run.times[0]) == steps
    assert tokens_said(run.scheduler, 0) == 13


def test_a_cached_prefix_is_not_computed_again():
    names = [[1, 2, 3], [1, 2, 3, 4]]
    run = play(small(prefix_caching=True), [(0, 14, 2), (20, 18, 2)], names=names)
    assert [step[:2] for step in run.steps if step[0]] == [(14, 0), (6, 12)]


def test_cached_prefixes_are_forgotten_when_others_need_the_room():
    names = [[1, 2], [], [1, 2]]
    requests = [(0, 8, 1), (20, 60, 5), (60, 8, 1)]
    run = play(small(prefix_caching=True, kv_tokens=64, token_budget=64), requests, names=names)
    assert [step[:2] for step in run.steps if step[0]] == [(8, 0), (60, 0), (8, 0)]


def test_blocks_that_nobody_can_find_are_taken_before_cached_ones():
    names = [[1, 2], [], [1, 2]]
    requests = [(0, 10, 1), (20, 56, 1), (60, 10, 1)]
    run = play(small(prefix_caching=True, kv_tokens=64, token_budget=64), requests, names=names)
    assert [step[:2] for step in run.steps if step[0]] == [(10, 0), (56, 0), (2, 8)]


def test_guesses_beyond_the_end_of_an_answer_need_room_too():
    held_at_last = []
    play(small(drafts=3), [(0, 8, 2)], check=lambda s, step: held_at_last.append(96 // BLOCK - s.free_blocks))
    assert held_at_last == [2, 3, 0]
