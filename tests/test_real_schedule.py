"""Our orders against the engines' own schedulers, step by step: who is in a step, and with how many tokens.

The engine's scheduler runs in the engine's environment, without a model (`tests/engines`).
"""

import json
import os
import random
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from launchers.engines import ENGINES
from launchers.find import find_executable
from launchers.sim.orders import PLANS
from launchers.sim.scheduler import add, finish, new_scheduler
from launchers.sim.settings import SimSettings
from launchers.sim.state import ANSWERING, Scheduler, gained, steps_run

pytestmark = pytest.mark.real_engine

ENGINES_SIDE = Path(__file__).parent / "engines"
WITHIN_S = 300.0
BLOCK = 4
CASES = 300

Steps = list[list[list[int]]]
"""Of each step its time and the KV blocks held in it, then who was in it with how many tokens."""


@dataclass(frozen=True)
class Case:
    """Requests (arrival, answer, prompt) and the server that gets them."""

    settings: SimSettings
    requests: list[tuple[int, int, list[int]]]

    def spelt(self) -> dict[str, Any]:
        """As the engine's side reads it."""
        names = ("max_batch", "token_budget", "block_tokens", "max_model_len", "chunked_prefill")
        more = ("long_prefill_tokens", "prefix_caching", "drafts")
        values = {name: getattr(self.settings, name) for name in names + more}
        accepted = round(self.settings.acceptance) * self.settings.drafts
        return values | {"blocks": self.settings.blocks, "accepted": accepted, "requests": self.requests}


def a_case(seed: int, **overrides: Any) -> Case:
    draw = random.Random(seed)
    settings = SimSettings(
        policy="vllm",
        max_batch=draw.randint(1, 8),
        token_budget=draw.choice([8, 16, 24, 64]),
        kv_tokens=BLOCK * draw.choice([16, 24, 40, 200]),
        max_model_len=64,
        block_tokens=BLOCK,
        long_prefill_tokens=draw.choice([0, 0, 5, 8]),
    )
    settings = replace(settings, **overrides)
    # A budget below batch × (1 + drafts) is a known difference (docs/simulator.md), so is a prompt of one token.
    least = settings.max_batch * (1 + settings.drafts) if settings.chunked_prefill else 64
    settings = replace(settings, token_budget=max(settings.token_budget, least))
    texts = [[1000 * k + j for j in range(64)] for k in range(3)]
    requests = []
    for number in range(draw.randint(1, 14)):
        length = draw.randint(2 if settings.drafts else 1, 44)
        shared = draw.randint(0, length)
        own = range(10_000 + 100 * number, 10_000 + 100 * number + length - shared)
        requests.append((draw.randint(0, 30), draw.randint(1, 20), [*draw.choice(texts)[:shared], *own]))
    return Case(settings, sorted(requests, key=lambda request: request[0]))


@dataclass
class Played:
    """What our order makes of a case. `has_copies`: one block was computed twice at a time, and the cache knows only
    one of the two, unlike vLLM's."""

    steps: Steps
    has_copies: bool = False


def ours(case: Case) -> Played:
    """Every step takes one unit of time."""
    caches = case.settings.prefix_caching
    s = new_scheduler(case.settings, shares_prefixes=caches)
    plan = PLANS[case.settings.policy]
    pending = list(case.requests)
    played = Played([])
    now = 0
    while True:
        while pending and pending[0][0] <= now:
            _, wanted, prompt = pending.pop(0)
            add(s, len(prompt), wanted, names=block_names(prompt) if caches else None)
        _, _, prompts, answers, _ = plan(s)
        if not prompts and not answers:
            if not pending:
                return played
            now = pending[0][0]
            continue
        running = [i for i, phase in enumerate(s.phase) if phase == ANSWERING] if s.runs_answers else []
        held = sorted([[i, new] for i, new in s.chunks] + [[i, answer_tokens(s, i)] for i in running])
        played.steps.append([[now, case.settings.blocks - s.free_blocks], *held])
        played.has_copies |= any(
            len(s.owned[i]) < min(len(s.names[i]), (s.computed[i] + new) // BLOCK) for i, new in s.chunks
        )
        now += 1
        finish(s, float(now))
        s.ended.clear()


def answer_tokens(s: Scheduler, i: int) -> int:
    """A token and its guesses; at the end of the context vLLM leaves out those that no position is left for."""
    computed = s.target[i] + gained(s, i, steps_run(s, i))
    return min(1 + s.settings.drafts, s.settings.max_model_len - 1 - computed)


def block_names(prompt: list[int]) -> list[int]:
    return [hash(tuple(prompt[:end])) for end in range(BLOCK, len(prompt) + 1, BLOCK)]


def theirs(cases: list[Case]) -> list[Steps]:
    """The steps that vLLM's scheduler makes of them."""
    python = Path(find_executable(ENGINES["vllm"])).parent / "python"
    done = subprocess.run(
        [str(python), str(ENGINES_SIDE / "vllm_schedule.py")],
        input=json.dumps([case.spelt() for case in cases]),
        capture_output=True,
        check=False,
        text=True,
        timeout=WITHIN_S,
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    # What libraries print at import comes before the answer.
    return [played["steps"] for played in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param({}, id="chunked prefill, preemption, long-prefill threshold"),
        pytest.param({"chunked_prefill": False}, id="whole prompts"),
        pytest.param({"drafts": 2, "acceptance": 0.0}, id="wrong guesses"),
        pytest.param({"drafts": 2, "acceptance": 1.0}, id="right guesses"),
    ],
)
def test_every_step_holds_what_vllms_own_scheduler_puts_into_it(overrides):
    cases = [a_case(seed, **overrides) for seed in range(CASES)]
    for case, steps in zip(cases, theirs(cases), strict=True):
        assert ours(case).steps == steps, case


def test_a_prefix_cache_finds_and_forgets_what_vllms_own_does():
    cases = [a_case(seed, prefix_caching=True) for seed in range(CASES)]
    compared = 0
    for case, steps in zip(cases, theirs(cases), strict=True):
        played = ours(case)
        if not played.has_copies:
            assert played.steps == steps, case
            compared += 1
    assert compared > CASES / 2
