"""What an engine said of itself in a probe, figure by figure, as report and terminal show it. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tuner.config.engine import KnobValue
from tuner.engineview import EngineView
from tuner.score import Score
from tuner.wording.numbers import latency, number, share

Knobs = Mapping[str, KnobValue]


@dataclass(frozen=True)
class Inside:
    """A figure: its name, its value in a probe of a server with these knobs, and how that is written.

    `is_bound`: whether the value is only known to be under what it says.
    """

    name: str
    value: Callable[[EngineView, Score, Knobs], float | None]
    write: Callable[[float | None], str]
    is_bound: Callable[[EngineView], bool] = lambda _view: False

    def text(self, view: EngineView, value: float | None) -> str:
        """The value as it is written."""
        return f"{'< ' if self.is_bound(view) else ''}{self.write(value)}"


def _two_digits(value: float | None) -> str:
    return number(value, 2)


FIGURES = (
    Inside("running", lambda view, _s, _k: view.running, _two_digits),
    Inside("waiting", lambda view, _s, _k: view.waiting, _two_digits),
    Inside("median wait", lambda view, _s, _k: view.queue_p50_s, latency, lambda view: view.queue_is_bound),
    Inside("tokens per step", lambda view, _s, _k: view.step_tokens, number),
    Inside("batching efficiency", lambda view, _s, knobs: efficiency(view, knobs), share),
    Inside("KV cache, peak", lambda view, _s, _k: view.kv_peak_frac, share),
    Inside("preemptions", lambda view, _s, _k: view.preemptions, number),
    Inside("prefix-cache hits", lambda view, _s, _k: view.cache_hit_frac, share),
    Inside("hits designed", lambda _v, score, _k: score.health.reusable_frac if score.health else None, share),
    Inside("of all guesses accepted", lambda view, _s, _k: view.accepted_frac, share),
)


def efficiency(view: EngineView, knobs: Knobs) -> float | None:
    """How much of the token budget a step used on average (0-1); None where there is no such budget."""
    budget = knobs.get("token_budget")
    if view.step_tokens is None or not isinstance(budget, int) or budget <= 0:
        return None
    return view.step_tokens / budget


def said_in(score: Score, knobs: Knobs) -> tuple[str, ...]:
    """What the engine said of itself in this probe, `median wait < 300 ms` for instance; () where it said nothing."""
    if score.engine is None or score.engine == EngineView(score.engine.scrapes):
        return ()
    values = [(figure, figure.value(score.engine, score, knobs)) for figure in FIGURES]
    return tuple(f"{figure.name} {figure.text(score.engine, value)}" for figure, value in values if value is not None)
