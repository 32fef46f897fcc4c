"""The heart of a simulated engine: what happens to requests, from the queue through the batch to their last token.

It has no clock: whoever drives it says when a step has ended. A step is planned (`vllm_order`, `sglang_order`), takes
its time, and is finished here. How the state is kept, and why that is fast: `state`.
"""

from launchers.sim.kvblocks import book, cache_computed, cache_planned, release_blocks, remember, take_blocks
from launchers.sim.prefixcache import hold, with_room
from launchers.sim.settings import SimSettings
from launchers.sim.speculation import chance_of_each, guesses
from launchers.sim.state import (
    ANSWERING,
    ENDED,
    NO_RUN,
    PREFILLING,
    WAITING,
    Scheduler,
    Step,
    blocks_short,
    chunk_times_s,
    gained,
    growth_now,
    held,
    is_admitted,
    said_by_chunk,
    steps_run,
    tokens_said,
)
from launchers.sim.steptime import StepSeconds


def new_scheduler(settings: SimSettings, shares_prefixes: bool) -> Scheduler:
    """An idle server. Without `shares_prefixes` no prompt has named blocks, so there is nothing to cache."""
    caches = settings.prefix_caching and shares_prefixes
    return Scheduler(settings, settings.blocks, with_room(settings.blocks) if caches else None)


def add(s: Scheduler, prompt_tokens: int, wanted_tokens: int, seed: int = 0, names: list[int] | None = None) -> int:
    """Queue a request that `settings.admits`; returns its number. `seed` draws its accepted guesses."""
    i = len(s.prompt)
    s.prompt.append(prompt_tokens)
    s.wanted.append(wanted_tokens)
    s.seed.append(seed)
    s.names.append(names if names and s.cache else [])
    s.owned.append([])
    s.cached.append(0)
    s.phase.append(WAITING)
    s.said.append(0)
    s.target.append(prompt_tokens)
    s.computed.append(0)
    s.blocks.append(0)
    s.place.append(-1)
    s.first_s.append(0.0)
    s.run_start.append(NO_RUN)
    s.run_end.append(NO_RUN)
    s.waiting.append(i)
    return i


def abort(s: Scheduler, i: int) -> None:
    """Forget a request between two steps; what it has said stays on record."""
    if s.phase[i] in (PREFILLING, ANSWERING):
        s.run_end[i] = _leave(s, i)
    s.phase[i] = ENDED


def head_of_queue(s: Scheduler) -> int | None:
    """The next request to admit, or None. Aborted ones are dropped here."""
    while s.waiting and s.phase[s.waiting[0]] != WAITING:
        s.waiting.popleft()
    return s.waiting[0] if s.waiting else None


def admit(s: Scheduler, i: int, hits: int) -> None:
    """Move the head of the queue into the batch; its first `hits` blocks are cached."""
    s.waiting.popleft()
    s.phase[i] = PREFILLING
    s.computed[i] = hits * s.settings.block_tokens
    s.blocks[i] = hits
    if s.cache:
        s.owned[i] = s.names[i][:hits]
        s.free_blocks -= hold(s.cache, s.owned[i])
        if s.place[i] < 0:
            s.cache.queried_tokens += s.target[i]
            s.cache.hit_tokens += s.computed[i]
            s.cached[i] = s.computed[i]
    s.place[i] = len(s.admitted)
    s.admitted.append(i)
    s.prefilling.append(i)


def grow_answers(s: Scheduler) -> None:
    """Run the answers in the step being planned; the blocks for it are free."""
    s.runs_answers = s.answering > 0
    take_blocks(s, growth_now(s))


def give_chunk(s: Scheduler, i: int, tokens: int) -> None:
    """Compute `tokens` more of a prompt in the step being planned; the blocks for it are free."""
    need = blocks_short(s, i, tokens)
    take_blocks(s, need)
    s.blocks[i] += need
    s.chunks.append((i, tokens))
    if s.cache:
        cache_planned(s, s.cache, i, tokens)


def contents(s: Scheduler) -> Step:
    """The step that was planned."""
    tokens = cached = 0
    for i, new in s.chunks:
        tokens += new
        cached += s.computed[i]
    if s.runs_answers:
        return tokens, cached, len(s.chunks), s.answering, s.context_tokens
    return tokens, cached, len(s.chunks), 0, 0


def finish(s: Scheduler, now_s: float) -> None:
    """The planned step ended at `now_s`: its tokens are out, `s.ended` has whoever is complete."""
    if s.runs_answers:
        _answer(s, now_s)
        s.runs_answers = False
    for i, tokens in s.chunks:
        if s.cache:
            cache_computed(s, s.cache, i, tokens)
        s.computed[i] += tokens
        if s.left_out and i in s.left_out:
            _check_guesses(s, i, tokens - 1)
        if s.computed[i] == s.target[i]:
            s.prefilling.remove(i)
            _begin_answer(s, i, now_s)
    s.chunks.clear()


def run_answers(s: Scheduler, now_s: float, until_s: float, step_s: StepSeconds) -> float:
    """Steps of nothing but answers, until one ends, blocks run short, or `until_s` is reached; returns the time.

    For when `stuck`, or nobody waits, and no prompt is being computed: the plan would be the same each time.
    """
    before = len(s.ended)
    while now_s < until_s and len(s.ended) == before:
        need = s.growth[len(s.step_s)]
        if need > s.free_blocks:
            break
        if need:
            take_blocks(s, need)
        now_s += step_s(0, 0, 0, s.answering, s.context_tokens)
        _answer(s, now_s)
    return now_s


def preempt_last(s: Scheduler) -> None:
    """Throw the request that was admitted last out of the batch, to the head of the queue."""
    i = s.admitted.pop()
    while not is_admitted(s, i, len(s.admitted)):
        i = s.admitted.pop()
    preempt(s, i)
    s.waiting.appendleft(i)


def preempt(s: Scheduler, i: int) -> None:
    """Throw a request out of the batch; it waits, to be computed again from its start."""
    if s.settings.prefix_caching:
        remember(s, i)
    _interrupt(s, i)
    release_blocks(s, i)
    s.prefilling.remove(i)
    s.left_out.discard(i)
    s.phase[i] = WAITING
    s.computed[i] = s.blocks[i] = 0
    s.preemptions += 1


def leave_out(s: Scheduler, i: int) -> None:
    """Take an answer out of the steps of the others. It keeps its blocks and goes on by chunks, as a prompt does: a
    token and the guesses that the chunk has room for."""
    _interrupt(s, i)
    s.prefilling.sort(key=s.place.__getitem__)
    s.left_out.add(i)


def _check_guesses(s: Scheduler, i: int, guessed: int) -> None:
    """An answer that had been left out was computed with so many guesses: what is right of them, it has said."""
    s.left_out.discard(i)
    chances = chance_of_each(s.settings.drafts, s.settings.acceptance)[:guessed]
    # Other draws than those of `_begin_answer`, whose seeds lie below.
    seed = s.seed[i] + s.wanted[i] + s.said[i]
    right = guesses(chances, seed, min(1 + guessed, s.wanted[i] - s.said[i])).tokens[1] - 1
    s.said[i] += right
    s.target[i] += right
    s.computed[i] = s.target[i]


def _interrupt(s: Scheduler, i: int) -> None:
    """Make an answer under way a prompt again, all but its last token computed; a prompt stays one."""
    if s.phase[i] == PREFILLING:
        return
    s.earlier[i] = chunk_times_s(s, i)
    if s.settings.drafts:
        s.earlier_said[i] = said_by_chunk(s, i)
    s.said[i] = tokens_said(s, i)
    s.blocks[i] = held(s, i, steps_run(s, i))
    book(s, i, -1)
    s.ends[s.run_end[i] - 1].remove(i)
    _leave_batch(s, i)
    s.phase[i] = PREFILLING
    s.prefilling.append(i)
    s.target[i] = s.prompt[i] + s.said[i]
    s.computed[i] = s.target[i] - 1
    s.run_start[i] = s.run_end[i] = NO_RUN
    s.guessed.pop(i, None)


def _answer(s: Scheduler, now_s: float) -> None:
    """One more token, or several guessed ones, for every running answer."""
    step = len(s.step_s)
    s.step_s.append(now_s)
    s.context_tokens += s.gains[step] if s.settings.drafts else s.answering
    if step in s.ends:
        for i in s.ends.pop(step):
            _leave_batch(s, i)
            _end(s, i)


def _begin_answer(s: Scheduler, i: int, now_s: float) -> None:
    """The prompt is computed: the first token is out, and the rest of the answer is known."""
    left = s.wanted[i] - s.said[i] - 1
    s.phase[i] = ANSWERING
    s.first_s[i] = now_s
    s.run_start[i] = len(s.step_s)
    if s.settings.drafts:
        chances = chance_of_each(s.settings.drafts, s.settings.acceptance)
        s.guessed[i] = guesses(chances, s.seed[i] + s.said[i], left)
        left = s.guessed[i].steps
    s.run_end[i] = s.run_start[i] + left
    if not left:
        _end(s, i)
        return
    missing = s.run_end[i] - len(s.growth)
    if missing > 0:
        s.growth.extend([0] * missing)
        s.gains.extend([0] * missing)
    s.ends.setdefault(s.run_end[i] - 1, []).append(i)
    s.ends_sum += s.run_end[i]
    s.answering += 1
    s.context_tokens += s.target[i]
    book(s, i, 1)


def _end(s: Scheduler, i: int) -> None:
    release_blocks(s, i)
    s.phase[i] = ENDED
    s.ended.append(i)


def _leave(s: Scheduler, i: int) -> int:
    """Take a request out of the batch before its end. Returns the step after the last it has run."""
    if s.phase[i] == PREFILLING:
        s.prefilling.remove(i)
        s.left_out.discard(i)
        release_blocks(s, i)
        return NO_RUN
    book(s, i, -1)
    s.ends[s.run_end[i] - 1].remove(i)
    _leave_batch(s, i)
    release_blocks(s, i)
    return len(s.step_s)


def _leave_batch(s: Scheduler, i: int) -> None:
    s.answering -= 1
    s.ends_sum -= s.run_end[i]
    s.context_tokens -= s.target[i] + gained(s, i, steps_run(s, i))
