"""The table of the best trials so far, with as many columns as the width has room for. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from tuner.outcome import Outcome
from tuner.terminal.progress import Progress
from tuner.wording.comparison import at_percentile, percentile_name
from tuner.wording.naming import METRICS, ending, title, trial_name, worth, worth_text
from tuner.wording.numbers import latency, share

ALL_COLUMNS_FROM = 90
ATTAINMENT_FROM = 70
"""Columns of a terminal that has room for the latencies, for the share in the SLO."""
ENDING_WIDTH = 22
LEAST_ROWS = 3


@dataclass(frozen=True)
class _Column:
    """`width` 0 takes what the others leave; numbers stand to the right."""

    name: str
    width: int
    show: Callable[[Outcome], str]
    right: bool = True


def ranking(progress: Progress, width: int, room: int) -> list[Text]:
    """A heading and the best trials in `room` lines, the default among them whatever its rank; nothing if too few."""
    if room < LEAST_ROWS or not progress.ended:
        return []
    columns = _columns(progress, width)
    shown = sorted(progress.ended, key=worth)[: room - 1]
    if progress.default is not None and all(outcome.trial != progress.default.trial for outcome in shown):
        shown[-1] = progress.default
    heading = _line([column.name for column in columns], columns, width)
    heading.stylize("dim")
    lines = [heading]
    for outcome in shown:
        line = _line([column.show(outcome) for column in columns], columns, width)
        line.stylize(_style(outcome, progress))
        lines.append(line)
    return lines


def _columns(progress: Progress, width: int) -> list[_Column]:
    slo = progress.plan.slo
    which = percentile_name(slo.attainment)
    columns = [
        _Column("#", 5, lambda outcome: trial_name(outcome.trial)),
        _Column("goodput", 7, worth_text),
    ]
    if width >= ATTAINMENT_FROM:
        columns.append(_Column("in SLO", 7, lambda outcome: share(outcome.best.attainment if outcome.best else None)))
    if width >= ALL_COLUMNS_FROM:
        columns += [_latency(metric, which, slo.attainment) for metric in slo.limits.present()]
    name = _Column(
        "differs from the default",
        0,
        lambda outcome: title(progress.naming, outcome.configuration.engine, outcome.configuration.knobs),
        right=False,
    )
    return [*columns, name, _Column("ended", ENDING_WIDTH, ending, right=False)]


def _latency(metric: str, which: str, attainment: float) -> _Column:
    def show(outcome: Outcome) -> str:
        return latency(at_percentile(outcome.best, metric, attainment) if outcome.best else None)

    return _Column(f"{METRICS[metric]} {which}", 8, show)


def _line(cells: Sequence[str], columns: Sequence[_Column], width: int) -> Text:
    taken = sum(column.width for column in columns) + 2 * (len(columns) - 1)
    parts = []
    for cell, column in zip(cells, columns, strict=True):
        space = column.width or max(0, width - taken)
        text = cell if len(cell) <= space else f"{cell[: max(0, space - 1)]}…"
        parts.append(text.rjust(space) if column.right else text.ljust(space))
    return Text("  ".join(parts).rstrip())


def _style(outcome: Outcome, progress: Progress) -> str:
    if progress.best is not None and outcome.trial == progress.best.trial:
        return "blue"
    if outcome.configuration.is_default:
        return "yellow"
    return "" if outcome.holds_slo else "dim"
