"""Ramp: a closed loop in which one user after the other joins, read as one score for each number of users. Pure."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tuner.config.slo import Limits
from tuner.engineview import view_of
from tuner.goodput import LEAST_ATTAINMENT, Answer
from tuner.requestlog import RequestLog, Status
from tuner.score import Score, score
from tuner.target import ClosedLoop

HOPELESS_STEPS = 3
# How long after a step its last look at the engine's metrics may be.
LOOK_PERIOD_S = 1.5


def steps_of(log: RequestLog, load: ClosedLoop, limits: Limits) -> tuple[Score, ...]:
    """What each step of a ramp was worth, as a probe of that many users; those without a request are left out."""
    scores = (_step(log, load, users, limits) for users in range(1, load.users + 1))
    return tuple(found for found in scores if found.counted)


def best_step(steps: Sequence[Score], attainment: float) -> Answer:
    """The step of highest goodput among those that hold the SLO: the best of many short looks, so biased upwards."""
    holding = [found for found in steps if found.attainment >= attainment]
    if not holding:
        return Answer("misses-slo", 0.0, max(steps, key=lambda found: found.attainment), None, tuple(steps))
    best = max(holding, key=lambda found: found.goodput_rps)
    edge = max(found.load.users for found in holding if isinstance(found.load, ClosedLoop))
    return Answer("found", best.goodput_rps, best, float(edge), tuple(steps))


def is_over(log: RequestLog, load: ClosedLoop, limits: Limits) -> str | None:
    """Why a ramp under way need not go on: in some steps in a row most requests that have ended missed the SLO."""
    done = min(int(log.ended_s / load.joining_s), load.users)
    if done < HOPELESS_STEPS:
        return None
    first = done - HOPELESS_STEPS + 1
    so_far = replace(log, stopped="not at its end")
    latest = [_step(so_far, load, users, limits) for users in range(first, done + 1)]
    if any(not found.counted or found.attainment >= LEAST_ATTAINMENT for found in latest):
        return None
    return f"with {first} to {done} users most requests missed the SLO"


def _step(log: RequestLog, load: ClosedLoop, users: int, limits: Limits) -> Score:
    start_s, end_s = (users - 1) * load.joining_s, users * load.joining_s
    own = np.asarray((log.due_s >= start_s) & (log.due_s < end_s), dtype=bool)
    has_ended = not (own & (log.status == Status.UNFOLLOWED)).any()
    looks = [scrape for scrape in log.scrapes if scrape.at_s < end_s + LOOK_PERIOD_S]
    step = replace(
        log,
        counted=own,
        warmup_s=start_s,
        window_s=load.joining_s,
        stopped=None if has_ended else log.stopped,
        engine=view_of(looks, start_s, end_s),
    )
    return score(step, ClosedLoop(users), limits)
