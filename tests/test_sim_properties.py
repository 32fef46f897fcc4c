"""What holds of a simulated server whatever its settings, its requests and its clock."""

import asyncio
import selectors
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launchers.sim.faults import Fault
from launchers.sim.orders import PLANS
from launchers.sim.prefixcache import UNNAMED
from launchers.sim.realtime import Answer, RealTime
from launchers.sim.replay import FRONT_END_S, Replay
from launchers.sim.scheduler import new_scheduler
from launchers.sim.settings import SimSettings
from launchers.sim.state import ANSWERING, ENDED, PREFILLING, Scheduler, held, steps_run, tokens_said
from tests.simruns import BLOCK, play, small
from tuner.requestlog import RequestLog, Status
from tuner.requests import Requests
from tuner.target import OpenLoop, Window

CONTEXT = 64
UNTIL_ALL_HAVE_ENDED = Window(warmup_s=0.0, measure_s=1e5, timeout_s=1e6)

a_request = st.tuples(st.integers(0, 40), st.integers(1, 44), st.integers(1, 20))
some_requests = st.lists(a_request, min_size=1, max_size=12).map(sorted)


@st.composite
def any_settings(draw, **fixed) -> SimSettings:
    """Every order with every knob that the scheduler reads; caches small enough to run short."""
    values = {
        "policy": draw(st.sampled_from(sorted(PLANS))),
        "max_batch": draw(st.integers(1, 6)),
        "token_budget": draw(st.sampled_from([8, 16, 64])),
        "kv_tokens": draw(st.sampled_from([64, 96, 400])),
        "chunked_prefill": draw(st.booleans()),
        "long_prefill_tokens": draw(st.sampled_from([0, 5])),
        "mixed_chunk": draw(st.booleans()),
        "max_prefill_tokens": draw(st.sampled_from([24, 1000])),
        "conservativeness": draw(st.sampled_from([0.0, 0.3, 1.0])),
        "prefix_caching": draw(st.booleans()),
        "drafts": draw(st.sampled_from([0, 0, 1, 3])),
        "acceptance": draw(st.sampled_from([0.0, 0.5, 1.0, (0.9, 0.2)])),
        "stream_interval": draw(st.sampled_from([1, 1, 2, 5])),
    } | fixed
    if not values["chunked_prefill"] or values["policy"] == "prefill-first":
        values["token_budget"] = CONTEXT
    return small(**values)


@st.composite
def some_texts(draw) -> list[list[int]]:
    """Names of the blocks of twelve prompts: common beginnings of different lengths, and texts of their own."""
    chosen = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 11)), min_size=12, max_size=12))
    return [
        [100 * text + block if block < shared else 1000 * (i + 1) + block for block in range(11)]
        for i, (text, shared) in enumerate(chosen)
    ]


def named(requests, texts) -> list[list[int]]:
    return [text[: prompt // BLOCK] for (_, prompt, _), text in zip(requests, texts, strict=False)]


def used_blocks(s: Scheduler) -> int:
    """Blocks in use between two steps, shared ones counted once."""
    unnamed = sum(held(s, i, steps_run(s, i)) - len(s.owned[i]) for i, p in enumerate(s.phase) if p == ANSWERING)
    unnamed += sum(s.blocks[i] - len(s.owned[i]) for i, p in enumerate(s.phase) if p == PREFILLING)
    return unnamed + (sum(users > 0 for users in s.cache.users.values()) if s.cache else 0)


@settings(max_examples=200, deadline=None)
@given(
    any_settings(), some_requests, some_texts(), st.dictionaries(st.integers(0, 11), st.integers(0, 60), max_size=3)
)
def test_no_token_is_lost_or_made_and_nobody_starves(chosen, requests, texts, giving_up):
    run = play(chosen, requests, names=named(requests, texts), giving_up=giving_up)
    assert set(run.scheduler.phase) == {ENDED}
    for i, (_, _, wanted) in enumerate(requests):
        said = tokens_said(run.scheduler, i)
        assert said == wanted or (i in giving_up and said < wanted)
        assert len(run.times[i]) <= said
        assert run.times[i] == sorted(set(run.times[i]))


@settings(max_examples=200, deadline=None)
@given(any_settings(), some_requests, some_texts())
def test_every_block_is_in_use_or_free_and_every_free_one_can_be_taken_once(chosen, requests, texts):
    def check(s: Scheduler, step: tuple[int, ...]) -> None:
        assert s.free_blocks >= 0
        if not s.runs_answers:
            assert s.free_blocks + used_blocks(s) == chosen.blocks
        if s.cache:
            stamps = s.cache.stamps
            takable = sum(
                n if names is UNNAMED else sum(stamps.get(name) == n for name in names) for names, n in s.cache.freed
            )
            assert takable == s.free_blocks
            assert all((name in stamps) == (not users) for name, users in s.cache.users.items())

    s = play(chosen, requests, names=named(requests, texts), check=check).scheduler
    assert s.free_blocks == chosen.blocks


@settings(max_examples=200, deadline=None)
@given(any_settings(), some_requests, some_texts())
def test_no_step_exceeds_budget_or_batch(chosen, requests, texts):
    # SGLang without chunks: no other prompt after so many tokens, but the first whatever its length.
    never_cuts = chosen.policy == "sglang" and not chosen.chunked_prefill
    budget = max(chosen.max_prefill_tokens, CONTEXT) if never_cuts else chosen.token_budget

    def check(s: Scheduler, step: tuple[int, ...]) -> None:
        prefill_tokens, _, prompts, answers, _ = step
        width = 1 + chosen.drafts if chosen.policy == "vllm" else 1
        if chosen.policy != "orca":
            assert prefill_tokens + answers * width <= budget
        assert prompts + answers <= chosen.max_batch
        assert len({i for i, _ in s.chunks}) == len(s.chunks)

    play(chosen, requests, names=named(requests, texts), check=check)


@settings(max_examples=100, deadline=None)
@given(any_settings(), some_requests, some_texts())
def test_a_prefix_cache_changes_times_but_no_answer(chosen, requests, texts):
    names = named(requests, texts)
    runs = [play(replace(chosen, prefix_caching=caches), requests, names=names) for caches in (False, True)]
    said = [[tokens_said(run.scheduler, i) for i in range(len(requests))] for run in runs]
    assert said[0] == said[1] == [wanted for _, _, wanted in requests]


@settings(max_examples=100, deadline=None)
@given(any_settings(kv_tokens=12 * (CONTEXT + BLOCK)), some_requests)
def test_a_cache_that_holds_everybody_preempts_nobody(chosen, requests):
    assert play(chosen, requests).scheduler.preemptions == 0


@settings(max_examples=100, deadline=None)
@given(any_settings(max_batch=1), some_requests)
def test_who_is_alone_is_never_preempted_and_first_come_is_first_served(chosen, requests):
    run = play(chosen, requests)
    assert run.scheduler.preemptions == 0
    firsts = [times[0] for times in run.times]
    assert firsts == sorted(firsts)


class EvenSteps:
    """Steps of whole 64ths of a second, so that sums are exact and never meet an arrival."""

    source = "test"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def step_s(self, tokens: int, cached: int, prompts: int, answers: int, context: int) -> float:
        return self.scale * (8 + tokens // 4 + cached // 16 + prompts + answers + context // 32) / 64


def as_requests(requests) -> Requests:
    """Arrivals that no two steps can end at: each is off the 64ths by its own amount."""
    at_s = np.array([at / 4 + i * 2.0**-20 for i, (at, _, _) in enumerate(requests)])
    return Requests(
        seed=0,
        prompt_tokens=np.array([prompt for _, prompt, _ in requests]),
        output_tokens=np.array([wanted for _, _, wanted in requests]),
        session=np.arange(len(requests)),
        unit_gaps=np.diff(at_s, prepend=0.0),
        think_s=np.zeros(len(requests)),
        segments=((),) * len(requests),
    )


def replayed(chosen: SimSettings, requests: Requests, scale: float = 1.0) -> RequestLog:
    replay = Replay(new_scheduler(chosen, False), EvenSteps(scale).step_s, requests, UNTIL_ALL_HAVE_ENDED)
    replay.offer(OpenLoop(1.0), list(range(len(requests))))
    return replay.run(lambda log: None)


@settings(max_examples=60, deadline=None)
@given(any_settings(), some_requests, st.sampled_from([0.5, 2.0, 8.0]), st.sampled_from([0.25, 3.0, 1000.0]))
def test_other_units_and_another_midnight_give_the_same_times_in_them(chosen, requests, scale, shift_s):
    asked = as_requests(requests)
    gaps = asked.unit_gaps * scale
    # The way to the scheduler is not scaled.
    gaps[0] += shift_s + (scale - 1) * FRONT_END_S
    plain, other = replayed(chosen, asked), replayed(chosen, replace(asked, unit_gaps=gaps), scale)
    assert (plain.status == Status.OK).all()
    np.testing.assert_array_equal(plain.chunk_start, other.chunk_start)
    np.testing.assert_allclose(other.chunk_s, plain.chunk_s * scale + shift_s, rtol=0, atol=1e-6)


class JumpingSelector(selectors.SelectSelector):
    """Nothing ever comes from outside, so what is waited for is there at once, and the clock says when."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += timeout or 0.0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer."""

    def __init__(self) -> None:
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now_s


async def listened(engine: RealTime, at_s: float, prompt: int, wanted: int) -> list[float]:
    """When the pieces of an answer came to somebody who asked at `at_s`."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(at_s - loop.time())
    answer: Answer = engine.submit(prompt, wanted, [])
    times = []
    while answer.finish_reason is None:
        answer.wake.clear()
        await answer.wake.wait()
        times.append(loop.time())
    assert answer.said == wanted
    return times


async def served(chosen: SimSettings, requests: Requests, kept_requests: int) -> list[list[float]]:
    """Chunk times of every request from the server's own driver."""
    engine = RealTime(chosen, EvenSteps(), Fault(), asyncio.get_running_loop().time, kept_requests)
    due_s = np.cumsum(requests.unit_gaps) + FRONT_END_S
    asked = zip(due_s.tolist(), requests.prompt_tokens.tolist(), requests.output_tokens.tolist(), strict=True)
    async with asyncio.TaskGroup() as group:
        stepping = group.create_task(engine.run())
        answers = [group.create_task(listened(engine, *one)) for one in asked]
        await asyncio.wait(answers)
        stepping.cancel()
    assert engine.slipped_s == 0
    return [answer.result() for answer in answers]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0.0, 1.0]).flatmap(lambda chance: any_settings(acceptance=chance)),
    some_requests,
    st.sampled_from([0, 1000]),
)
def test_the_servers_driver_and_virtual_time_give_the_same_times(chosen, requests, kept_requests):
    asked = as_requests(requests)
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        real = runner.run(served(chosen, asked, kept_requests))
    virtual = replayed(chosen, asked)
    for i, times in enumerate(real):
        assert times == pytest.approx(virtual.chunk_s[virtual.chunk_start[i] : virtual.chunk_start[i + 1]], abs=1e-6)
