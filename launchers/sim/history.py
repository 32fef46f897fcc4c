"""History: a scheduler without its past, so that a server that never rests does not grow for ever."""

from collections import deque

from launchers.sim.prefixcache import tidy
from launchers.sim.state import ANSWERING, ENDED, NO_RUN, PREFILLING, Scheduler

BY_REQUEST = (
    *("prompt", "wanted", "seed", "names", "owned", "cached", "phase", "said", "target", "computed", "blocks"),
    *("place", "first_s", "run_start", "run_end"),
)
BY_STEP = ("step_s", "growth", "gains")


def forget(s: Scheduler) -> dict[int, int]:
    """Forget, between two steps, who has ended, and the steps before the first one that a running answer needs.

    Requests and steps are numbered anew; returns the new number of each request that is left by its old one. What
    happens next is the same as without.
    """
    new = {i: number for number, i in enumerate(i for i, phase in enumerate(s.phase) if phase != ENDED)}
    running = [i for i in new if s.phase[i] in (PREFILLING, ANSWERING)]
    by_admission = sorted(running, key=s.place.__getitem__)
    for place, i in enumerate(by_admission):
        s.place[i] = place
    s.admitted = [new[i] for i in by_admission]
    _forget_steps(s, min((s.run_start[i] for i in running if s.phase[i] == ANSWERING), default=len(s.step_s)))
    for name in BY_REQUEST:
        setattr(s, name, [getattr(s, name)[i] for i in new])
    s.waiting = deque(new[i] for i in s.waiting if i in new)
    s.prefilling = [new[i] for i in s.prefilling]
    s.left_out = {new[i] for i in s.left_out}
    s.ends = {step: [new[i] for i in who] for step, who in s.ends.items()}
    s.earlier = {new[i]: times for i, times in s.earlier.items() if i in new}
    s.earlier_said = {new[i]: said for i, said in s.earlier_said.items() if i in new}
    s.guessed = {new[i]: guesses for i, guesses in s.guessed.items() if i in new}
    if s.cache:
        tidy(s.cache)
    return new


def _forget_steps(s: Scheduler, first: int) -> None:
    """Number the steps anew from `first` on."""
    for name in BY_STEP:
        del getattr(s, name)[:first]
    s.ends = {step - first: who for step, who in s.ends.items()}
    s.ends_sum -= first * s.answering
    s.reserve_step -= first
    s.run_start = [start if start == NO_RUN else start - first for start in s.run_start]
    s.run_end = [end if end == NO_RUN else end - first for end in s.run_end]
