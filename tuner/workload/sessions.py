"""Sessions of several turns, whose prompts repeat all that was said before. Pure."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.config.workload import Turns, Workload
from tuner.requests import FloatArray, IntArray, Requests, Segment
from tuner.workload.arrivals import unit_gaps
from tuner.workload.lengths import clip_to_context, draw_durations_s, draw_lengths
from tuner.workload.prompts import Segments, draw_seeds, system_text
from tuner.workload.streams import Purpose, stream

MEASURED_SESSIONS = 256
"""Over so many the turns of a session are averaged, since a context that is too short cuts some off."""


@dataclass(frozen=True)
class _Turns:
    """Everything about m sessions of t turns, each array (m, t); `kept` marks the turns that fit the context."""

    asked: IntArray
    answered: IntArray
    prompt_tokens: IntArray
    think_s: FloatArray
    kept: npt.NDArray[np.bool_]


def build_sessions(workload: Workload, turns: Turns, seed: int, count: int) -> Requests:
    """`count` requests in sessions of up to `turns.per_session`; the last session may be cut short by `count`."""
    drawn = _draw(workload, turns, seed, max(count, MEASURED_SESSIONS))
    session, _ = np.nonzero(drawn.kept)
    session = session[:count].astype(np.int64)
    sessions = int(session[-1]) + 1 if count else 0
    return Requests(
        seed=seed,
        prompt_tokens=drawn.prompt_tokens[drawn.kept][:count],
        output_tokens=drawn.answered[drawn.kept][:count],
        session=session,
        # A session is as many requests as has turns, so sessions come that much further apart.
        unit_gaps=unit_gaps(workload.arrivals, stream(seed, Purpose.ARRIVALS), sessions) * _turns_kept(drawn),
        think_s=drawn.think_s[drawn.kept][:count],
        segments=_segments(system_text(seed, workload.shared), drawn, seed, count),
    )


def _turns_kept(drawn: _Turns) -> float:
    """The mean number of turns of a session; over always as many sessions, so that it is the same for every count."""
    return float(drawn.kept[:MEASURED_SESSIONS].sum(axis=1).mean())


def _draw(workload: Workload, turns: Turns, seed: int, sessions: int) -> _Turns:
    assert workload.prompt is not None and workload.output is not None
    shape = (sessions, turns.per_session)
    asked = draw_lengths(turns.added_tokens, stream(seed, Purpose.ADDED_TOKENS), shape)
    answered = draw_lengths(workload.output, stream(seed, Purpose.OUTPUT_TOKENS), shape)
    first = draw_lengths(workload.prompt, stream(seed, Purpose.PROMPT_TOKENS), sessions)
    asked[:, 0], answered[:, 0] = clip_to_context(workload, first, answered[:, 0])
    said_before = np.cumsum(answered, axis=1) - answered
    prompt_tokens = workload.shared.system_tokens + np.cumsum(asked, axis=1) + said_before
    think_s = draw_durations_s(turns.think_s_mean, turns.think_s_sd, stream(seed, Purpose.THINK_TIMES), shape)
    think_s[:, 0] = 0.0
    # Prompts only grow within a session, so the turns that fit are its first ones.
    kept = prompt_tokens + answered <= (workload.max_model_len or np.inf)
    return _Turns(asked, answered, prompt_tokens, think_s, kept)


def _segments(system: Segments, drawn: _Turns, seed: int, count: int) -> tuple[Segments, ...]:
    """The prompt of each kept turn: the system text, then questions and answers in order, then its own question."""
    shape = drawn.asked.shape
    asked_seeds = draw_seeds(seed, Purpose.PROMPT_TEXT, shape)
    answer_seeds = draw_seeds(seed, Purpose.ANSWER_TEXT, shape)
    prompts: list[Segments] = []
    for row, turns in enumerate(drawn.kept.sum(axis=1).tolist()):
        said = system
        for turn in range(turns):
            if len(prompts) == count:
                return tuple(prompts)
            prompt = (*said, Segment(int(asked_seeds[row, turn]), int(drawn.asked[row, turn])))
            said = (*prompt, Segment(int(answer_seeds[row, turn]), int(drawn.answered[row, turn])))
            prompts.append(prompt)
    return tuple(prompts)
