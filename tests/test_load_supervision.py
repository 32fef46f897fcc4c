"""A probe and who looks after it: watching, falling behind, dying, and leaving nothing."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.fakes import openai_server as fake
from tests.processes import until
from tests.replays import (
    PATIENCE_S,
    PLAIN,
    a_window,
    journal,
    look_after,
    requests_for,
    run,
    workers_left,
)
from tuner.config.slo import Limits
from tuner.errors import FailureKind, Fault, MeasurementVoid, ServerFailed
from tuner.load.replay import Endpoint, replay
from tuner.load.validity import Tolerance, tolerated_lag_s
from tuner.requestlog import RequestLog, Status
from tuner.target import ClosedLoop, OpenLoop


def test_who_asks_is_told_to_the_server_and_written_into_no_file(fake_server, tmp_path, monkeypatch):
    journal(fake_server)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    written: list[bytes] = []

    def watch(log: RequestLog) -> str | None:
        written.extend(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        return "seen enough"

    endpoint = Endpoint(fake_server, "fake", 4096, authorization="Bearer s3cr3t")
    requests = requests_for(PLAIN, fake.prompt_tokens(fake.silence))
    replay(endpoint, requests, ClosedLoop(2), a_window(), look_after(watch=watch))
    assert [entry["authorization"] for entry in journal(fake_server)["entries"]] == ["Bearer s3cr3t"] * 2
    assert written and not any(b"s3cr3t" in content for content in written)
    assert "s3cr3t" not in repr(endpoint)


def test_watch_sees_the_probe_so_far_and_may_stop_it(fake_server):
    seen: list[RequestLog] = []

    def watch(log: RequestLog) -> str | None:
        seen.append(log)
        return "seen enough" if len(log) >= 2 else None

    requests = requests_for(PLAIN, fake.prompt_tokens(fake.silence))
    log = run(fake_server, requests, ClosedLoop(2), watch=watch)
    assert log.stopped == "seen enough"
    assert log.status.tolist() == [Status.OK, Status.UNFOLLOWED]
    assert seen[-1].status.tolist() == [Status.OK, Status.UNFOLLOWED]
    assert seen[-1].chunk_s.tolist() == log.chunk_s.tolist()
    assert workers_left() == []


class Arrivals:
    """How many requests have come to the server since this was made."""

    def __init__(self, url: str) -> None:
        self.so_far = 0
        self._url = url
        journal(url)

    def wait_for(self, more: int) -> None:
        enough = self._now() + more
        until(lambda: self._now() >= enough)

    def _now(self) -> int:
        self.so_far += len(journal(self._url)["entries"])
        return self.so_far


def test_while_the_supervising_process_stands_still_the_load_goes_on_and_nothing_is_lost_or_stamped_late(fake_server):
    """What the workers have to say meanwhile is several times what the pipe between them holds."""
    arrivals = Arrivals(fake_server)
    still_s: list[float] = []

    def stand_still(_log: RequestLog) -> None:
        if not still_s:
            still_s.append(time.perf_counter())
            arrivals.wait_for(400)
            still_s.append(time.perf_counter())

    requests = requests_for(*[PLAIN] * 4000, gap=1.0)
    log = run(fake_server, requests, OpenLoop(200.0), a_window(measure_s=1.5), watch=stand_still)
    assert log.began_s is not None and len(log) >= arrivals.so_far
    assert (log.status[log.counted] == Status.OK).all()
    stamps_s = log.began_s + log.chunk_s
    assert ((stamps_s > still_s[0]) & (stamps_s < still_s[1])).any()


def test_a_supervisor_that_takes_long_over_every_look_catches_up_between_two(fake_server):
    arrivals = Arrivals(fake_server)
    came: list[int] = []

    def look_long(log: RequestLog) -> str | None:
        if came and len(log) >= came[0]:
            return "caught up"
        arrivals.wait_for(300)
        came.append(arrivals.so_far)
        return None

    log = run(fake_server, requests_for(*[PLAIN] * 4000, gap=1.0), OpenLoop(200.0), watch=look_long)
    assert log.stopped == "caught up"
    assert len(came) < 4


def test_a_server_that_dies_ends_the_probe_and_leaves_no_worker():
    with fake.running() as (url, process):

        def check_alive() -> None:
            if process.poll() is not None:
                raise ServerFailed(Fault(FailureKind.DIED_UNDER_LOAD), "server exited")

        requests = requests_for(fake.prompt_tokens(fake.death), *[PLAIN] * 1000)
        with pytest.raises(ServerFailed, match="server exited"):
            run(url, requests, ClosedLoop(1), check_alive=check_alive)
    assert workers_left() == []


def test_no_descriptor_is_left_open_behind_a_probe_that_fails(fake_server):
    def open_descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def check_alive() -> None:
        raise ServerFailed(Fault(FailureKind.DIED_UNDER_LOAD), "server exited")

    before = open_descriptors()
    with pytest.raises(ServerFailed) as failed:
        run(fake_server, requests_for(*[PLAIN] * 1000), ClosedLoop(1), check_alive=check_alive)
    # What has failed is still there, with all that its traceback holds on to.
    assert failed.value and open_descriptors() == before


def test_a_worker_that_is_killed_makes_the_measurement_void(fake_server):
    def kill(log: RequestLog) -> None:
        for pid in workers_left():
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(MeasurementVoid, match="killed by SIGKILL"):
        run(fake_server, requests_for(fake.prompt_tokens(fake.silence)), ClosedLoop(1), watch=kill)


def test_a_client_that_was_late_makes_the_measurement_void(fake_server):
    with pytest.raises(MeasurementVoid, match=r"ms late at p99 .*give the client its own CPU cores"):
        run(fake_server, requests_for(*[PLAIN] * 3, gap=1.0), OpenLoop(100.0), tolerance=Tolerance(lag_s=-1.0))


def suspend_workers_for(seconds: float, at_most: int) -> None:
    """Keep this probe's workers, or some of them, from any core."""
    workers = workers_left()[:at_most]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in workers:
        os.kill(pid, signal.SIGCONT)


class Suspending:
    """Looks at a probe three times, about once a second. At the second look its workers get no core for STALL_S."""

    STALL_S = 0.5

    def __init__(self, workers: int = 9) -> None:
        self.looks, self.workers = 0, workers

    def __call__(self, log: RequestLog) -> str | None:
        self.looks += 1
        if self.looks == 2:
            suspend_workers_for(self.STALL_S, self.workers)
        return "seen enough" if self.looks == 3 else None


def test_a_closed_loop_whose_client_read_late_is_void(fake_server):
    limit_s = tolerated_lag_s(Limits(ttft_s=0.2, itl_s=0.05))
    with pytest.raises(MeasurementVoid, match=r"woke, and read, \d+ ms late at p99 \(limit 25 ms, .*own CPU cores"):
        run(
            fake_server,
            requests_for(fake.prompt_tokens(fake.silence)),
            ClosedLoop(1),
            watch=Suspending(),
            tolerance=Tolerance(lag_s=limit_s),
        )


def test_one_of_several_workers_that_read_late_is_enough(fake_server):
    with pytest.raises(MeasurementVoid, match=r"woke, and read, \d+ ms late at p99"):
        run(
            fake_server,
            requests_for(*[fake.prompt_tokens(fake.silence)] * 2),
            ClosedLoop(2),
            watch=Suspending(workers=1),
            workers=2,
            tolerance=Tolerance(lag_s=0.05),
        )


def test_a_client_that_stood_still_for_a_moment_makes_the_measurement_void_if_many_miss_a_limit_by_it(fake_server):
    """Half a second in ten minutes is nothing at p99, and yet in every answer that was under way."""
    long_answers = replace(requests_for(*[PLAIN] * 400), output_tokens=np.full(400, 100))
    with pytest.raises(MeasurementVoid, match=r"\d+ of \d+ requests miss a limit by no more than .* stood still"):
        tolerance = Tolerance(Limits(itl_s=0.2), PATIENCE_S)
        run(fake_server, long_answers, ClosedLoop(20), watch=Suspending(), tolerance=tolerance)


def test_a_lonely_user_measured_with_more_workers_than_users_is_believed(fake_server):
    """A worker that has no user would be busy all its short life."""
    looks: list[RequestLog] = []

    def look_three_times(log: RequestLog) -> str | None:
        looks.append(log)
        return "seen enough" if len(looks) == 3 else None

    requests = requests_for(fake.prompt_tokens(fake.silence))
    log = run(fake_server, requests, ClosedLoop(1), watch=look_three_times, workers=2)
    assert log.client and log.client.workers == 1


def test_how_late_a_client_read_stands_in_its_health(fake_server):
    log = run(fake_server, requests_for(fake.prompt_tokens(fake.silence)), ClosedLoop(1), watch=Suspending())
    assert log.client
    # Half a second of about two and a half: of so long a stall each tick counts, not only the one that it held up.
    assert log.client.wake_lag_p99_s > Suspending.STALL_S / 2


@pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_tuner(fake_server, request_to_end):
    journal(fake_server)
    with a_tuner(fake_server) as tuner:
        until(lambda: journal(fake_server)["entries"] != [])
        workers = psutil.Process(tuner.pid).children()
        assert len(workers) == 1
        os.kill(tuner.pid, request_to_end)
        until(lambda: not any(map(is_running, workers)))


@contextmanager
def a_tuner(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    script = f"""
        from tests.replays import fake, requests_for, run
        from tuner.target import ClosedLoop
        run({url!r}, requests_for(fake.prompt_tokens(fake.silence)), ClosedLoop(1))
    """
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], env=env, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def is_running(process: psutil.Process) -> bool:
    try:
        # An orphan is buried by the machine's first process, which may take its time.
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
