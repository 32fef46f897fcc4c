"""The heart of a simulated engine: what happens to requests, from the queue through the batch to their last token.

It has no clock: whoever drives it says when a step has ended. A step is planned (`vllm_order`, `sglang_order`), takes
its time, and is finished here. How the state is kept, and why that is fast: `state`.
"""

from bisect import bisect_right
from operator import add as plus
from operator import sub as minus

from launchers.sim.prefixcache import fresh_name, hold, keep, release, take, with_room
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
    blocks_for,
    chunk_times_s,
    gained,
    growth_now,
    held,
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
    _take(s, growth_now(s))


def give_chunk(s: Scheduler, i: int, tokens: int) -> None:
    """Compute `tokens` more of a prompt in the step being planned; the blocks for it are free."""
    computed, reached = s.computed[i], s.computed[i] + tokens
    need = blocks_for(s, reached) - s.blocks[i]
    _take(s, need)
    s.blocks[i] += need
    s.chunks.append((i, tokens))
    if s.cache and s.names[i]:
        size = s.settings.block_tokens
        s.owned[i] += keep(s.cache, s.names[i][computed // size : reached // size])


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
        s.computed[i] += tokens
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
            _take(s, need)
        now_s += step_s(0, 0, 0, s.answering, s.context_tokens)
        _answer(s, now_s)
    return now_s


def preempt_last(s: Scheduler) -> None:
    """Throw the request that was admitted last out of the batch; it will be computed again from its start."""
    i = s.admitted.pop()
    while s.place[i] != len(s.admitted) or s.phase[i] not in (PREFILLING, ANSWERING):
        i = s.admitted.pop()
    if s.phase[i] == ANSWERING:
        s.earlier[i] = chunk_times_s(s, i)
        s.said[i] = tokens_said(s, i)
    if s.settings.prefix_caching:
        _remember(s, i)
    _leave(s, i)
    s.phase[i] = WAITING
    s.computed[i] = s.blocks[i] = 0
    s.target[i] = s.prompt[i] + s.said[i]
    s.run_start[i] = s.run_end[i] = NO_RUN
    s.guessed.pop(i, None)
    s.waiting.appendleft(i)
    s.preemptions += 1


def _remember(s: Scheduler, i: int) -> None:
    """Name the full blocks of a request that is about to be preempted: it finds again what is not forgotten by then.

    vLLM keeps prompt and answer, SGLang what was computed as a prompt.
    """
    if s.cache is None:
        # Until now no block had a name, so that their order did not matter.
        s.cache = with_room(s.free_blocks)
    full = _full_blocks(s, i) if s.settings.policy == "vllm" else s.computed[i] // s.settings.block_tokens
    missing = full - len(s.names[i])
    fresh = [fresh_name(s.cache) for _ in range(missing)]
    s.names[i] = [*s.names[i], *fresh]
    s.owned[i] += fresh


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
    _book(s, i, 1)


def _end(s: Scheduler, i: int) -> None:
    _release(s, i)
    s.phase[i] = ENDED
    s.ended.append(i)


def _leave(s: Scheduler, i: int) -> int:
    """Take a request out of the batch before its end. Returns the step after the last it has run."""
    if s.phase[i] == PREFILLING:
        s.prefilling.remove(i)
        _release(s, i)
        return NO_RUN
    _book(s, i, -1)
    s.ends[s.run_end[i] - 1].remove(i)
    _leave_batch(s, i)
    _release(s, i)
    return len(s.step_s)


def _leave_batch(s: Scheduler, i: int) -> None:
    s.answering -= 1
    s.ends_sum -= s.run_end[i]
    s.context_tokens -= s.target[i] + gained(s, i, steps_run(s, i))


def _book(s: Scheduler, i: int, sign: int) -> None:
    """Add (1) or cancel (−1) what an answer will need in the steps to come."""
    if s.settings.drafts:
        _book_guesses(s, i, sign)
        return
    start, now, size = s.run_start[i], len(s.step_s), s.settings.block_tokens
    first = now + (start - now - s.target[i]) % size
    for step in range(first, s.run_end[i], size):
        s.growth[step] += sign


def _book_guesses(s: Scheduler, i: int, sign: int) -> None:
    """`_book` where steps yield several tokens: these are added to those of the others, and a block is needed in the
    step whose guesses could reach into it; see `held`."""
    start, now, end, tokens = s.run_start[i], len(s.step_s), s.run_end[i], s.guessed[i].tokens
    said = tokens[now - start :]
    s.gains[now:end] = map(plus if sign > 0 else minus, s.gains[now:end], map(minus, said[1:], said))
    reach = s.target[i] + 1 + s.settings.drafts
    for block in range(held(s, i, now - start), held(s, i, end - start)):
        step = start + bisect_right(tokens, block * s.settings.block_tokens - reach)
        s.growth[step] += sign


def _take(s: Scheduler, blocks: int) -> None:
    s.free_blocks -= blocks
    if s.cache and blocks:
        take(s.cache, blocks)


def _release(s: Scheduler, i: int) -> None:
    blocks = held(s, i, steps_run(s, i)) if s.phase[i] == ANSWERING else s.blocks[i]
    if s.cache:
        full = _full_blocks(s, i)
        s.free_blocks += release(s.cache, s.owned[i], full - len(s.owned[i]), blocks - full)
        s.owned[i] = []
    else:
        s.free_blocks += blocks


def _full_blocks(s: Scheduler, i: int) -> int:
    """Blocks of a running request that nothing can be added to."""
    answered = gained(s, i, steps_run(s, i)) if s.phase[i] == ANSWERING else 0
    return (s.computed[i] + answered) // s.settings.block_tokens
