"""Offer: one worker's sessions, each request sent when it is due on one absolute schedule."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import numpy as np

from tuner.load.recorder import Recorder
from tuner.load.wire import Ended, Job, arrivals_s
from tuner.target import ClosedLoop, OpenLoop

# A server that refuses at once would otherwise be asked thousands of times a second by users who never wait.
REFUSAL_PAUSE_S = 0.5
# uvloop's timers are whole milliseconds and may fire one early.
TIMER_STEP_S = 0.001

Send = Callable[[int, float], Awaitable[Ended]]
"""Sends the request in this row, due at this time, and follows it to its end."""


class Offer:
    """The sessions of worker `worker`, offered as `job.load` says until they are all used up, or it is cancelled."""

    def __init__(self, job: Job, worker: int, recorder: Recorder, send: Send) -> None:
        self._job = job
        self._recorder = recorder
        self._send = send
        self._first_row = np.searchsorted(job.requests.session, np.arange(job.requests.sessions + 1)).tolist()
        self._think_s = job.requests.think_s.tolist()
        self._sessions = job.sessions_of(worker)
        self._worker = worker
        self._counted = 0
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Offer the load."""
        match self._job.load:
            case OpenLoop(rate_rps):
                await self._arrivals(rate_rps)
            case ClosedLoop(users, joining_s):
                own = range(self._worker, users, self._job.workers)
                await self._users([user * joining_s for user in own])

    async def followed(self) -> None:
        """Wait until the window has closed and every counted request has ended."""
        await self._sleep_until(self._job.window.end_s)
        while self._counted:
            self._changed.clear()
            await self._changed.wait()

    async def _arrivals(self, rate_rps: float) -> None:
        arrival_s = arrivals_s(self._job.requests, rate_rps)
        arrivals = [(session, float(arrival_s[session])) for session in self._sessions]
        for _, at_s in arrivals:
            self._expect(at_s)
        async with asyncio.TaskGroup() as group:
            for session, at_s in arrivals:
                await self._sleep_until(at_s)
                group.create_task(self._session(session, at_s))

    async def _users(self, joining_s: list[float]) -> None:
        sessions = iter(self._sessions)
        async with asyncio.TaskGroup() as group:
            for join_s in joining_s:
                group.create_task(self._user(sessions, join_s))

    async def _user(self, sessions: Iterator[int], join_s: float) -> None:
        free_s = join_s
        await self._sleep_until(join_s)
        for session in sessions:
            due_s = free_s + self._think_s[self._first_row[session]]
            self._expect(due_s)
            free_s = await self._session(session, due_s)

    async def _session(self, session: int, due_s: float) -> float:
        """One session, its first turn due at `due_s` and expected; returns when its user is free again."""
        first, behind = self._first_row[session], self._first_row[session + 1]
        free_s = await self._turn(first, due_s)
        for row in range(first + 1, behind):
            due_s = free_s + self._think_s[row]
            self._expect(due_s)
            free_s = await self._turn(row, due_s)
        return free_s

    async def _turn(self, row: int, due_s: float) -> float:
        await self._sleep_until(due_s)
        ended = await self._send(row, due_s)
        self._counted -= self._counts(due_s)
        self._changed.set()
        return ended.at_s + (REFUSAL_PAUSE_S if ended.is_refusal else 0.0)

    def _expect(self, due_s: float) -> None:
        self._counted += self._counts(due_s)

    def _counts(self, due_s: float) -> bool:
        return self._job.window.warmup_s <= due_s < self._job.window.end_s

    async def _sleep_until(self, at_s: float) -> None:
        while (wait_s := at_s - self._recorder.now_s()) > 0:
            await asyncio.sleep(max(wait_s, TIMER_STEP_S))
