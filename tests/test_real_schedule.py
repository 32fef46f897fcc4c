"""Our orders against the engines' own schedulers, step by step: who is in a step, and with how many tokens.

The engine's scheduler runs in the engine's environment, without a model (`tests/engines`).
"""

import random
from dataclasses import replace
from typing import Any

import pytest

from launchers.sim.settings import SimSettings
from tests.schedules import LONGEST, Case, ours, some_requests, theirs

pytestmark = pytest.mark.real_engine

BLOCK = 4
CASES, SGLANG_CASES = 300, 120
TIGHT = {"conservativeness": 0.0, "kv_tokens": 96}
"""A cache of two or three prompts, and nothing of it kept free."""
NARROW = {"token_budget": 8, "max_batch": 8, "longest_prompt": 40}
"""More guesses than budget; no answer comes so close to the end of the context that it has fewer."""


def a_vllm_case(seed: int, longest_prompt: int = 44, **overrides: Any) -> Case:
    draw = random.Random(seed)
    settings = SimSettings(
        max_batch=draw.randint(1, 8),
        token_budget=draw.choice([8, 16, 24, 64]),
        kv_tokens=BLOCK * draw.choice([16, 24, 40, 200]),
        max_model_len=LONGEST,
        block_tokens=BLOCK,
        long_prefill_tokens=draw.choice([0, 0, 5, 8]),
    )
    settings = replace(settings, **overrides)
    # vLLM refuses smaller budgets. A prompt of one token is a known difference (docs/simulator.md).
    least = settings.max_batch if settings.chunked_prefill else LONGEST
    settings = replace(settings, token_budget=max(settings.token_budget, least))
    return Case(settings, some_requests(draw, 2 if settings.drafts else 1, longest_prompt))


def an_sglang_case(seed: int, **overrides: Any) -> Case:
    """Pages of one token, as SGLang has them by default; requests may end before their last token."""
    draw = random.Random(seed)
    settings = SimSettings(
        engine="sglang",
        policy="sglang",
        max_batch=draw.randint(1, 8),
        token_budget=draw.choice([8, 16, 24, 64]),
        kv_tokens=draw.choice([64, 96, 160, 800]),
        max_model_len=LONGEST,
        block_tokens=1,
        max_prefill_tokens=draw.choice([LONGEST, 1000]),
        conservativeness=draw.choice([0.0, 0.3, 1.0]),
    )
    return Case(replace(settings, **overrides), some_requests(draw, 1, 40))


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({}, id="chunked prefill, preemption, long-prefill threshold"),
        pytest.param({"chunked_prefill": False}, id="whole prompts"),
        pytest.param({"drafts": 2, "acceptance": 0.0}, id="wrong guesses"),
        pytest.param({"drafts": 2, "acceptance": 1.0}, id="right guesses"),
        pytest.param({"drafts": 4, "acceptance": 0.0} | NARROW, id="more wrong guesses than the budget has room for"),
        pytest.param({"drafts": 4, "acceptance": 1.0} | NARROW, id="more right guesses than the budget has room for"),
    ],
)
def test_every_step_holds_what_vllms_own_scheduler_puts_into_it(overrides):
    cases = [a_vllm_case(seed, **overrides) for seed in range(CASES)]
    for case, steps in zip(cases, theirs("vllm", cases), strict=True):
        assert ours(case).steps == steps, case


def test_a_prefix_cache_finds_and_forgets_what_vllms_own_does():
    cases = [a_vllm_case(seed, prefix_caching=True) for seed in range(CASES)]
    compared = 0
    for case, steps in zip(cases, theirs("vllm", cases), strict=True):
        played = ours(case)
        if not played.has_copies:
            assert played.steps == steps, case
            compared += 1
    assert compared > CASES / 2


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({}, id="cut prompts and the falling reserve"),
        pytest.param({"mixed_chunk": True}, id="answers beside prompts"),
        pytest.param(TIGHT, id="retraction"),
        pytest.param({"chunked_prefill": False}, id="whole prompts"),
        pytest.param({"prefix_caching": True, "kv_tokens": 3000}, id="a prefix cache that need not forget"),
        pytest.param({"prefix_caching": True, "kv_tokens": 3000, "mixed_chunk": True}, id="the same, mixed"),
    ],
)
def test_every_step_holds_what_sglangs_own_scheduler_puts_into_it(overrides):
    cases = [an_sglang_case(seed, **overrides) for seed in range(SGLANG_CASES)]
    played = [ours(case) for case in cases]
    for case, mine, steps in zip(cases, played, theirs("sglang", cases), strict=True):
        assert mine.steps == steps, case
    if overrides == TIGHT:
        assert sum(mine.preemptions > 0 for mine in played) > SGLANG_CASES / 10
