"""The table of what engines said of themselves: one row a trial, at its best load. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.engineview import EngineView
from tuner.outcome import Outcome
from tuner.report.study import Cast
from tuner.report.table import Cell, Table, TableRow
from tuner.score import Score
from tuner.wording.naming import Naming, ending, title, worth
from tuner.wording.numbers import latency, number, share


@dataclass(frozen=True)
class _Column:
    """A figure, and how it is written."""

    heading: str
    value: Callable[[Outcome, Score, EngineView], float | None]
    text: Callable[[float | None], str]
    is_bound: Callable[[EngineView], bool] = lambda _view: False


def _two_digits(value: float | None) -> str:
    return number(value, 2)


COLUMNS = (
    _Column("running", lambda _o, _s, view: view.running, _two_digits),
    _Column("waiting", lambda _o, _s, view: view.waiting, _two_digits),
    _Column("median wait", lambda _o, _s, view: view.queue_p50_s, latency, lambda view: view.queue_is_bound),
    _Column("tokens per step", lambda _o, _s, view: view.step_tokens, number),
    _Column("batching efficiency", lambda outcome, _s, view: efficiency(outcome, view), share),
    _Column("KV cache, peak", lambda _o, _s, view: view.kv_peak_frac, share),
    _Column("preemptions", lambda _o, _s, view: view.preemptions, number),
    _Column("prefix-cache hits", lambda _o, _s, view: view.cache_hit_frac, share),
    _Column("hits designed", lambda _o, score, _v: score.health.reusable_frac if score.health else None, share),
    _Column("of all guesses accepted", lambda _o, _s, view: view.accepted_frac, share),
)


def inside(outcomes: Sequence[Outcome], cast: Cast, naming: Naming) -> Table | None:
    """The trials whose engine said something, the best first; columns of which none did are left out."""
    seen = [
        (outcome, score, score.engine)
        for outcome in sorted(outcomes, key=worth)
        if (score := outcome.best) is not None and score.engine is not None
    ]
    columns = [column for column in COLUMNS if any(column.value(*one) is not None for one in seen)]
    if not columns:
        return None
    rows = []
    for outcome, score, view in seen:
        values = [(column, column.value(outcome, score, view)) for column in columns]
        cells = [
            Cell(f"{'< ' if column.is_bound(view) else ''}{column.text(value)}", -1 if value is None else value)
            for column, value in values
        ]
        name = title(naming, outcome.configuration.engine, outcome.configuration.knobs)
        first = (Cell(cast.name(outcome.trial), outcome.trial, is_number=False), Cell(name, name, is_number=False))
        rows.append(
            TableRow(outcome.trial, name, cast.role(outcome.trial), ending(outcome), (*first, *cells), detail="")
        )
    return Table(("id", "configuration", *(column.heading for column in columns)), tuple(rows))


def efficiency(outcome: Outcome, view: EngineView) -> float | None:
    """How much of the token budget a step used on average (0-1); None where there is no such budget."""
    budget = outcome.configuration.knobs.get("token_budget")
    if view.step_tokens is None or not isinstance(budget, int) or budget <= 0:
        return None
    return view.step_tokens / budget
