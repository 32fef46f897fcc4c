"""Small simulated servers, and runs of them step by step until everybody has ended."""

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from launchers.sim.orders import PLANS
from launchers.sim.scheduler import abort, add, finish, new_scheduler, run_answers
from launchers.sim.settings import SimSettings
from launchers.sim.state import Scheduler, chunk_times_s

BLOCK = 4


def small(**overrides) -> SimSettings:
    """A server small enough for every limit to be met."""
    values = {"max_batch": 4, "token_budget": 16, "kv_tokens": 96, "max_model_len": 64, "block_tokens": BLOCK}
    settings = SimSettings(**values | overrides)
    return replace(settings, engine="sglang") if settings.policy == "sglang" else settings


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
