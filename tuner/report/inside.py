"""The table of what engines said of themselves: one row a trial, at its best load. Pure."""

from collections.abc import Sequence

from tuner.outcome import Outcome
from tuner.report.study import Cast
from tuner.report.table import Cell, Table, TableRow
from tuner.wording.inside import FIGURES
from tuner.wording.naming import Naming, ending, title, worth


def inside(outcomes: Sequence[Outcome], cast: Cast, naming: Naming) -> Table | None:
    """The trials whose engine said something, the best first; figures that none of them has are left out."""
    seen = [
        (outcome, score, score.engine)
        for outcome in sorted(outcomes, key=worth)
        if (score := outcome.best) is not None and score.engine is not None
    ]
    known = [
        figure
        for figure in FIGURES
        if any(figure.value(view, score, one.configuration.knobs) is not None for one, score, view in seen)
    ]
    if not known:
        return None
    rows = []
    for outcome, score, view in seen:
        knobs = outcome.configuration.knobs
        values = [(figure, figure.value(view, score, knobs)) for figure in known]
        cells = [Cell(figure.text(view, value), -1 if value is None else value) for figure, value in values]
        name = title(naming, outcome.configuration.engine, knobs)
        first = (Cell(cast.name(outcome.trial), outcome.trial, is_number=False), Cell(name, name, is_number=False))
        rows.append(
            TableRow(outcome.trial, name, cast.role(outcome.trial), ending(outcome), (*first, *cells), detail="")
        )
    return Table(("id", "configuration", *(figure.name for figure in known)), tuple(rows))
