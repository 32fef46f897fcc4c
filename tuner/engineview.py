"""EngineView: what an engine said of itself while it was probed, from scrapes of its metrics. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

Gauge = Literal["running", "waiting", "kv_used_frac", "accepted_frac"]
"""A value at one moment: requests in the batch and in the queue, shares (0–1) of the KV cache in use and of guessed
tokens that were right."""

Counter = Literal[
    "prompt_tokens",
    "generated_tokens",
    "looked_up_tokens",
    "hit_tokens",
    "preemptions",
    "steps",
    "step_tokens",
    "guessed_tokens",
    "accepted_tokens",
]
"""A count since the server started: prompt tokens looked up in the prefix cache and found there; steps and the tokens
computed in them; tokens guessed by speculation and accepted."""

Name = Gauge | Counter

GAUGES: tuple[Gauge, ...] = get_args(Gauge)
COUNTERS: tuple[Counter, ...] = get_args(Counter)


@dataclass(frozen=True)
class EngineFacts:
    """What a server says it was started with: the engine's version ("" if it does not say), the values that knobs
    have really taken, by their neutral names, and how many tokens its KV cache holds."""

    version: str = ""
    knobs: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    kv_tokens: int | None = None


@dataclass(frozen=True)
class Scrape:
    """One look at the metrics, `at_s` after the probe began (before it: negative). What is not exported is not in it.

    `queue_counts[k]` requests have waited at most `queue_bounds_s[k]` for their place in the batch since the server
    started; bounds ascend to infinity. Both are () where the engine does not say.
    """

    at_s: float
    values: Mapping[Name, float]
    queue_bounds_s: tuple[float, ...] = ()
    queue_counts: tuple[float, ...] = ()


@dataclass(frozen=True)
class EngineView:
    """One probe as the engine itself saw it; None where it says nothing.

    `running` and `waiting` are medians within the window, `kv_peak_frac` the highest use of the KV cache seen in it.
    The rest is about all that happened from the window's beginning to the probe's end, but `cache_hit_frac`, the
    share of looked up prompt tokens that the prefix cache had, about the whole probe. `step_tokens` is the mean
    number of tokens in a step; `accepted_frac` the share of guessed tokens that were right; `queue_p50_s` the median
    wait for a place in the batch, or where `queue_is_bound` a time that it was under. `scrapes`: how often it was
    asked; 0 where a simulation counted itself.
    """

    scrapes: int = 0
    running: float | None = None
    waiting: float | None = None
    kv_peak_frac: float | None = None
    preemptions: float | None = None
    cache_hit_frac: float | None = None
    step_tokens: float | None = None
    accepted_frac: float | None = None
    queue_p50_s: float | None = None
    queue_is_bound: bool = False
    prompt_tokens: float | None = None
    generated_tokens: float | None = None


def view_of(scrapes: Sequence[Scrape], warmup_s: float, end_s: float) -> EngineView | None:
    """What `scrapes`, in order of time, say of a probe whose window is [`warmup_s`, `end_s`); None without any."""
    if not scrapes:
        return None
    before = [scrape for scrape in scrapes if scrape.at_s <= warmup_s]
    first, last = before[-1] if before else scrapes[0], scrapes[-1]
    inside = [scrape for scrape in scrapes if warmup_s <= scrape.at_s < end_s]
    accepted = _share(first, last, "accepted_tokens", "guessed_tokens")
    queue_p50_s, queue_is_bound = _queue_p50_s(first, last)
    return EngineView(
        scrapes=len(scrapes),
        running=_over(inside, "running", np.median),
        waiting=_over(inside, "waiting", np.median),
        kv_peak_frac=_over(inside, "kv_used_frac", np.max),
        preemptions=_risen(first, last, "preemptions"),
        cache_hit_frac=_share(scrapes[0], last, "hit_tokens", "looked_up_tokens"),
        step_tokens=_share(first, last, "step_tokens", "steps"),
        accepted_frac=_over(inside, "accepted_frac", np.mean) if accepted is None else accepted,
        queue_p50_s=queue_p50_s,
        queue_is_bound=queue_is_bound,
        prompt_tokens=_risen(first, last, "prompt_tokens"),
        generated_tokens=_risen(first, last, "generated_tokens"),
    )


def together(views: Sequence[EngineView]) -> EngineView:
    """The copies of a data-parallel server as one: counts add up, shares and means are averaged."""
    if len(views) == 1:
        return views[0]
    counts = {"preemptions", "prompt_tokens", "generated_tokens", "running", "waiting"}
    values: dict[str, float | None] = {}
    for name in EngineView.__dataclass_fields__:
        known = [value for view in views if (value := getattr(view, name)) is not None]
        values[name] = None if not known else sum(known) if name in counts else sum(known) / len(known)
    values["queue_is_bound"] = any(view.queue_is_bound for view in views)
    return EngineView(**{**values, "scrapes": views[0].scrapes})  # type: ignore[arg-type]


def _over(scrapes: Sequence[Scrape], name: Gauge, summary: Callable[[list[float]], np.floating]) -> float | None:
    seen = [scrape.values[name] for scrape in scrapes if name in scrape.values]
    return float(summary(seen)) if seen else None


def _risen(first: Scrape, last: Scrape, name: Counter) -> float | None:
    """By how much a counter rose. One that was not there yet had not counted anything."""
    if name not in last.values or first is last:
        return None
    return last.values[name] - first.values.get(name, 0.0)


def _share(first: Scrape, last: Scrape, part: Counter, whole: Counter) -> float | None:
    parts, wholes = _risen(first, last, part), _risen(first, last, whole)
    return parts / wholes if parts is not None and wholes else None


def _queue_p50_s(first: Scrape, last: Scrape) -> tuple[float | None, bool]:
    """The median of a histogram, linear within its bucket, and whether it is only known to be under that: so it is in
    the first bucket, which holds every queue that hardly is one. Of the last, open one only the lower bound is known.
    """
    if not last.queue_counts or first is last:
        return None, False
    earlier = np.array(first.queue_counts or [0.0] * len(last.queue_counts))
    counts, bounds_s = np.array(last.queue_counts) - earlier, np.array(last.queue_bounds_s)
    if counts[-1] <= 0:
        return None, False
    bucket = int(np.searchsorted(counts, counts[-1] / 2))
    if bucket == 0:
        return float(bounds_s[0]), True
    low_s, below = bounds_s[bucket - 1], counts[bucket - 1]
    if np.isinf(bounds_s[bucket]):
        return float(low_s), False
    share = (counts[-1] / 2 - below) / (counts[bucket] - below)
    return float(low_s + share * (bounds_s[bucket] - low_s)), False
