"""Replay: requests and a load in, a RequestLog out. Worker processes measure, this one supervises."""

import math
import os
import pickle
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from tuner.errors import MeasurementVoid
from tuner.load.crew import Crew, start_crew
from tuner.load.log import Transcript
from tuner.load.reuse import reusable_tokens
from tuner.load.validity import Tolerance, in_doubt, longest_s, too_many, unbelievable
from tuner.load.wire import Batch, Endpoint, Job, Over
from tuner.requestlog import ClientHealth, RequestLog
from tuner.requests import FloatArray, IntArray, Requests
from tuner.target import ClosedLoop, Load, OpenLoop, Watch, Window

__all__ = [
    "Endpoint",
    "Supervision",
    "more_workers",
    "most_workers",
    "replay",
    "workers_needed",
]

LOOK_PERIOD_S = 1.0
READY_TIMEOUT_S = 120.0
START_DELAY_S = 0.05
STOP_TIMEOUT_S = 30.0

# What one worker keeps up with, with more than half of a core to spare (benchmarks/client.md).
STREAMS_PER_WORKER = 256
CHUNKS_PER_WORKER_PER_S = 20_000
REQUESTS_PER_WORKER_PER_S = 500


@dataclass(frozen=True)
class Supervision:
    """How a probe is looked after, about once a second.

    `check_alive` raises ServerFailed if the server has died. A client that is later than `tolerance` allows makes
    the probe void.
    `workers`: processes that measure; None: as many as the load takes. A probe is stopped when there have
    been requests for `silence_limit_s` seconds and no byte of any answer.
    """

    watch: Watch
    check_alive: Callable[[], None]
    tolerance: Tolerance = field(default_factory=Tolerance)
    workers: int | None = None
    silence_limit_s: float = math.inf


def replay(
    endpoint: Endpoint, requests: Requests, load: Load, window: Window, supervision: Supervision
) -> RequestLog:
    """Offer `requests` to a server and return one row for every request that was sent.

    Raises what `check_alive` raises, and MeasurementVoid where the client was too slow to be believed.
    """
    workers = supervision.workers or workers_needed(requests, load, len(os.sched_getaffinity(0)))
    workers = min(workers, most_workers(requests, load))
    job = Job(replace(endpoint, authorization=""), requests, load, window, workers)
    with TemporaryDirectory(prefix="goodtune-load-") as folder, ExitStack() as stack:
        job_path = Path(folder) / "job"
        job_path.write_bytes(pickle.dumps(job))
        crew = stack.enter_context(start_crew(job_path, job.workers, endpoint.authorization))
        return _Probe(job, crew, supervision).run()


def workers_needed(requests: Requests, load: Load, cpus: int) -> int:
    """How many processes the load takes; at most half the cores, because the server runs on this machine too."""
    match load:
        case ClosedLoop(users):
            need = users / STREAMS_PER_WORKER
        case OpenLoop(rate_rps):
            tokens = requests.output_tokens.mean() if len(requests) else 0.0
            need = rate_rps * max(tokens / CHUNKS_PER_WORKER_PER_S, 1 / REQUESTS_PER_WORKER_PER_S)
    return int(np.clip(np.ceil(need), 1, max(1, cpus // 2)))


def most_workers(requests: Requests, load: Load) -> int:
    """How many processes have something to do: one without would end at once, and be busy all its short life."""
    users = load.users if isinstance(load, ClosedLoop) else requests.sessions
    return max(1, min(users, requests.sessions))


def more_workers(workers: int, cpus: int) -> int:
    """How many to measure with where `workers` were too slow: twice as many, but no more than there are cores."""
    return max(workers, min(2 * workers, cpus))


class _Probe:
    def __init__(self, job: Job, crew: Crew, supervision: Supervision) -> None:
        self._crew = crew
        self._job = job
        self._requests = job.requests
        self._load = job.load
        self._window = job.window
        self._supervision = supervision
        self._transcript = Transcript(job.requests, job.window)
        self._health: list[Over] = []

    def run(self) -> RequestLog:
        self._crew.wait_until_ready(perf_counter() + READY_TIMEOUT_S, LOOK_PERIOD_S, self._supervision.check_alive)
        start_s = perf_counter() + START_DELAY_S
        self._crew.go(start_s)
        stopped = self._look_after(start_s)
        ended_s = perf_counter() - start_s
        self._finish()
        health, tolerance = self._client_health(), self._supervision.tolerance
        log = replace(self._transcript.log(ended_s), stopped=stopped)
        doubtful = in_doubt(log, self._load, tolerance.limits, self._stalled_s(log))
        why_void = unbelievable(health, self._load, ended_s, tolerance.lag_s)
        why_void = why_void or too_many(doubtful, log, tolerance.in_doubt_frac)
        if why_void:
            raise MeasurementVoid(why_void)
        reusable = self._reusable_tokens(log)
        client = replace(health, in_doubt=int(doubtful.sum()))
        return replace(log, client=client, began_s=start_s, reusable_tokens=reusable)

    def _stalled_s(self, log: RequestLog) -> FloatArray:
        """For how long at most the worker of each request stood still while that was under way, (n,)."""
        stalled_s = np.zeros(len(log))
        for one in self._health:
            own = np.isin(log.request, self._job.rows_of(one.worker))
            stalled_s[own] = longest_s(one.stalls, log.due_s[own], log.ended_at_s[own])
        return stalled_s

    def _reusable_tokens(self, log: RequestLog) -> IntArray:
        """By the server's count of tokens, where that of the prompts was an estimate."""
        planned = self._requests.prompt_tokens[log.request]
        reusable = reusable_tokens(self._requests, log.request)
        return np.ceil(reusable * (log.prompt_tokens / planned)).astype(np.int64)

    def _look_after(self, start_s: float) -> str | None:
        """Wait until every counted request has been followed, or `watch` stops the probe and says why."""
        deadline_s = start_s + self._window.end_s + self._window.timeout_s + STOP_TIMEOUT_S
        look_s = start_s + LOOK_PERIOD_S
        while not self._crew.has_followed:
            if perf_counter() > deadline_s:
                raise MeasurementVoid("the load generator did not end in time; is this machine out of CPU time?")
            self._listen(look_s)
            if perf_counter() >= look_s:
                looked_s = perf_counter()
                self._supervision.check_alive()
                reason = self._silence(looked_s - start_s)
                reason = reason or self._supervision.watch(self._transcript.log(looked_s - start_s))
                if reason is not None:
                    return reason
                # Much has piled up behind a long look: at least as long goes to hearing it.
                look_s = perf_counter() + max(LOOK_PERIOD_S, perf_counter() - looked_s)
        return None

    def _silence(self, now_s: float) -> str | None:
        silent_s = self._transcript.silent_s(now_s)
        is_long = silent_s > self._supervision.silence_limit_s
        return f"no token came for {silent_s:.0f} s though there were requests" if is_long else None

    def _finish(self) -> None:
        self._crew.stop()
        deadline_s = perf_counter() + STOP_TIMEOUT_S
        while not self._crew.is_over:
            if perf_counter() > deadline_s:
                raise MeasurementVoid("the load generator did not stop; is this machine out of CPU time?")
            self._listen(deadline_s)

    def _listen(self, until_s: float) -> None:
        for message in self._crew.messages(until_s):
            match message:
                case Batch():
                    self._transcript.take(message)
                case Over():
                    self._health.append(message)

    def _client_health(self) -> ClientHealth:
        lag_s = self._transcript.lag_s()
        return ClientHealth(
            send_lag_p99_s=float(np.quantile(lag_s, 0.99)) if len(lag_s) else 0.0,
            run_queue_wait_s=sum(one.run_queue_wait_s for one in self._health),
            busy_frac=max(one.busy_frac for one in self._health),
            workers=len(self._health),
            cpu_frac=max(one.cpu_frac for one in self._health),
            wake_lag_p99_s=max(one.wake_lag_p99_s for one in self._health),
        )
