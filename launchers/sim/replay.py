"""A workload replayed against one simulated server in virtual time: requests and load in, a RequestLog out.

The same rules as for a real server (`tuner.target`): open loops have absolute due times, closed loops give a user the
next session when he has finished one, and the load goes on until every counted request has ended or timed out.
"""

from array import array
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from math import inf

import numpy as np

from launchers.sim.orders import PLANS
from launchers.sim.scheduler import abort, add, finish, run_answers
from launchers.sim.state import (
    ENDED,
    NO_RUN,
    Scheduler,
    Step,
    chunk_times_s,
    gained,
    said_by_chunk,
    steps_run,
    tokens_said,
)
from launchers.sim.steptime import StepSeconds
from tuner.engineview import EngineView
from tuner.requestlog import RequestLog, Status
from tuner.requests import FloatArray, IntArray, Requests
from tuner.target import ClosedLoop, Load, OpenLoop, Watch, Window

LOOKS = 8
"""How often `watch` is asked within a window."""

# How long a request is on its way to the scheduler and its first token back: an assumption. The served simulation's
# first tokens came 4.6 ms after the scheduler's when it was set, and 2 ms since (benchmarks/served_vs_virtual.md).
FRONT_END_S = 0.004

SEED_STRIDE = 1_000_003
NOT_ENDED = float("nan")

# As the real load generator does: who was refused does not ask again at once.
FAILURE_PAUSE_S = 0.5


class Replay:
    """One probe of one server. Row i of the log is request i of the scheduler."""

    def __init__(self, scheduler: Scheduler, step_s: StepSeconds, requests: Requests, window: Window) -> None:
        self._s = scheduler
        self._step_s = step_s
        self._requests = requests
        self._window = window
        self._window_end_s = window.end_s
        self._prompt = requests.prompt_tokens.tolist()
        self._output = requests.output_tokens.tolist()
        self._think_s = requests.think_s.tolist()
        self._session = requests.session.tolist()
        self._first_of = np.searchsorted(requests.session, np.arange(requests.sessions + 1)).tolist()
        self._names: list[list[int]] | None = None
        self._due: list[tuple[float, int]] = []
        self._arrivals: Iterator[tuple[float, int]] = iter(())
        self._idle_sessions: list[int] = []
        self._request = array("q")
        self._due_s = array("d")
        self._ended_at_s = array("d")
        self._status = array("q")
        self._open_counted = 0
        self._oldest = 0
        self._errors: set[str] = set()
        self._stopped: str | None = None
        self._prompt_steps = self._prompt_tokens = 0
        self._least_free = scheduler.free_blocks

    def share(self, names: list[list[int]]) -> None:
        """Say which blocks of the prompts are shared (`shared_block_names`)."""
        self._names = names

    def offer(self, load: Load, sessions: list[int]) -> None:
        """Schedule these sessions."""
        match load:
            case OpenLoop(rate_rps):
                arrival_s = (np.cumsum(self._requests.unit_gaps) / rate_rps).tolist()
                self._arrivals = ((arrival_s[session], self._first_of[session]) for session in sessions)
                self._next_arrival()
            case ClosedLoop(users, joining_s):
                self._idle_sessions = sessions[::-1]
                for user in range(users):
                    self._next_session(user * joining_s)

    def run(self, watch: Watch | None) -> RequestLog:
        """Play it to its end, or until `watch` says why not."""
        s, plan = self._s, PLANS[self._s.settings.policy]
        look_every_s = self._window.measure_s / LOOKS if watch else inf
        look_s = self._window.warmup_s + look_every_s
        now_s = 0.0
        while True:
            self._arrive(now_s)
            self._time_out(now_s)
            if watch and now_s >= look_s:
                self._stopped = watch(self.log(now_s))
                look_s = now_s + look_every_s
            if self._stopped or (now_s >= self._window_end_s and not self._open_counted):
                return self.log(now_s)
            step = plan(s)
            if not step[2] and not step[3]:
                if not self._due:
                    return self.log(now_s)
                now_s = max(now_s, min(self._due[0][0] + FRONT_END_S, look_s))
                continue
            self._note(step)
            now_s += self._step_s(*step)
            finish(s, now_s)
            if not s.ended and s.answering and not s.prefilling and (s.stuck or not s.waiting):
                now_s = self._run_answers(now_s, look_s)
            if s.ended:
                self._record_ended(now_s)

    def log(self, now_s: float) -> RequestLog:
        """What has been seen so far; whoever still runs is UNFOLLOWED."""
        rows = np.array(self._request)
        due_s = np.array(self._due_s)
        status = np.array(self._status)
        wanted_tokens = self._requests.output_tokens[rows]
        output_tokens = wanted_tokens.copy()
        unfinished = np.flatnonzero(status != Status.OK)
        output_tokens[unfinished] = [tokens_said(self._s, i) for i in unfinished.tolist()]
        chunk_s, chunk_start = self._chunks(status)
        return RequestLog(
            request=rows,
            counted=(due_s >= self._window.warmup_s) & (due_s < self._window_end_s),
            due_s=due_s,
            sent_s=due_s,
            ended_at_s=np.array(self._ended_at_s),
            status=status,
            prompt_tokens=self._requests.prompt_tokens[rows],
            output_tokens=output_tokens,
            wanted_tokens=wanted_tokens,
            chunk_s=chunk_s,
            chunk_start=chunk_start,
            warmup_s=self._window.warmup_s,
            window_s=self._window.measure_s,
            ended_s=now_s,
            errors=tuple(sorted(self._errors)),
            stopped=self._stopped,
        )

    def view(self) -> EngineView:
        """What a real engine's metrics would say, as far as it is known for nothing; about the whole probe."""
        s = self._s
        hits, looked_up = (s.cache.hit_tokens, s.cache.queried_tokens) if s.cache else (0, 0)
        steps = len(s.step_s) + self._prompt_steps
        computed = self._prompt_tokens + sum(tokens_said(s, i) for i in range(len(s.prompt)))
        return EngineView(
            kv_peak_frac=1 - self._least_free / s.settings.blocks,
            preemptions=s.preemptions,
            cache_hit_frac=hits / looked_up if looked_up else None,
            step_tokens=computed / steps if steps else None,
            accepted_frac=_accepted_frac(s),
        )

    def _note(self, step: Step) -> None:
        """Keep what `view` says of a planned step."""
        self._prompt_tokens += step[0]
        self._prompt_steps += not step[3]
        self._least_free = min(self._least_free, self._s.free_blocks)

    def _run_answers(self, now_s: float, look_s: float) -> float:
        """Steps of nothing but answers, until something else happens; returns the time."""
        s, first, free = self._s, len(self._s.step_s), self._s.free_blocks
        now_s = run_answers(s, now_s, self._next_event_s(look_s), self._step_s)
        self._least_free = min(self._least_free, free - sum(s.growth[first : len(s.step_s)]))
        return now_s

    def _chunks(self, status: IntArray) -> tuple[FloatArray, IntArray]:
        """All chunk times, row after row, and where each row begins."""
        s = self._s
        # A row is one slice of the steps' times, beginning one step early to leave room for its first token.
        step_s = np.array([0.0, *s.step_s])
        rows = [step_s[start : end + 1] for start, end in zip(s.run_start, s.run_end, strict=True)]
        is_plain = np.array(s.run_start) != NO_RUN
        for i in self._other_rows(status):
            rows[i] = self._seen(i)
            is_plain[i] = False
        chunk_start = np.cumsum([0, *map(len, rows)])
        chunk_s = np.concatenate([step_s[:0], *rows])
        chunk_s[chunk_start[:-1][is_plain]] = np.array(s.first_s)[is_plain]
        return chunk_s, chunk_start

    def _other_rows(self, status: IntArray) -> Iterable[int]:
        """Rows that are not a first token and one run of steps: of preempted or impatient requests, or in lumps."""
        if self._s.settings.stream_interval > 1:
            return range(len(status))
        return [*self._s.earlier, *np.flatnonzero(status == Status.TIMED_OUT).tolist()]

    def _seen(self, i: int) -> FloatArray:
        """The chunk times of one request that reached the client before it gave up."""
        times = np.array(chunk_times_s(self._s, i), dtype=np.float64)
        if self._s.settings.stream_interval > 1:
            has_ended = self._status[i] == Status.OK
            times = times[_sent(said_by_chunk(self._s, i), self._s.settings.stream_interval, has_ended)]
        ended_at_s = self._ended_at_s[i]
        return times if np.isnan(ended_at_s) else times[times <= ended_at_s]

    def _arrive(self, now_s: float) -> None:
        """Hand over every request that is due."""
        while self._due and self._due[0][0] + FRONT_END_S <= now_s:
            due_s, request = heappop(self._due)
            if request == self._first_of[self._session[request]]:
                self._next_arrival()
            prompt, output = self._prompt[request], self._output[request]
            names = self._names[request] if self._names else None
            i = add(self._s, prompt, output, self._requests.seed + SEED_STRIDE * request, names)
            self._request.append(request)
            self._due_s.append(due_s)
            self._status.append(Status.UNFOLLOWED)
            self._ended_at_s.append(NOT_ENDED)
            self._open_counted += self._counts(due_s)
            if not self._s.settings.admits(prompt, output):
                abort(self._s, i)
                self._errors.add(f"HTTP 400: {prompt} prompt and {output} answer tokens exceed the context length")
                self._over(i, Status.FAILED, now_s)

    def _time_out(self, now_s: float) -> None:
        """Abort whoever has waited too long. Requests are in order of due time, so the oldest are looked at first."""
        while self._oldest < len(self._due_s):
            i = self._oldest
            if self._s.phase[i] != ENDED:
                deadline_s = self._due_s[i] + self._window.timeout_s
                if deadline_s > now_s:
                    return
                abort(self._s, i)
                self._over(i, Status.TIMED_OUT, deadline_s)
            self._oldest += 1

    def _record_ended(self, now_s: float) -> None:
        for i in self._s.ended:
            deadline_s = self._due_s[i] + self._window.timeout_s
            if now_s > deadline_s:
                self._over(i, Status.TIMED_OUT, deadline_s)
            else:
                self._over(i, Status.OK, now_s)
        self._s.ended.clear()

    def _over(self, i: int, status: Status, at_s: float) -> None:
        """Record an end, and schedule what its session or its user does next."""
        self._status[i] = status
        self._ended_at_s[i] = at_s
        self._open_counted -= self._counts(self._due_s[i])
        free_s = at_s + (FAILURE_PAUSE_S if status == Status.FAILED else 0.0)
        request = self._request[i] + 1
        if request < self._first_of[self._session[request - 1] + 1]:
            heappush(self._due, (free_s + self._think_s[request], request))
        else:
            self._next_session(free_s)

    def _next_arrival(self) -> None:
        """Schedule the next session of an open loop; only then is it looked for among what is due."""
        arrival = next(self._arrivals, None)
        if arrival:
            heappush(self._due, arrival)

    def _next_session(self, free_s: float) -> None:
        if self._idle_sessions:
            request = self._first_of[self._idle_sessions.pop()]
            heappush(self._due, (free_s + self._think_s[request], request))

    def _next_event_s(self, look_s: float) -> float:
        """When the scheduler may have to be told something."""
        next_s = min(look_s, self._due_s[self._oldest] + self._window.timeout_s)
        return min(next_s, self._due[0][0] + FRONT_END_S) if self._due else next_s

    def _counts(self, due_s: float) -> bool:
        return self._window.warmup_s <= due_s < self._window_end_s


def _sent(said: list[int], interval: int, has_ended: bool) -> list[int]:
    """At which chunks vLLM's front end sends what has come: the first, then with every `interval` tokens more, and
    the last of an answer `has_ended`. `said`: tokens at each chunk."""
    sent: list[int] = []
    for chunk, tokens in enumerate(said):
        if not sent or tokens - said[sent[-1]] >= interval:
            sent.append(chunk)
    if has_ended and sent[-1] < len(said) - 1:
        sent.append(len(said) - 1)
    return sent


def _accepted_frac(s: Scheduler) -> float | None:
    """The share of guessed tokens that were right."""
    ran = [(i, steps) for i in s.guessed if (steps := steps_run(s, i))]
    guessed = s.settings.drafts * sum(steps for _, steps in ran)
    return sum(gained(s, i, steps) - steps for i, steps in ran) / guessed if guessed else None
