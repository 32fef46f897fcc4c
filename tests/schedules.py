"""Random cases for our orders and the engines' own schedulers, and what both make of them, step by step."""

import json
import os
import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from launchers.engines import ENGINES
from launchers.find import find_executable
from launchers.sim.orders import PLANS
from launchers.sim.scheduler import add, finish, new_scheduler
from launchers.sim.settings import SimSettings
from launchers.sim.state import ANSWERING, Scheduler, gained, steps_run

ENGINES_SIDE = Path(__file__).parent / "engines"
TINY_MODEL = "GOODTUNE_TINY_MODEL"
WITHIN_S = 300.0
LONGEST = 64

Asked = list[tuple[int, int, list[int]]]
"""Requests: arrival, tokens to answer, prompt."""
Steps = list[list[list[int]]]
"""Of each step its time and the KV blocks held in it, then who was in it with how many tokens."""


@dataclass(frozen=True)
class Case:
    """Requests and the server that gets them; `more` is for the engine's side alone."""

    settings: SimSettings
    requests: Asked
    more: dict[str, Any] = field(default_factory=dict)

    def spelt(self) -> dict[str, Any]:
        """As the engine's side reads it."""
        names = ("max_batch", "token_budget", "blocks", "block_tokens", "max_model_len", "chunked_prefill")
        names += ("long_prefill_tokens", "prefix_caching", "drafts")
        names += ("mixed_chunk", "max_prefill_tokens", "conservativeness")
        values = {name: getattr(self.settings, name) for name in names}
        accepted = round(self.settings.acceptance) * self.settings.drafts
        return values | {"accepted": accepted, "requests": self.requests} | self.more


def some_requests(draw: random.Random, shortest_prompt: int, longest_prompt: int) -> Asked:
    """Up to 14 requests, whose prompts begin like one of three texts and go on with words of their own."""
    texts = [[1000 * k + j for j in range(LONGEST)] for k in range(3)]
    requests = []
    for number in range(draw.randint(1, 14)):
        length = draw.randint(shortest_prompt, longest_prompt)
        shared = draw.randint(0, length)
        own = range(10_000 + 100 * number, 10_000 + 100 * number + length - shared)
        requests.append((draw.randint(0, 30), draw.randint(1, 20), [*draw.choice(texts)[:shared], *own]))
    return sorted(requests, key=lambda request: request[0])


@dataclass
class Played:
    """What our order makes of a case. `has_copies`: one block was computed twice at a time, and the cache knows only
    one of the two, unlike vLLM's."""

    steps: Steps
    has_copies: bool = False
    preemptions: int = 0


def ours(case: Case) -> Played:
    """Every step takes one unit of time."""
    caches, size = case.settings.prefix_caching, case.settings.block_tokens
    s = new_scheduler(case.settings, shares_prefixes=caches)
    plan = PLANS[case.settings.policy]
    pending = list(case.requests)
    played = Played([])
    now = 0
    while True:
        while pending and pending[0][0] <= now:
            _, wanted, prompt = pending.pop(0)
            add(s, len(prompt), wanted, names=block_names(prompt, size) if caches else None)
        _, _, prompts, answers, _ = plan(s)
        if not prompts and not answers:
            if not pending:
                played.preemptions = s.preemptions
                return played
            now = pending[0][0]
            continue
        running = [i for i, phase in enumerate(s.phase) if phase == ANSWERING] if s.runs_answers else []
        held = sorted([[i, new] for i, new in s.chunks] + [[i, answer_tokens(s, i)] for i in running])
        played.steps.append([[now, case.settings.blocks - s.free_blocks], *held])
        played.has_copies |= any(
            len(s.owned[i]) < min(len(s.names[i]), (s.computed[i] + new) // size) for i, new in s.chunks
        )
        now += 1
        finish(s, float(now))
        s.ended.clear()


def answer_tokens(s: Scheduler, i: int) -> int:
    """A token and its guesses; at the end of the context vLLM leaves out those that no position is left for."""
    computed = s.target[i] + gained(s, i, steps_run(s, i))
    return min(1 + s.settings.drafts, s.settings.max_model_len - 1 - computed)


def block_names(prompt: list[int], size: int) -> list[int]:
    return [hash(tuple(prompt[:end])) for end in range(size, len(prompt) + 1, size)]


def theirs(engine: str, cases: list[Case]) -> list[Steps]:
    """The steps that the engine's own scheduler makes of them, run in its environment."""
    if engine == "vllm" and TINY_MODEL not in os.environ:
        pytest.fail(f"${TINY_MODEL} is not set: vLLM's scheduler reads the limits of the model that "
                    "scripts/make_tiny_model.py writes (CONTRIBUTING.md, Real engines)")  # fmt: skip
    python = Path(find_executable(ENGINES[engine])).parent / "python"
    done = subprocess.run(
        [str(python), "-W", "ignore", str(ENGINES_SIDE / f"{engine}_schedule.py")],
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
