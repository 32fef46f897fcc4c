"""Ramp: one long probe in which a user joins at every step, read as a score for each number of users."""

from dataclasses import replace

import numpy as np
import pytest

from launchers.sim.virtual import virtual_target
from tests.builders import a_score
from tests.logs import a_log
from tuner.config.catalog import load, load_model
from tuner.config.gpu import Gpu
from tuner.config.slo import Limits
from tuner.config.workload import Lengths, Workload
from tuner.configuration import Configuration
from tuner.engineview import Scrape
from tuner.ramp import best_step, is_over, steps_of
from tuner.requestlog import RequestLog, Status
from tuner.target import ClosedLoop, Window
from tuner.workload.build import build

RAMP = ClosedLoop(4, joining_s=10.0)
LIMITS = Limits(ttft_s=1.0)


def a_ramp(*waits_s: tuple[float, ...], **overrides: object) -> RequestLog:
    """A log whose k-th step has a request with each of these times to its first token, due in its middle."""
    rows = [(10.0 * step + 5, (10.0 * step + 5 + wait_s,)) for step, own in enumerate(waits_s) for wait_s in own]
    return a_log(rows, **({"ended_s": 10.0 * len(waits_s)} | overrides))


def test_each_number_of_users_is_scored_by_the_requests_that_were_due_while_it_was_the_number() -> None:
    steps = steps_of(a_ramp((0.1,), (0.2, 0.3), (0.4, 5.0, 0.4), (6.0,) * 4), RAMP, LIMITS)
    assert [step.load for step in steps] == [ClosedLoop(users) for users in (1, 2, 3, 4)]
    assert [step.counted for step in steps] == [1, 2, 3, 4]
    assert [step.attainment for step in steps] == [1.0, 1.0, pytest.approx(2 / 3), 0.0]
    assert [step.goodput_rps for step in steps] == pytest.approx([0.1, 0.2, 0.2, 0.0])


def test_a_step_without_a_request_is_no_step() -> None:
    assert [step.load for step in steps_of(a_ramp((0.1,), (), (0.1,)), RAMP, LIMITS)] == [
        ClosedLoop(1),
        ClosedLoop(3),
    ]


def test_of_a_ramp_that_was_stopped_the_steps_before_are_whole() -> None:
    log = a_ramp((0.1,), (0.1, 0.2), (0.3,), status=np.array([0, 0, 0, Status.UNFOLLOWED]), stopped="hopeless")
    steps = steps_of(log, RAMP, LIMITS)
    assert [(step.load, step.stopped) for step in steps] == [(ClosedLoop(1), None), (ClosedLoop(2), None)]


def test_each_step_has_the_engines_view_of_its_own_time() -> None:
    looks = tuple(Scrape(at_s, {"running": at_s, "preemptions": at_s}) for at_s in range(0, 21, 5))
    one, two = steps_of(a_ramp((0.1,), (0.1,), scrapes=looks), RAMP, LIMITS)
    assert one.engine and two.engine
    assert (one.engine.running, one.engine.preemptions) == (2.5, 10)
    assert (two.engine.running, two.engine.preemptions) == (12.5, 10)


def test_the_best_step_is_that_of_most_goodput_among_those_that_hold() -> None:
    steps = [
        a_score(load=ClosedLoop(users), attainment=attainment, goodput_rps=goodput)
        for users, attainment, goodput in ((1, 1.0, 1.0), (2, 0.95, 1.9), (3, 0.91, 1.8), (4, 0.5, 2.4))
    ]
    found = best_step(steps, 0.9)
    assert (found.ended, found.goodput_rps, found.best, found.edge) == ("found", 1.9, steps[1], 3.0)
    assert best_step(steps, 0.0).best == steps[3]
    assert best_step(steps[3:], 0.9) == replace(found, ended="misses-slo", goodput_rps=0.0, best=steps[3], edge=None,
                                                probes=(steps[3],))  # fmt: skip


@pytest.mark.parametrize(
    ("log", "is_stopped"),
    [
        pytest.param(a_ramp((0.1,), (5.0,)), False, id="too early to say"),
        pytest.param(a_ramp((5.0,), (5.0,), (5.0,)), True, id="three hopeless steps"),
        pytest.param(a_ramp((5.0,), (5.0,), (0.1, 5.0)), False, id="half of the last is good"),
        pytest.param(a_ramp((5.0,), (5.0,), (0.1,), (5.0,)), False, id="not in a row"),
        pytest.param(
            a_ramp((5.0,), (5.0,), (5.0,), status=np.array([0, 0, Status.UNFOLLOWED])), False, id="not ended yet"
        ),
    ],
)
def test_a_ramp_goes_on_until_most_requests_of_three_steps_are_bad(log: RequestLog, is_stopped: bool) -> None:
    assert (is_over(log, RAMP, LIMITS) is not None) == is_stopped


def test_in_virtual_time_users_join_one_by_one_too() -> None:
    workload = Workload(title="t", source="t", prompt=Lengths(fixed=256), output=Lengths(fixed=64))
    target = virtual_target(Configuration("vllm", {}), load_model("qwen-7b"), load(Gpu, "h100"), 0.6)
    load_, window = ClosedLoop(5, joining_s=2.0), Window(0.0, 10.0, 30.0)
    log = target.replay(build(workload, 1, 400), load_, window, lambda _log: None)
    for users in range(1, 6):
        at_s = 2.0 * users - 0.01
        assert ((log.due_s <= at_s) & ~(log.ended_at_s <= at_s)).sum() == users
    assert [step.load for step in steps_of(log, load_, LIMITS)] == [ClosedLoop(users) for users in range(1, 6)]
