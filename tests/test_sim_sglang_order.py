"""SGLang's order: what sets it apart."""

import pytest

from tests.simruns import play, small


def test_sglang_computes_prompts_before_it_goes_on_with_answers():
    requests = [(0, 4, 20), (3, 40, 2)]
    contents = play(small(policy="sglang"), requests).steps
    assert all(not answers for tokens, _, _, answers, _ in contents if tokens)
    mixed = play(small(policy="sglang", mixed_chunk=True), requests).steps
    assert any(answers for tokens, _, _, answers, _ in mixed if tokens)


def test_a_shared_prefix_that_somebody_holds_takes_no_room():
    chosen = small(policy="sglang", kv_tokens=64, token_budget=64, prefix_caching=True, conservativeness=0.0)
    run = play(chosen, [(0, 40, 8), (2, 44, 1)], names=[[*range(10)], [*range(10)]])
    assert run.times[1][0] < run.times[0][-1]
    assert [step[:2] for step in run.steps if step[0]] == [(40, 0), (4, 40)]


def test_an_unheld_prefix_takes_room():
    chosen = small(policy="sglang", kv_tokens=64, token_budget=64, prefix_caching=True, conservativeness=0.0)
    run = play(chosen, [(0, 8, 1), (20, 40, 8), (22, 28, 1)], names=[[1, 2], [], [1, 2]])
    assert run.times[2][0] > run.times[1][-1]


def test_prompts_of_one_step_do_not_see_each_others_blocks_and_copies_are_given_up():
    chosen = small(policy="sglang", kv_tokens=400, token_budget=64, prefix_caching=True)
    held = []
    names = [[1, 2, 3], [1, 2, 3]]
    run = play(chosen, [(0, 14, 3), (0, 14, 3)], names=names, check=lambda s, step: held.append(100 - s.free_blocks))
    assert run.steps[0][:3] == (28, 0, 2)
    assert held[:2] == [8, 5]


def test_who_has_said_least_is_retracted_first_and_waits_behind_the_others():
    chosen = small(policy="sglang", kv_tokens=64, conservativeness=0.0, max_batch=2)
    run = play(chosen, [(0, 16, 20), (3, 16, 20), (5, 4, 4)])
    assert run.scheduler.preemptions == 1
    assert run.times[2][0] < run.times[1][-1]


def test_after_a_refusal_nobody_is_admitted_until_somebody_has_left():
    chosen = small(policy="sglang", kv_tokens=64, conservativeness=1.0)
    run = play(chosen, [(0, 24, 20), (2, 30, 4)])
    assert run.times[1][0] > run.times[0][-1]


@pytest.mark.parametrize("chunked, prompts", [(True, [16, 16, 8]), (False, [40])])
def test_a_chunk_size_cuts_prompts_and_none_leaves_them_whole(chunked, prompts):
    run = play(small(policy="sglang", chunked_prefill=chunked), [(0, 40, 2)])
    assert [step[0] for step in run.steps if step[0]] == prompts


def test_answers_that_all_make_room_for_a_prompt_let_it_go_on_in_the_same_step():
    values = {"max_batch": 2, "token_budget": 8, "kv_tokens": 64, "mixed_chunk": True, "conservativeness": 0.0}
    run = play(small(policy="sglang", drafts=3, acceptance=1.0, **values), [(0, 21, 18), (0, 25, 1)])
    assert run.scheduler.preemptions == 1
    assert run.steps[6:8] == [(3, 21, 1, 1, 33), (1, 24, 1, 0, 0)]
    assert all(run.times)
