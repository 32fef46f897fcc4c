"""Latencies of single requests: when the clock starts, and which gaps count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.logs import a_log
from tuner.latencies import has_long_gaps, latencies, own_itl_s
from tuner.target import ClosedLoop, OpenLoop

OPEN = OpenLoop(1.0)


def test_the_clock_starts_when_a_request_was_due_not_when_it_was_sent() -> None:
    late = a_log([(0.0, (0.5, 0.6))], sent_s=np.array([0.4]))
    assert latencies(late, OPEN).ttft_s[0] == 0.5
    assert latencies(late, ClosedLoop(1)).ttft_s[0] == pytest.approx(0.1)


def test_time_per_output_token_counts_tokens_by_usage_not_by_chunks() -> None:
    two_tokens_a_chunk = a_log([(0.0, (1.0, 2.0, 3.0))], output_tokens=np.array([5]))
    assert latencies(two_tokens_a_chunk, OPEN).tpot_s[0] == 0.5


def test_below_a_hundred_gaps_the_limit_is_on_the_longest() -> None:
    gaps = [0.01] * 98 + [0.5]
    assert own_itl_s(a_log([(0.0, np.cumsum([0.1, *gaps]))]))[0] == pytest.approx(0.5)


def test_from_a_hundred_gaps_on_the_limit_is_on_the_nearest_rank_p99() -> None:
    gaps = [0.01] * 98 + [0.2, 0.5]
    assert own_itl_s(a_log([(0.0, np.cumsum([0.1, *gaps]))]))[0] == pytest.approx(0.2)


@pytest.mark.parametrize(("gaps", "allowed"), [(100, 1), (101, 1), (150, 1), (199, 1), (200, 2), (250, 2)])
def test_so_many_gaps_of_an_answer_may_be_longer_than_its_limit(gaps: int, allowed: int) -> None:
    log = a_log([(0.0, np.cumsum([0.1, *np.arange(1, gaps + 1)]))])
    assert own_itl_s(log)[0] == pytest.approx(gaps - allowed)
    assert not has_long_gaps(log, gaps - allowed + 0.5).any()
    assert has_long_gaps(log, gaps - allowed - 0.5).all()


@given(st.lists(st.lists(st.floats(0.001, 5.0), min_size=1, max_size=130), min_size=1, max_size=8))
def test_own_p99_gap_is_the_nearest_rank_of_the_sorted_gaps(gaps: list[list[float]]) -> None:
    log = a_log([(0.0, np.cumsum(own)) for own in gaps])
    for row, own in enumerate(gaps):
        between = np.sort(np.diff(np.cumsum(own)))
        if len(between):
            assert own_itl_s(log)[row] == pytest.approx(between[-(-99 * len(between) // 100) - 1])
        else:
            assert np.isnan(own_itl_s(log)[row])


@given(st.lists(st.lists(st.floats(0.001, 5.0), max_size=230), min_size=1, max_size=8), st.floats(0.001, 5.0))
def test_a_limit_on_the_p99_gap_is_missed_by_whoever_has_too_many_longer_gaps(gaps, limit_s) -> None:
    log = a_log([(0.0, np.cumsum(own)) for own in gaps])
    assert has_long_gaps(log, limit_s).tolist() == (own_itl_s(log) > limit_s).tolist()
