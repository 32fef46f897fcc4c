"""The simulated engine on the real clock: requests come when they come, and every step takes the time it says.

Steps end on an absolute schedule, so that small delays of this process do not add up. All tokens of a step are handed
out in one pass over the answers.
"""

import asyncio
import time
from collections.abc import Callable

from launchers.sim.answer import Answer
from launchers.sim.buckets import sglang_buckets, vllm_buckets
from launchers.sim.faults import Fault, crash, killed
from launchers.sim.history import forget
from launchers.sim.lateness import Lateness
from launchers.sim.orders import PLANS
from launchers.sim.scheduler import abort, add, finish, new_scheduler
from launchers.sim.settings import SimSettings
from launchers.sim.state import Scheduler, Step, tokens_said
from launchers.sim.steptime import StepTime
from launchers.sim.tally import Tally

# A server this late gives up catching up: its steps would follow each other faster than any GPU's.
LATE_S = 0.25
# Few enough to be forgotten within a fraction of a millisecond, between two steps.
KEPT_REQUESTS = 256
KEPT_STEPS = 10_000


class RealTime:
    """One server's scheduler and its clock. `run` must be running for answers to come.

    uvloop's `loop.time()` stands still while tokens are handed out and counts whole milliseconds, hence `clock_s`.
    `kept_requests` bounds what is remembered of requests that have ended.
    """

    def __init__(
        self,
        settings: SimSettings,
        steps: StepTime,
        fault: Fault,
        clock_s: Callable[[], float] = time.monotonic,
        kept_requests: int = KEPT_REQUESTS,
    ) -> None:
        is_sglang = settings.policy == "sglang"
        self.settings = settings
        self.scheduler = new_scheduler(settings, shares_prefixes=True)
        self.tally = Tally(sglang_buckets() if is_sglang else vllm_buckets(settings.max_model_len), settings.drafts)
        self.slipped_s = 0.0
        self.lateness = Lateness()
        self._step_s = steps.step_s
        self._plan = PLANS[settings.policy]
        self._fault = fault
        self._clock_s = clock_s
        self._kept_requests = kept_requests
        self._most_requests, self._most_steps = kept_requests, KEPT_STEPS
        self._came = 0
        self._answers: dict[int, Answer] = {}
        self._dropped: list[Answer] = []
        self._work = asyncio.Event()

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return self.scheduler.answering + len(self.scheduler.prefilling)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._answers) - self.running

    @property
    def kv_used_frac(self) -> float:
        """The share of the KV cache's blocks that are in use."""
        return 1 - self.scheduler.free_blocks / self.settings.blocks

    def submit(self, prompt_tokens: int, wanted: int, names: list[int]) -> Answer:
        """Queue a request that the settings admit."""
        number = add(self.scheduler, prompt_tokens, wanted, seed=self._came, names=names)
        self._came += 1
        answer = Answer(number, prompt_tokens, wanted, self._clock_s())
        self._answers[number] = answer
        self._work.set()
        return answer

    def drop(self, answer: Answer) -> None:
        """The client is gone, or has all it wanted; takes effect between two steps."""
        answer.transport = None
        if self._answers.get(answer.number) is answer:
            self._dropped.append(answer)
            self._work.set()

    def stop_all(self) -> None:
        """End every answer where it is, as vLLM does when it is told to stop."""
        for answer in list(self._answers.values()):
            self._end(answer, "abort")

    def reset_cache(self) -> bool:
        """Forget cached prefixes; refused while requests are running, as the engines do."""
        if self._answers:
            return False
        self.tally.queried_tokens, self.tally.hit_tokens = self.prefix_cache()
        idle = new_scheduler(self.settings, shares_prefixes=True)
        self.scheduler = Scheduler(
            self.settings, idle.free_blocks, idle.cache, preemptions=self.scheduler.preemptions
        )
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
            self._forget()
            step = self._plan(self.scheduler)
            if not step[2] and not step[3]:
                self._work.clear()
                await self._work.wait()
                now_s = self._clock_s()
                continue
            self._count(step, self._clock_s())
            await self._go_wrong_before(self.tally.steps)
            now_s += self._step_s(*step)
            slip_s = self._clock_s() - now_s
            if slip_s > LATE_S:
                self.slipped_s += slip_s
                now_s += slip_s
            await asyncio.sleep(max(0.0, now_s - self._clock_s()))
            finish(self.scheduler, now_s)
            self._hand_out(now_s)
            await _written()
            self.lateness.note(self._clock_s() - now_s)

    def _count(self, step: Step, now_s: float) -> None:
        """Add a planned step to the tally, and the wait of those who have just been admitted."""
        tally = self.tally
        tally.computed_tokens += step[0]
        if self.settings.drafts:
            left_out = self.scheduler.left_out
            checked = [tokens - 1 for number, tokens in self.scheduler.chunks if number in left_out and tokens > 1]
            tally.guess(step[3], step[3] * self.settings.drafts)
            tally.guess(len(checked), sum(checked))
        for number in self.scheduler.prefilling:
            answer = self._answers[number]
            if answer.admitted_s is None:
                tally.admit(answer, now_s)

    def _hand_out(self, now_s: float) -> None:
        """Give every answer the tokens of the step that ended at `now_s`, and send those that are due: its first one,
        then lumps of `stream_interval` or more, and what is left when it ends, as vLLM's output processor does."""
        s, tally, interval = self.scheduler, self.tally, self.settings.stream_interval
        said = computed = 0
        for number, answer in list(self._answers.items()):
            fresh = tokens_said(s, number) - answer.said
            if not fresh or answer.finish_reason:
                continue
            is_first = not answer.said
            answer.said += fresh
            answer.held += fresh
            said += fresh
            if is_first:
                answer.cached_prompt_tokens = s.cached[number]
                computed += answer.prompt_tokens - answer.cached_prompt_tokens
                tally.begin(answer, now_s)
            else:
                tally.go_on(answer, fresh, now_s)
            reason = self._reason(answer)
            if reason:
                self._end(answer, reason)
            elif is_first or answer.held >= interval:
                answer.send()
        s.ended.clear()
        tally.steps += 1
        tally.generated_tokens += said
        tally.step_tokens.add(computed + said)

    def _reason(self, answer: Answer) -> str | None:
        """Why an answer is at its end, if it is."""
        if answer.said == answer.wanted:
            return "length"
        if 2 * answer.said >= answer.wanted:
            return {"truncate": "abort", "cut": "cut"}.get(self._fault.kind)
        return None

    def _end(self, answer: Answer, reason: str) -> None:
        self.tally.end(answer, "length" if reason == "length" else "abort")
        answer.end(reason)
        if reason == "length":
            del self._answers[answer.number]
        else:
            self.drop(answer)

    def _drop_the_dropped(self) -> None:
        for answer in self._dropped:
            if self._answers.pop(answer.number, None):
                abort(self.scheduler, answer.number)
        self._dropped.clear()

    def _forget(self) -> None:
        """Forget past requests and steps, or a long life would fill the memory."""
        s = self.scheduler
        if len(s.prompt) <= self._most_requests and len(s.step_s) <= self._most_steps:
            return
        new = forget(s)
        for old, answer in self._answers.items():
            answer.number = new[old]
        self._answers = {answer.number: answer for answer in self._answers.values()}
        self._most_requests = len(s.prompt) + self._kept_requests
        self._most_steps = len(s.step_s) + KEPT_STEPS

    async def _go_wrong_before(self, step: int) -> None:
        if self._fault.is_due("crash-at-step", step):
            crash("RuntimeError: CUDA error: an illegal memory access was encountered")
        if self._fault.is_due("gpu-lost-at-step", step):
            crash("RuntimeError: CUDA error: uncorrectable ECC error encountered")
        if self._fault.is_due("kill-at-step", step):
            killed()
        if self._fault.is_due("hang-at-step", step):
            await asyncio.Event().wait()


async def _written() -> None:
    """Wait until what was handed out has gone to the sockets: at the end of this round of the event loop what was
    written at once, at the end of the next what the tasks wrote that were woken."""
    for _ in range(2):
        await asyncio.sleep(0)
