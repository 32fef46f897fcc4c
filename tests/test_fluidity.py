"""Fluidity: Etalon's index and rate, held against its deadlines walked one by one."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.logs import a_log
from tuner.config.slo import Limits
from tuner.fluidity import FLUID_INDEX, FLUID_SHARE, ON_TIME_S, fluid_rate_tok_s, fluidity_index, streams_of
from tuner.requestlog import RequestLog, Status
from tuner.score import fluidity
from tuner.target import OpenLoop

OPEN = OpenLoop(1.0)
# Whole milliseconds, and periods of which no multiple is one: no token comes within a rounding error of a deadline.
GAPS = st.lists(st.integers(0, 300).map(lambda ms: ms / 1000), min_size=0, max_size=40)
PERIODS = st.integers(1, 200).map(lambda ms: ms / 1000 + 2**0.5 / 1e4)


def walked(times: Sequence[float], first_due_s: float, period_s: float) -> float:
    """The index as Etalon defines it: each late token misses the deadlines that went by, and sets the next one."""
    met = missed = 0
    due_s = first_due_s
    for time_s in times:
        if time_s <= due_s + ON_TIME_S:
            met += 1
            due_s += period_s
        else:
            missed += 1 + int((time_s - due_s) // period_s)
            due_s = time_s + period_s
    return met / (met + missed)


def log_of(answers: Sequence[Sequence[float]]) -> RequestLog:
    """Answers with a first token at 0.1 s and these gaps behind it."""
    return a_log([(0.0, np.round(np.cumsum([0.1, *gaps]), 6).tolist()) for gaps in answers])


def indices(log: RequestLog, first_due_s: float, period_s: float) -> list[float]:
    streams, rows = streams_of(log, np.ones(len(log), dtype=bool))
    return fluidity_index(streams, np.full(int(rows.sum()), first_due_s), period_s).tolist()


@pytest.mark.parametrize(
    ("times", "index"),
    [
        pytest.param((0.2, 0.3, 0.4), 1.0, id="every token on its deadline"),
        pytest.param((0.1, 0.15, 0.35), 1.0, id="time won is kept"),
        pytest.param((0.25, 0.35, 0.45), 2 / 3, id="one late token, the others are due a period after it"),
        pytest.param((0.2, 0.55, 0.65), 2 / 5, id="a long gap misses every deadline that goes by"),
    ],
)
def test_the_index_is_the_share_of_deadlines_met(times: Sequence[float], index: float) -> None:
    assert indices(a_log([(0.0, times)]), 0.2, 0.1) == [pytest.approx(index)]


@given(st.lists(GAPS, min_size=1, max_size=6), PERIODS)
def test_all_answers_at_once_are_indexed_like_each_token_by_token(
    answers: list[list[float]], period_s: float
) -> None:
    log = log_of(answers)
    each = [walked(log.chunk_s[a:b], 0.15041, period_s) for a, b in pairwise(log.chunk_start)]
    assert indices(log, 0.15041, period_s) == pytest.approx(each)


@given(st.lists(GAPS.filter(len), min_size=1, max_size=120))
def test_at_the_fluid_rate_enough_answers_keep_up_and_a_little_faster_they_do_not(answers: list[list[float]]) -> None:
    log = log_of(answers)
    rate = fluid_rate_tok_s(streams_of(log, np.ones(len(log), dtype=bool))[0])
    assert rate is not None

    def share_that_keeps_up(period_s: float) -> float:
        behind_first = [np.cumsum(gaps) for gaps in answers]
        return float(np.mean([walked(times, period_s, period_s) >= FLUID_INDEX for times in behind_first]))

    assert share_that_keeps_up(1 / rate) >= FLUID_SHARE
    if 1 / rate > 2e-3:
        assert share_that_keeps_up(0.97 / rate) < FLUID_SHARE


def test_a_chunk_of_several_tokens_has_as_much_more_time() -> None:
    steady = a_log([(0.0, (0.1, 0.3, 0.5))], output_tokens=np.array([6]))
    assert indices(steady, 0.1, 0.1) == [1.0]
    assert indices(steady, 0.1, 0.09) == [1 / 3]


def test_only_healthy_counted_answers_are_looked_at() -> None:
    rows = [(0.0, (0.1, 0.2)), (0.0, (0.1, 5.0)), (0.0, (0.1, 5.0))]
    status = np.array([Status.OK, Status.TIMED_OUT, Status.OK])
    log = a_log(rows, status=status, counted=np.array([True, True, False]))
    found = fluidity(log, OPEN, Limits(ttft_s=0.2, tpot_s=0.2))
    assert found and (found.mean_index, found.fluid_frac) == (1.0, 1.0)


def test_without_a_limit_on_the_pace_there_is_a_rate_but_no_index() -> None:
    found = fluidity(a_log([(0.0, (0.1, 0.2))]), OPEN, Limits(e2e_s=1.0))
    assert found and found.mean_index is None and found.rate_tok_s == pytest.approx(10, rel=0.02)


def test_a_longer_prompt_may_have_its_first_token_later() -> None:
    log = a_log([(0.0, (0.5, 0.6))], prompt_tokens=np.array([1000]))
    late, longer = Limits(ttft_s=0.2, tpot_s=0.2), Limits(ttft_s=0.2, ttft_s_per_prompt_token=0.0005, tpot_s=0.2)
    found = [fluidity(log, OPEN, limits) for limits in (late, longer)]
    assert [one and one.mean_index for one in found] == [1 / 3, 1.0]


@pytest.mark.parametrize("rows", [[], [(0.0, ())]], ids=["nobody", "nothing came"])
def test_without_answers_there_is_no_fluidity(rows: list[tuple[float, tuple[float, ...]]]) -> None:
    assert fluidity(a_log(rows), OPEN, Limits(tpot_s=0.2)) is None
