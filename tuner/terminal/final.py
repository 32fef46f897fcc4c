"""The final summary: what to deploy, how sure, the command, what it cost. Pure text, 80 columns."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

from tuner.config.engine import KnobValue
from tuner.config.plan import Plan
from tuner.outcome import Outcome
from tuner.summary import Point, Summary, VerdictWord
from tuner.terminal.scatter import Mark, staircase_plot
from tuner.wording.commands import command_lines, resume_command
from tuner.wording.comparison import Row, comparison, deployed
from tuner.wording.conclusion import (
    cautions,
    closest,
    closest_text,
    cost,
    counts,
    default_holds_nothing,
    headline,
    next_steps,
    sentence,
    what_breaks,
)
from tuner.wording.naming import naming_of, title, trial_name
from tuner.wording.numbers import device
from tuner.wording.simulation import predicted_against_measured

WIDTH = 78
LABEL = 12
"""Columns of a block's label, its indent included."""
TIE = "\u00a0"


def final_text(summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> str:
    """The summary as it is printed."""
    decided = (_confidence, _command, _table, _frontier)
    shown: dict[VerdictWord, Sequence[Callable[[Summary, Sequence[Outcome], Plan], list[str]]]] = {
        "deploy": decided,
        "keep-default": decided,
        "inconclusive": decided,
        "nothing-meets-slo": (_near_misses, _try_next),
        "interrupted": (_confidence, _resume, _command, _table, _frontier),
    }
    blocks = [_heading(summary, plan)]
    blocks += [block(summary, outcomes, plan) for block in shown[summary.verdict]]
    blocks += [_simulation(summary, plan), _ledger(summary, plan)]
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks if block) + "\n"


def _heading(summary: Summary, plan: Plan) -> list[str]:
    head = headline(summary)
    where = f"{summary.model} · {plan.slo.name} SLO · {plan.box.title}{' simulated' if summary.simulated else ''}"
    first = f"{head.glyph} {head.words}"
    room = max(2, WIDTH - len(first) - len(where))
    return [f"{first}{' ' * room}{where}", *_wrapped(sentence(summary, plan), "  ")]


def _confidence(summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> list[str]:
    """Which configuration, how sure, what to watch."""
    lines = []
    if summary.default is None:
        lines += _labelled("default", default_holds_nothing(outcomes, plan))
    point = summary.best
    if point is not None and (summary.default is None or point.trial != summary.default.trial):
        lines += _labelled(trial_name(point.trial), _name(outcomes, plan, point.engine, point.configuration))
    lines += _labelled("how sure", f"{summary.how_sure.upper()}: {summary.why}")
    for number, caution in enumerate(cautions(summary, plan)):
        lines += _labelled("" if number else "watch", caution)
    return lines


def _table(summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> list[str]:
    if summary.default is None and summary.best is None:
        return []
    return _columns(summary, comparison(summary, plan))


def _columns(summary: Summary, rows: Sequence[Row]) -> list[str]:
    """The rows under the names of the points that exist; one column where default and best are the same trial."""
    same = summary.default is not None and summary.best is not None and summary.default.trial == summary.best.trial
    cells = [("default", [row.default for row in rows])] if summary.default else []
    if summary.best and not same:
        cells.append((trial_name(summary.best.trial), [row.best for row in rows]))
    label = max(len(row.label) for row in rows) + 4
    widths = [max(len(text) for text in (name, *column)) + 3 for name, column in cells]
    lines = [" " * label + "".join(f"{name:>{width}}" for (name, _), width in zip(cells, widths, strict=True))]
    for index, row in enumerate(rows):
        figures = "".join(f"{column[index]:>{width}}" for (_, column), width in zip(cells, widths, strict=True))
        mark = {None: " ", True: "✓", False: "✗"}[row.holds]
        lines.append(f"  {row.label:<{label - 2}}{figures}  {mark} {row.note}")
    return lines


def _command(summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> list[str]:
    point = deployed(summary)
    if point is None:
        return []
    named = {"interrupted": "best so far, not confirmed", "inconclusive": "not shown to be better; to try it"}
    heading = [f"  {named[summary.verdict]}"] if summary.verdict in named else []
    return [*heading, *_indented(point.command)]


def _frontier(summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> list[str]:
    """Fewer than two points are no frontier."""
    curve = [(point.tok_s_per_user, point.throughput_tok_s_per_gpu) for point in summary.frontier]
    if len(set(curve)) < 2:
        return []
    marks = []
    if summary.default is not None:
        marks.append(_mark(summary.default, "■", "default"))
    if summary.best is not None and summary.best != summary.default:
        marks.append(_mark(summary.best, "◆", trial_name(summary.best.trial)))
    titles = ("tok/s/user", f"output tok/s per {device(plan)} (any load, in SLO or not)")
    return staircase_plot(curve, marks, titles)


def _mark(point: Point, glyph: str, word: str) -> Mark:
    return Mark(point.tok_s_per_user, point.throughput_tok_s_per_gpu, glyph, word)


def _near_misses(summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> list[str]:
    lines = []
    nearest = closest(outcomes)
    if nearest is not None:
        lines += _labelled("closest", f"{trial_name(nearest.trial)}  {closest_text(nearest, plan)}")
        lines += _labelled("", _name(outcomes, plan, nearest.configuration.engine, nearest.configuration.knobs))
    lines += _labelled("breaks", what_breaks(outcomes))
    return lines + _labelled("how sure", f"{summary.how_sure.upper()}: {summary.why}")


def _try_next(summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> list[str]:
    steps = next_steps(outcomes, plan)
    width = max(len(option) for option, _ in steps) + 3
    lines = ["  try, cheapest first"]
    for number, (option, what) in enumerate(steps, start=1):
        first = f"   {number}  {option:<{width}}"
        lines += _wrapped(what, " " * len(first), first)
    return lines


def _resume(summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> list[str]:
    return ["  go on with", *_indented(resume_command(plan))]


def _simulation(summary: Summary, plan: Plan) -> list[str]:
    """Predicted against measured."""
    said = predicted_against_measured(summary, plan)
    return [line for number, text in enumerate(said) for line in _labelled("" if number else "predicted", text)]


def _ledger(summary: Summary, plan: Plan) -> list[str]:
    lines = _wrapped(f"{counts(summary)} · {cost(summary, plan)}", "  ")
    return lines + (_labelled("report", f"{summary.dir}/report.html") if summary.dir else [])


def _indented(command: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in command_lines(command, WIDTH - 2)]


def _name(outcomes: Sequence[Outcome], plan: Plan, engine: str, knobs: Mapping[str, KnobValue]) -> str:
    """A configuration's name, its values tied to their knobs."""
    name = title(naming_of(plan, [outcome.configuration for outcome in outcomes]), engine, knobs)
    return name.replace(" ", TIE).replace(f"{TIE}·{TIE}", " · ")


def _labelled(label: str, text: str) -> list[str]:
    return _wrapped(text, " " * LABEL, f"  {label:<{LABEL - 2}}")


def _wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    """`text` in lines that part neither a number from its unit nor the ends of an interval."""
    tied = re.sub(r"(?<=\d) | (?=…)|(?<=…) ", TIE, text)
    start = indent if first is None else first
    lines = textwrap.wrap(tied, WIDTH, initial_indent=start, subsequent_indent=indent, break_on_hyphens=False)
    return [line.replace(TIE, " ") for line in lines]
