"""Tally: what a simulated server counts of its work, for its metrics."""

from bisect import bisect_left
from math import inf

from launchers.sim.answer import Answer
from launchers.sim.buckets import Buckets

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")


class Histogram:
    """`counts[k]` values were at most `bounds[k]`, and above the bound before it."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = (*bounds, inf)
        self.counts = [0] * len(self.bounds)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Another value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Tally:
    """Counts since the start. `computed_tokens` are those of prompts as they are computed, also again after a
    preemption; `accepted[k]` the right guesses at place k of a step; `drafts` how often an answer was guessed on,
    by `guessed_tokens` in all; `queried_tokens` and `hit_tokens` are those of prefix caches that were reset since.
    """

    def __init__(self, buckets: Buckets, drafts: int) -> None:
        self.steps = self.computed_tokens = self.generated_tokens = 0
        self.prompt_tokens = self.cached_tokens = 0
        self.drafts = self.guessed_tokens = 0
        self.accepted = [0] * drafts
        self.queried_tokens = self.hit_tokens = 0
        self.finished = dict.fromkeys(FINISH_REASONS, 0)
        self.step_tokens = Histogram(buckets.step_tokens)
        self.first_token_s = Histogram(buckets.first_token_s)
        self.gap_s = Histogram(buckets.gap_s)
        self.mean_gap_s = Histogram(buckets.gap_s)
        self.admitted_after_s = Histogram(buckets.queue_s)
        self.request_s = Histogram(buckets.request_s)
        self.queue_s = Histogram(buckets.queue_s)
        self.prefill_s = Histogram(buckets.request_s)
        self.decode_s = Histogram(buckets.request_s)
        self.inference_s = Histogram(buckets.request_s)
        self.prompt_lengths = Histogram(buckets.request_tokens)
        self.answer_lengths = Histogram(buckets.request_tokens)
        self.asked_lengths = Histogram(buckets.request_tokens)

    @property
    def accepted_tokens(self) -> int:
        """Guesses that were right."""
        return sum(self.accepted)

    def guess(self, answers: int, tokens: int) -> None:
        """So many answers were guessed on in a step, by so many tokens together."""
        self.drafts += answers
        self.guessed_tokens += tokens

    def admit(self, answer: Answer, now_s: float) -> None:
        """It came into the batch for the first time."""
        answer.admitted_s = now_s
        self.admitted_after_s.add(now_s - answer.came_s)

    def begin(self, answer: Answer, now_s: float) -> None:
        """Its prompt is computed, its first token out."""
        answer.first_s = answer.last_s = now_s
        self.first_token_s.add(now_s - answer.came_s)
        self.prompt_tokens += answer.prompt_tokens
        self.cached_tokens += answer.cached_prompt_tokens

    def go_on(self, answer: Answer, tokens: int, now_s: float) -> None:
        """It got `tokens` more in one step."""
        self.gap_s.add(now_s - answer.last_s)
        answer.last_s = now_s
        for place in range(tokens - 1):
            self.accepted[place] += 1

    def end(self, answer: Answer, reason: str) -> None:
        """It is over, and its client was told so. One that ended in the queue was never at work."""
        self.finished[reason] += 1
        self.prompt_lengths.add(answer.prompt_tokens)
        self.answer_lengths.add(answer.said)
        self.asked_lengths.add(answer.wanted)
        if not answer.said or answer.admitted_s is None:
            return
        decode_s = answer.last_s - answer.first_s
        self.request_s.add(answer.last_s - answer.came_s)
        self.queue_s.add(answer.admitted_s - answer.came_s)
        self.prefill_s.add(answer.first_s - answer.admitted_s)
        self.decode_s.add(decode_s)
        self.inference_s.add(answer.last_s - answer.admitted_s)
        self.mean_gap_s.add(decode_s / (answer.said - 1) if answer.said > 1 else 0.0)
