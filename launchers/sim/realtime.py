"""The simulated engine on the real clock: requests come when they come, and every step takes the time it says.

Steps end on an absolute schedule, so that small delays of this process do not add up. All tokens of a step are handed
out in one pass over the answers.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from launchers.sim.lateness import Lateness
from launchers.sim.mishaps import Mishap, crash
from launchers.sim.orders import PLANS
from launchers.sim.scheduler import abort, add, finish, new_scheduler
from launchers.sim.settings import SimSettings
from launchers.sim.state import Scheduler, Step, tokens_said
from launchers.sim.steptime import StepTime
from launchers.sim.tally import Tally

# A server this late gives up catching up: its steps would follow each other faster than any GPU's.
LATE_S = 0.25
KEPT_STEPS = 100_000


@dataclass(slots=True, eq=False)
class Answer:
    """An answer on its way. `pending` tokens were made and not yet taken; `wake` says that something is to be taken.
    When it ends, `cached_prompt_tokens` says how much of the prompt was in the prefix cache.

    While `transport` is set, tokens that come are written to it at once, spelt by `piece`.
    """

    number: int
    wanted: int
    said: int = 0
    pending: int = 0
    cached_prompt_tokens: int = 0
    finish_reason: str | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    transport: asyncio.WriteTransport | None = None
    piece: Callable[[int], bytes] = bytes


class RealTime:
    """One server's scheduler and its clock. `run` must be running for answers to come.

    uvloop's `loop.time()` stands still while tokens are handed out and counts whole milliseconds, hence `clock_s`.
    """

    def __init__(
        self, settings: SimSettings, steps: StepTime, mishap: Mishap, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.scheduler = new_scheduler(settings, shares_prefixes=True)
        self.tally = Tally()
        self.slipped_s = 0.0
        self._came_s: dict[int, float] = {}
        self.lateness = Lateness()
        self._step_s = steps.step_s
        self._plan = PLANS[settings.policy]
        self._mishap = mishap
        self._clock_s = clock_s
        self._answers: dict[int, Answer] = {}
        self._dropped: list[int] = []
        self._work = asyncio.Event()

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return self.scheduler.answering + len(self.scheduler.prefilling)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._answers) - self.running

    def submit(self, prompt_tokens: int, wanted: int, names: list[int]) -> Answer:
        """Queue a request that the settings admit."""
        number = add(self.scheduler, prompt_tokens, wanted, seed=len(self.scheduler.prompt), names=names)
        answer = Answer(number, wanted)
        self._answers[number] = answer
        self._came_s[number] = self._clock_s()
        self.tally.prompt_tokens += prompt_tokens
        self._work.set()
        return answer

    def drop(self, answer: Answer) -> None:
        """The client is gone, or has all it wanted; takes effect between two steps."""
        answer.transport = None
        if self._answers.get(answer.number) is answer:
            self._dropped.append(answer.number)
            self._work.set()

    def stop_all(self) -> None:
        """End every answer where it is, as vLLM does when it is told to stop."""
        for answer in list(self._answers.values()):
            self._end(answer, "abort")

    def reset_cache(self) -> bool:
        """Forget cached prefixes; refused while requests are running, as the engines do."""
        if self._answers:
            return False
        self._keep_cache_counts()
        self.scheduler = _successor(new_scheduler(self.settings, shares_prefixes=True), self.scheduler.preemptions)
        return True

    def prefix_cache(self) -> tuple[int, int]:
        """Prompt tokens looked up in the prefix cache since the start, and found."""
        cache, tally = self.scheduler.cache, self.tally
        if not cache:
            return 0, 0
        return tally.queried_tokens + cache.queried_tokens, tally.hit_tokens + cache.hit_tokens

    async def run(self) -> None:
        """Step for ever."""
        now_s = self._clock_s()
        while True:
            self._drop_the_dropped()
            step = self._plan(self.scheduler)
            if not step[2] and not step[3]:
                self._trim()
                self._work.clear()
                await self._work.wait()
                now_s = self._clock_s()
                continue
            self._count(step, self._clock_s())
            await self._mishap_before(self.tally.steps)
            now_s += self._step_s(*step)
            slip_s = self._clock_s() - now_s
            if slip_s > LATE_S:
                self.slipped_s += slip_s
                now_s += slip_s
            await asyncio.sleep(max(0.0, now_s - self._clock_s()))
            finish(self.scheduler, now_s)
            self.tally.steps += 1
            self._hand_out()
            self.lateness.note(self._clock_s() - now_s)

    def _count(self, step: Step, now_s: float) -> None:
        """Add a planned step to the tally, and the wait of those who have just been admitted."""
        s, tally = self.scheduler, self.tally
        tally.computed_tokens += step[0]
        if s.settings.drafts and step[3]:
            tally.guessed_tokens += s.settings.drafts * step[3]
            tally.accepted_tokens += s.gains[len(s.step_s)] - step[3]
        for number in s.prefilling:
            if number in self._came_s:
                tally.admit(now_s - self._came_s.pop(number))

    def _keep_cache_counts(self) -> None:
        """A cache that is emptied begins to count anew; counters must not fall."""
        self.tally.queried_tokens, self.tally.hit_tokens = self.prefix_cache()

    def _hand_out(self) -> None:
        """Give every answer the tokens of the step that has just ended."""
        s = self.scheduler
        truncates = self._mishap.kind == "truncate"
        for number, answer in list(self._answers.items()):
            fresh = tokens_said(s, number) - answer.said
            if not fresh:
                continue
            answer.said += fresh
            self.tally.generated_tokens += fresh
            is_last = answer.said == answer.wanted
            if is_last or (truncates and 2 * answer.said >= answer.wanted):
                answer.pending += fresh
                self._end(answer, "length" if is_last else "abort")
            elif answer.transport:
                # A client may have left without our having been told yet.
                if not answer.transport.is_closing():
                    answer.transport.write(answer.piece(fresh))
            else:
                answer.pending += fresh
                answer.wake.set()
        s.ended.clear()

    def _end(self, answer: Answer, reason: str) -> None:
        answer.finish_reason = reason
        answer.cached_prompt_tokens = self.scheduler.cached[answer.number]
        answer.transport = None
        answer.wake.set()
        if reason == "length":
            del self._answers[answer.number]
        else:
            self.drop(answer)

    def _drop_the_dropped(self) -> None:
        for number in self._dropped:
            self._came_s.pop(number, None)
            if self._answers.pop(number, None):
                abort(self.scheduler, number)
        self._dropped.clear()

    def _trim(self) -> None:
        """An idle server forgets its past requests, or a long life would fill the memory."""
        if not self._answers and len(self.scheduler.step_s) > KEPT_STEPS:
            self.scheduler = _successor(self.scheduler, self.scheduler.preemptions)

    async def _mishap_before(self, step: int) -> None:
        if self._mishap.kind == "crash-at-step" and step >= self._mishap.step:
            crash("RuntimeError: CUDA error: an illegal memory access was encountered")
        if self._mishap.kind == "hang-at-step" and step >= self._mishap.step:
            await asyncio.Event().wait()


def _successor(idle: Scheduler, preemptions: int) -> Scheduler:
    """A scheduler with the cache of an idle one, but without its history."""
    return Scheduler(idle.settings, idle.free_blocks, idle.cache, preemptions=preemptions)
