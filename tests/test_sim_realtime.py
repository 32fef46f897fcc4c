"""The simulated server's own driver: what it remembers of a long life, and which of its copies is asked."""

import asyncio
from collections.abc import Iterator

import pytest

from launchers.sim.copies import Copies
from launchers.sim.faults import Fault
from launchers.sim.realtime import RealTime
from tests.test_sim_properties import EvenSteps, JumpingLoop
from tests.test_sim_scheduler import BLOCK, small

KEPT = 50


def a_server(**overrides) -> RealTime:
    return RealTime(small(**overrides), EvenSteps(), Fault())


async def a_busy_life(engine: RealTime, requests: int) -> Iterator[tuple[int, int]]:
    """Always four users with the same prompt: how many requests and steps are remembered on the way."""

    async def one(number: int) -> tuple[int, int]:
        answer = engine.submit(10, 3 + number % 7, [1, 2])
        while answer.finish_reason is None:
            answer.wake.clear()
            await answer.wake.wait()
        assert answer.said == answer.wanted
        return len(engine.scheduler.prompt), len(engine.scheduler.step_s)

    async def user(first: int) -> list[tuple[int, int]]:
        return [await one(number) for number in range(first, requests, 4)]

    async with asyncio.TaskGroup() as group:
        stepping = group.create_task(engine.run())
        users = [group.create_task(user(first)) for first in range(4)]
        await asyncio.wait(users)
        stepping.cancel()
    return (seen for user in users for seen in user.result())


def test_a_server_that_never_rests_forgets_who_has_ended():
    async def life() -> list[tuple[int, int]]:
        clock_s = asyncio.get_running_loop().time
        engine = RealTime(small(prefix_caching=True, kv_tokens=40 * BLOCK), EvenSteps(), Fault(), clock_s, KEPT)
        return list(await a_busy_life(engine, 2000))

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        seen = runner.run(life())
    requests, steps = (max(each) for each in zip(*seen, strict=True))
    assert requests <= KEPT + 2 * 4
    assert steps < 1000


def with_requests(copy: RealTime, waiting: int, running: int = 0, blocks: int = 0) -> RealTime:
    for _ in range(waiting + running):
        copy.submit(1, 1, [])
    copy.scheduler.answering = running
    copy.scheduler.free_blocks -= blocks
    return copy


def test_equal_copies_take_turns():
    copies = [a_server() for _ in range(3)]
    chosen = Copies(copies)
    assert [copies.index(chosen.next()) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    "loads, next_one",
    [
        pytest.param([(0, 2, 0), (0, 1, 0)], 1, id="the one with fewer"),
        pytest.param([(1, 2, 0), (0, 4, 0)], 0, id="a queue is like any other while there is room"),
        pytest.param([(1, 2, 24), (0, 4, 0)], 1, id="a queue before a full cache counts four times"),
    ],
)
def test_vllm_asks_the_copy_with_the_fewest_requests(loads, next_one):
    copies = [with_requests(a_server(), *load) for load in loads]
    assert copies.index(Copies(copies).next()) == next_one


def test_sglang_asks_its_copies_in_turn():
    copies = [with_requests(a_server(policy="sglang"), load) for load in (5, 0)]
    chosen = Copies(copies)
    assert [copies.index(chosen.next()) for _ in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize("budget", [8, 9, 11, 13, 64])
def test_no_more_guesses_are_counted_as_right_than_were_made_whatever_the_budget_leaves_out(budget):
    async def life() -> RealTime:
        chosen = small(drafts=3, acceptance=1.0, token_budget=budget, kv_tokens=40 * BLOCK)
        engine = RealTime(chosen, EvenSteps(), Fault(), asyncio.get_running_loop().time)
        list(await a_busy_life(engine, 40))
        return engine

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        tally = runner.run(life()).tally
    assert 0 < tally.accepted_tokens <= tally.guessed_tokens
    assert max(tally.accepted) <= tally.drafts
