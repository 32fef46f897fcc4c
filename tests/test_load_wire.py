import subprocess
import sys
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.config.slo import Limits
from tuner.load.replay import more_workers, most_workers, workers_needed
from tuner.load.validity import tolerated_lag_s, unbelievable
from tuner.load.wire import Batch, Ended, Ending, Endpoint, Followed, Job, Ready, Sent, Unframer, frame
from tuner.load.worker import connections_needed
from tuner.requestlog import ClientHealth
from tuner.requests import Requests, Segment
from tuner.target import ClosedLoop, Load, OpenLoop, Window


def a_batch() -> Batch:
    ended = Ended(3, 0.9, Ending.BROKE, 200, "reset")
    return Batch(array("d", [0.5]), array("q", [3]), array("q", [2]), b"\0\xff", [Sent(3, 0.1, 0.2)], [ended])


def some_requests(sessions: int, output_tokens: int = 100) -> Requests:
    """Sessions of two turns."""
    n = 2 * sessions
    return Requests(
        seed=0,
        prompt_tokens=np.full(n, 4),
        output_tokens=np.full(n, output_tokens),
        session=np.repeat(np.arange(sessions), 2),
        unit_gaps=np.ones(sessions),
        think_s=np.zeros(n),
        segments=((Segment(0, 4),),) * n,
    )


def a_job(workers: int, load: Load) -> Job:
    return Job(Endpoint("http://127.0.0.1:1", "m", 100), some_requests(10), load, Window(1.0, 2.0, 3.0), workers)


@given(st.lists(st.integers(1, 200), min_size=1))
def test_messages_arrive_whole_however_the_pipe_splits_them(sizes):
    messages = [Ready(), a_batch(), Followed()]
    data = b"".join(map(frame, messages))
    unframer, got, at, reads = Unframer(), [], 0, 0
    while at < len(data):
        size = sizes[reads % len(sizes)]
        got += unframer.feed(data[at : at + size])
        at, reads = at + size, reads + 1
    assert got == messages


@pytest.mark.parametrize("workers", [1, 3])
def test_every_session_belongs_to_exactly_one_worker_with_all_its_turns(workers):
    job = a_job(workers, ClosedLoop(4))
    assert sorted(session for k in range(workers) for session in job.sessions_of(k)) == list(range(10))
    assert sorted(row for k in range(workers) for row in job.rows_of(k)) == list(range(20))
    assert job.rows_of(0)[:2] == [0, 1]


def test_a_worker_starts_without_the_libraries_of_a_study():
    script = (
        "import sys, tuner.load.worker; print({*sys.modules} & {'optuna', 'pandas', 'pyarrow', 'scipy', 'pydantic'})"
    )
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


def test_sessions_that_arrive_after_the_probe_must_be_over_are_not_prepared():
    assert a_job(1, OpenLoop(1.0)).sessions_of(0) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "load, cpus, workers",
    [
        pytest.param(ClosedLoop(1), 1, 1, id="never none"),
        pytest.param(ClosedLoop(256), 64, 1, id="256 streams"),
        pytest.param(ClosedLoop(257), 64, 2, id="more than 256 streams"),
        pytest.param(OpenLoop(200.0), 64, 1, id="20k chunks/s"),
        pytest.param(OpenLoop(500.0), 64, 3, id="50k chunks/s"),
        pytest.param(ClosedLoop(5000), 8, 4, id="half the cores are the server's"),
    ],
)
def test_there_is_a_worker_for_each_256_streams_or_20k_chunks_a_second(load, cpus, workers):
    assert workers_needed(some_requests(10, output_tokens=100), load, cpus) == workers


def test_there_is_a_worker_for_each_500_requests_a_second_however_short_their_answers():
    assert workers_needed(some_requests(10, output_tokens=1), OpenLoop(1200.0), cpus=64) == 3


@pytest.mark.parametrize(
    ("workers", "cpus", "more"),
    [
        pytest.param(1, 8, 2, id="twice as many"),
        pytest.param(3, 4, 4, id="no more than cores"),
        pytest.param(2, 1, 2, id="never fewer"),
    ],
)
def test_a_load_that_was_too_much_is_measured_with_more_workers(workers, cpus, more):
    assert more_workers(workers, cpus) == more


@pytest.mark.parametrize(
    ("load", "workers"),
    [
        pytest.param(ClosedLoop(1), 1, id="one user"),
        pytest.param(ClosedLoop(4), 4, id="a user each"),
        pytest.param(ClosedLoop(40), 10, id="fewer sessions than users"),
        pytest.param(OpenLoop(1.0), 10, id="a session each"),
    ],
)
def test_no_worker_is_without_work(load, workers):
    assert most_workers(some_requests(10), load) == workers
    assert most_workers(some_requests(1), load) == 1


@pytest.mark.parametrize(
    ("limits", "lag_s"),
    [
        pytest.param({}, 0.05, id="none"),
        pytest.param({"ttft_s": 0.01}, 0.01, id="what any process may wait for a core"),
        pytest.param({"ttft_s": 0.1}, 0.025, id="a quarter of a tight TTFT"),
        pytest.param({"ttft_s": 0.2}, 0.05, id="a quarter is as much as usual"),
        pytest.param({"ttft_s": 0.4}, 0.05, id="as much as usual"),
        pytest.param({"ttft_s": 2.0}, 0.2, id="a tenth of a wide TTFT"),
        pytest.param({"ttft_s": 0.2, "itl_s": 0.16}, 0.04, id="a quarter of a gap"),
        pytest.param({"ttft_s": 0.2, "itl_s": 0.05}, 0.025, id="a tight gap, but what any process may wait, chat"),
        pytest.param({"ttft_s": 0.2, "itl_s": 1.0}, 0.05, id="a wide gap adds nothing"),
        pytest.param({"ttft_s": 10.0, "tpot_s": 0.035}, 0.035, id="all of a mean gap, data-gen"),
        pytest.param({"ttft_s": 2.0, "tpot_s": 0.2, "itl_s": 0.4}, 0.1, id="the strictest of all"),
        pytest.param({"e2e_s": 2.0}, 0.05, id="the whole answer only"),
    ],
)
def test_a_client_may_be_no_later_than_is_little_of_each_limit(limits, lag_s):
    assert tolerated_lag_s(Limits(**limits)) == pytest.approx(lag_s)


CALM = ClientHealth(send_lag_p99_s=0.001, run_queue_wait_s=0.1, busy_frac=0.4, workers=1)
LATE = ClientHealth(send_lag_p99_s=0.071, run_queue_wait_s=0.1, busy_frac=0.4, workers=1)
SATURATED = ClientHealth(send_lag_p99_s=0.001, run_queue_wait_s=0.1, busy_frac=0.95, workers=1)

ASLEEP = ClientHealth(send_lag_p99_s=0.001, run_queue_wait_s=5.4, busy_frac=0.1, workers=1, wake_lag_p99_s=0.071)
WOKE = "woke, and read, 71 ms late at p99 (limit 50 ms, 5.4 s spent waiting for a core)"


@pytest.mark.parametrize(
    ("health", "load", "ended_s", "why"),
    [
        pytest.param(CALM, OpenLoop(1.0), 60.0, None, id="a client that kept up"),
        pytest.param(LATE, OpenLoop(1.0), 60.0, "left 71 ms late at p99 (limit 50 ms", id="late sends"),
        pytest.param(LATE, ClosedLoop(1), 60.0, None, id="no schedule to be late for"),
        pytest.param(ASLEEP, OpenLoop(1.0), 60.0, WOKE, id="late reads, open loop"),
        pytest.param(ASLEEP, ClosedLoop(1), 60.0, WOKE, id="late reads, closed loop"),
        pytest.param(ASLEEP, ClosedLoop(1), 1.9, None, id="too short to tell a habit from a hiccup"),
        pytest.param(SATURATED, OpenLoop(1.0), 60.0, "busy 95% of the time", id="no time left, open loop"),
        pytest.param(SATURATED, ClosedLoop(1), 60.0, "busy 95% of the time", id="no time left, closed loop"),
        pytest.param(SATURATED, ClosedLoop(1), 1.9, None, id="hardly more than its own beginning"),
    ],
)
def test_a_probe_is_believed_if_its_client_kept_up(health, load, ended_s, why):
    said = unbelievable(health, load, ended_s, lag_limit_s=0.050)
    assert said is None if why is None else why in (said or "")


@pytest.mark.parametrize(
    ("load", "connections"),
    [
        pytest.param(ClosedLoop(300), 300, id="one a user"),
        pytest.param(OpenLoop(5.0), 64, id="a few"),
        pytest.param(OpenLoop(200.0), 200, id="a second's arrivals"),
        pytest.param(OpenLoop(9000.0), 512, id="not too many"),
    ],
)
def test_connections_are_opened_before_the_load_begins(load, connections):
    assert connections_needed(load) == connections
