"""Probes that single out one kind of step of an engine: what to offer, and the step's time read off the answers.

- prefill: prompts one by one, far apart; the time to the first token holds one step (and taking the request in).
- decode: so many users at once; while all of them are answered and no prompt is left, a gap is a step.
- mixed: the same, and prompts that come one by one meanwhile; the longest gap around such a prompt is its step.

Pure.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tuner.requestlog import RequestLog, Status
from tuner.requests import FloatArray, Requests
from tuner.target import ClosedLoop, Load, OpenLoop, Window
from tuner.workload.prompts import fresh_prompts

Kind = Literal["prefill", "decode", "mixed"]

REPEATS = 8
DECODE_STEPS = 48
# Of the steps of all prompts together, by which the first answer is ahead of the last: the default budget on 80 GB.
BUDGET_TOKENS = 8192
TIMEOUT_S = 120.0
# A prompt's step has ended when its token is seen; gaps are looked at a little beyond that.
AROUND_S = 0.02


@dataclass(frozen=True)
class StepProbe:
    """`batch` answers over about `context` tokens each (0: none), and prompts of `prompt` tokens (0: none).

    `every_s` lies between two prompts: several times what a step with one takes.
    """

    kind: Kind
    batch: int = 0
    context: int = 0
    prompt: int = 0
    every_s: float = 0.5

    @property
    def name(self) -> str:
        """Says all of it, for lists and for finding out whether it was measured."""
        return f"{self.kind}-b{self.batch}-c{self.context}-p{self.prompt}"


def requests_of(probe: StepProbe) -> Requests:
    """What to send: answers that are long enough first, then the prompts. The same for every server."""
    prompts = REPEATS if probe.prompt else 0
    prompt_tokens = np.array([probe.context] * probe.batch + [probe.prompt] * prompts)
    output_tokens = np.array([_answer_tokens(probe)] * probe.batch + [1] * prompts)
    n = len(prompt_tokens)
    # In units of `every_s`: all answers begin at once.
    gaps = np.array([0.0] * probe.batch + [_lead(probe)] * min(prompts, 1) + [1.0] * max(prompts - 1, 0))
    return Requests(
        seed=0,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        session=np.arange(n),
        unit_gaps=gaps,
        think_s=np.zeros(n),
        segments=fresh_prompts(n * 1_000_003 + probe.context + probe.prompt, prompt_tokens),
    )


def load_of(probe: StepProbe) -> Load:
    """How to send it."""
    return ClosedLoop(probe.batch) if probe.kind == "decode" else OpenLoop(1 / probe.every_s)


def window_of(probe: StepProbe) -> Window:
    """Every request counts."""
    if probe.kind == "decode":
        return Window(0.0, TIMEOUT_S, TIMEOUT_S)
    return Window(0.0, (_lead(probe) + REPEATS) * probe.every_s, TIMEOUT_S)


def steps_s(probe: StepProbe, log: RequestLog) -> FloatArray:
    """The times of the steps that the probe is about; empty where an answer was not whole or none was singled out."""
    if (log.status != Status.OK).any():
        return np.zeros(0)
    match probe.kind:
        case "prefill":
            return log.first_s - log.sent_s
        case "decode":
            begins, ends = log.first_s.max(), log.last_s.min()
            return np.concatenate([_gaps_within(log, row, begins, ends) for row in range(len(log))])
        case "mixed":
            late = log.prompt_tokens == probe.prompt if probe.prompt != probe.context else log.output_tokens == 1
            return np.array([_longest_s(log, int(row), ~late) for row in np.flatnonzero(late)])


def mean_context(probe: StepProbe) -> float:
    """Tokens of an answer's context in the middle of what is looked at."""
    return probe.context + _answer_tokens(probe) / 2 if probe.batch else 0.0


def _answer_tokens(probe: StepProbe) -> int:
    """So many that the first answer has not ended when the last prompt has, and then DECODE_STEPS more."""
    first_is_ahead = -(-probe.batch * probe.context // BUDGET_TOKENS)
    if probe.kind == "decode":
        return first_is_ahead + DECODE_STEPS
    # Answers go on until the last prompt: their steps take no less than this.
    fastest_step_s = 0.004
    return first_is_ahead + int((_lead(probe) + REPEATS) * probe.every_s / fastest_step_s)


def _lead(probe: StepProbe) -> float:
    """How long prompts wait for the answers' own prompts, in units of `every_s`: at 20,000 tokens a second."""
    return 1.0 + probe.batch * probe.context / 20_000 / probe.every_s


def _chunks(log: RequestLog, row: int) -> FloatArray:
    return log.chunk_s[log.chunk_start[row] : log.chunk_start[row + 1]]


def _gaps_within(log: RequestLog, row: int, begins_s: float, ends_s: float) -> FloatArray:
    times = _chunks(log, row)
    return np.diff(times[(times >= begins_s) & (times <= ends_s)])


def _longest_s(log: RequestLog, late: int, answers: np.ndarray) -> float:
    """The median over answers of their longest gap while the prompt `late` was computed; NaN where none was on."""
    longest = []
    for row in np.flatnonzero(answers):
        times = _chunks(log, int(row))
        ends = times[1:]
        during = (ends >= log.sent_s[late]) & (ends <= log.first_s[late] + AROUND_S)
        if during.any():
            longest.append(float(np.diff(times)[during].max()))
    return float(np.median(longest)) if longest else float("nan")
