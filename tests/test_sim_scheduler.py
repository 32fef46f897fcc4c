from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launchers.sim.state import ANSWERING, ENDED, PREFILLING, Scheduler, held, steps_run, tokens_said
from tests.simruns import BLOCK, any_settings, play, small, some_requests


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


@pytest.mark.parametrize("policy, computed_again", [("vllm", 14), ("sglang", 24)])
def test_whoever_was_preempted_finds_again_what_is_still_cached(policy, computed_again):
    requests = [(0, 24, 40), (3, 24, 40)]
    chosen = small(policy=policy, conservativeness=0.0)
    forgetful, caching = (play(replace(chosen, prefix_caching=caches), requests) for caches in (False, True))
    assert forgetful.scheduler.preemptions == caching.scheduler.preemptions == 1
    prefilled = [sum(step[0] for step in run.steps) - 48 for run in (forgetful, caching)]
    assert prefilled[1] == computed_again < prefilled[0]
    assert caching.scheduler.free_blocks == chosen.blocks


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
