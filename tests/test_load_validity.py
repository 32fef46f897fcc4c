"""Validity: when a probe's client was too late, too busy or still for too long."""

import numpy as np
import pytest

from tests.builders import an_slo
from tests.logs import a_log
from tuner.config.slo import Limits
from tuner.load.validity import Tolerance, in_doubt, longest_s, tolerance_of, tolerated_lag_s, too_many
from tuner.target import ClosedLoop

LIMITS = Limits(ttft_s=0.2, itl_s=0.05)


@pytest.mark.parametrize(
    ("due_s", "ended_s", "stalled_s"),
    [
        pytest.param(0.0, 0.9, 0.0, id="over before"),
        pytest.param(0.0, 1.0, 0.1, id="ended as it began"),
        pytest.param(1.05, 3.0, 0.1, id="due in the middle of it"),
        pytest.param(1.2, 3.0, 0.0, id="due behind it"),
        pytest.param(0.0, 9.0, 0.3, id="two of them, the longer one counts"),
        pytest.param(4.5, np.nan, 0.3, id="still under way"),
    ],
)
def test_a_request_has_met_the_stalls_of_its_time(due_s: float, ended_s: float, stalled_s: float) -> None:
    stalls = [(1.0, 1.1), (5.0, 5.3)]
    assert longest_s(stalls, np.array([due_s]), np.array([ended_s])) == pytest.approx([stalled_s])


@pytest.mark.parametrize(
    ("chunk_s", "stalled_s", "doubtful"),
    [
        pytest.param((0.1, 0.14, 0.18), 0.1, False, id="good all the same"),
        pytest.param((0.1, 0.16, 0.20), 0.02, True, id="a gap 10 ms too long, a stall of 20 ms"),
        pytest.param((0.1, 0.16, 0.20), 0.0, False, id="the same gap without a stall is the server's"),
        pytest.param((0.1, 0.30, 0.34), 0.02, False, id="a gap that no such stall explains"),
        pytest.param((0.25, 0.29), 0.06, True, id="a first token 50 ms late, a stall of 60 ms"),
        pytest.param((), 0.06, False, id="no answer at all"),
    ],
)
def test_a_miss_is_in_doubt_where_a_stall_was_as_long_as_the_limit_was_missed_by(
    chunk_s: tuple[float, ...], stalled_s: float, doubtful: bool
) -> None:
    log = a_log([(0.0, chunk_s)])
    assert in_doubt(log, ClosedLoop(1), LIMITS, np.array([stalled_s])).tolist() == [doubtful]


def test_misses_of_requests_that_do_not_count_are_in_no_doubt() -> None:
    log = a_log([(0.0, (0.1, 0.16))], counted=np.array([False]))
    assert not in_doubt(log, ClosedLoop(1), LIMITS, np.array([0.02])).any()


@pytest.mark.parametrize(
    ("attainment", "frac"),
    [
        pytest.param(0.99, 0.0025, id="a quarter of the misses"),
        pytest.param(0.95, 0.0125, id="the same"),
        pytest.param(0.5, 0.02, id="but no more than 2 %"),
        pytest.param(0.999, 0.00025, id="a quarter of few"),
    ],
)
def test_few_of_the_misses_that_an_slo_allows_may_be_in_doubt(attainment: float, frac: float) -> None:
    slo = an_slo(limits=LIMITS, attainment=attainment)
    assert tolerance_of(slo) == Tolerance(LIMITS, tolerated_lag_s(LIMITS), pytest.approx(frac))


@pytest.mark.parametrize(
    ("counted", "found", "is_void"), [(10, 2, False), (10, 3, True), (1000, 5, False), (1000, 6, True)]
)
def test_a_probe_with_too_many_requests_in_doubt_is_not_believed(counted: int, found: int, is_void: bool) -> None:
    log = a_log([(0.0, (0.1,))] * counted)
    said = too_many(np.arange(counted) < found, log, in_doubt_frac=0.005)
    assert (said is not None) == is_void
    assert said is None or said.startswith(f"{found} of {counted} requests miss a limit by no more than")
