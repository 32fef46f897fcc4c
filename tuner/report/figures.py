"""The figures of the page: each with its question and note, and what to say where there is nothing to show."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.report.charts import Axes, Drawing, Level, Picture, picture
from tuner.report.dots import (
    Dot,
    goodput_dots,
    load_dots,
    load_unit,
    rivals,
    search_dots,
    speed_dots,
)
from tuner.report.intervals import intervals
from tuner.report.study import Study
from tuner.summary import Summary
from tuner.wording.naming import trial_name
from tuner.wording.numbers import device, number, share, wanted_share

RIVALS_DRAWN = 3
MANY_DOTS = 800
"""Beyond this only each trial's own best probe is drawn, beside all those of the leading trials."""
HEADROOM = 0.8
"""Share of its goodput that a server should be planned for: past the knee attainment falls at once."""


LADDER = 10
"""The axis of attainment begins at a multiple of this, %: what counts happens near 100."""


@dataclass(frozen=True)
class Figure:
    """A section of the page. `legend` holds (style class, word); `summary` is read out before the pictures."""

    anchor: str
    question: str
    subtitle: str
    note: str
    pictures: tuple[Picture, ...]
    legend: tuple[tuple[str, str], ...] = ()
    summary: str = ""


def figures(study: Study) -> list[Figure]:
    """Sureness, load, speed, search: the order of the page. Those that would be empty are left out."""
    return [figure for figure in (_sure(study), _load(study), _speed(study), _search(study)) if figure]


def _sure(study: Study) -> Figure | None:
    if not study.values:
        return None
    alone = len(study.values) == 1
    subtitle = "How far do fresh runs scatter?" if alone else "Do the winner and the default overlap?"
    seeds = max(len(value.per_seed) for value in study.values.values())
    note = (
        f"Fresh runs on {seeds} seeds that had no part in choosing. Bar: 95 % interval of the mean; line: the mean; "
        "marks: the seeds."
    )
    if not alone:
        note += " Seeds are paired, so a gain can be clear although bars overlap."
    summary = f"{len(study.values)} finalists"
    return Figure("sure", "How sure are we?", subtitle, note, (intervals(study),), summary=summary)


def _load(study: Study) -> Figure | None:
    plan, cast = study.plan, study.cast
    leads = [outcome for outcome in study.outcomes if outcome.trial in cast.leads]
    drawn = [*rivals(study.outcomes, cast, RIVALS_DRAWN), *leads]
    lines = [line for outcome in drawn if (line := load_dots(outcome, cast, plan))]
    if not lines:
        return None
    per, unit = device(plan), load_unit(study.outcomes)
    dots = [dot for line in lines for dot in line]
    lowest = LADDER * math.floor(min(*(dot.y for dot in dots), 100 - LADDER) / LADDER)
    axes = Axes(f"offered load, {unit} per {per}", "requests inside the SLO, %", (lowest, 100))
    words = [
        (_slope(line, (lowest + 100) / 2), cast.name(line[0].trial)) for line in lines if line[0].role != "other"
    ]
    attained = Drawing(axes, dots, lines, level=_needed(study), words=words)
    good_lines = [line for outcome in drawn if (line := goodput_dots(outcome, cast, plan))]
    good_dots = [dot for line in good_lines for dot in line]
    goodput = Drawing(Axes(axes.x, f"goodput: requests/s inside the SLO per {per}"), good_dots, good_lines)
    return Figure(
        "load",
        "How much load does it hold?",
        "At what rate does the SLO break?",
        _load_note(study.summary, per),
        (picture(attained), picture(goodput)),
        _legend(study, dots),
        f"{len(dots)} probes",
    )


def _needed(study: Study) -> Level:
    wanted = study.plan.slo.attainment
    return Level(100 * wanted, f"needed: {wanted_share(wanted)}")


def _slope(line: Sequence[Dot], middle: float) -> Dot:
    """The dot nearest to the middle of the fall: where a curve's name has room."""
    return min(line, key=lambda dot: abs(dot.y - middle))


def _load_note(summary: Summary, per: str) -> str:
    best = summary.best
    if best is None or "rate_rps" not in best.load:
        return ""
    planned = number(HEADROOM * best.goodput_rps_per_gpu, 2)
    return (
        f"Past the knee attainment falls fast: plan for {HEADROOM:.0%} of the goodput, {planned} req/s per {per}. "
        "Marks are the search's own short probes; the decision above rests on longer ones with fresh seeds. Goodput "
        "counts the requests that really came, which random arrivals make differ a little from the load."
    )


def _speed(study: Study) -> Figure | None:
    plan, cast = study.plan, study.cast
    dots = speed_dots(study.outcomes, cast, plan, study.summary.frontier)
    if not dots:
        return None
    shown = dots
    if len(dots) > MANY_DOTS:
        shown = [dot for dot in dots if dot.is_best or dot.on_frontier or dot.trial in cast.leads]
    per = device(plan)
    axes = Axes("speed for one user, output tokens/s (faster →)", f"output tokens/s per {per}", x_zero=False)
    lines = _lines_of(shown, study)
    words = [(next((dot for dot in line if dot.is_best), line[0]), cast.name(line[0].trial)) for line in lines]
    stairs = [(point.tok_s_per_user, point.throughput_tok_s_per_gpu) for point in study.summary.frontier]
    drawing = Drawing(axes, shown, lines, stairs=stairs, stairs_style="step-before", words=words)
    note = "Each mark is one load of one configuration. Marks above the frontier are probes that were stopped early."
    if len(shown) < len(dots):
        note += f" Of {len(dots)} probes, one per configuration is drawn."
    return Figure(
        "speed",
        "What does user speed cost?",
        "How much throughput does faster output for one user take?",
        note,
        (picture(drawing),),
        (*_legend(study, shown), ("steps", "frontier")),
        f"{len(dots)} probes",
    )


def _lines_of(dots: Sequence[Dot], study: Study) -> list[list[Dot]]:
    """The leading trials' dots, each trial's from slow to fast users."""
    lines = [[dot for dot in dots if dot.trial == trial] for trial in sorted(study.cast.leads)]
    return [sorted(line, key=lambda dot: dot.x) for line in lines if line]


def _search(study: Study) -> Figure | None:
    feasible = any(outcome.holds_slo for outcome in study.outcomes)
    per = device(study.plan)
    dots = search_dots(study.outcomes, study.cast, study.plan, by_attainment=not feasible)
    if all(dot.y == 0 for dot in dots):
        return None
    x = f"{per}-hours spent on trials"
    if feasible:
        drawing = Drawing(Axes(x, f"goodput, req/s per {per}"), dots, stairs=_best_so_far(dots))
        question, subtitle = "Was the search long enough?", "Would more trials find something better?"
        note = _stall(dots)
    else:
        drawing = Drawing(Axes(x, "requests inside the SLO at best, %", (0, 100)), dots, level=_needed(study))
        question, subtitle = "How far off is it?", "Is any configuration near the SLO?"
        note = f"The nearest: {share(max(dot.y for dot in dots) / 100)} of requests inside the SLO."
    legend = (*_legend(study, dots), *([("steps", "best so far")] if feasible else []))
    return Figure("search", question, subtitle, note, (picture(drawing),), legend, f"{len(dots)} trials")


def _legend(study: Study, dots: Sequence[Dot]) -> tuple[tuple[str, str], ...]:
    """The marks that occur."""
    words = {
        "deploy": study.cast.word,
        "default": "engine default",
        "other": "other configurations",
        "failed": "did not run",
    }
    roles = {dot.role for dot in dots}
    misses = (("miss", "hollow: misses the SLO"),) if any(not dot.holds for dot in dots) else ()
    return (*((role, word) for role, word in words.items() if role in roles), *misses)


def _best_so_far(dots: Sequence[Dot]) -> list[tuple[float, float]]:
    best, stairs = 0.0, []
    for dot in dots:
        best = max(best, dot.y)
        stairs.append((dot.x, best))
    return stairs


def _stall(dots: Sequence[Dot]) -> str:
    """How many trials came after the best."""
    top = max(dots, key=lambda dot: dot.y)
    after = len(dots) - 1 - list(dots).index(top)
    if after == 0:
        return f"The last trial, {trial_name(top.trial)}, is the best: more trials may find a better one."
    later = f"{after} trials" if after > 1 else "one trial"
    return f"The best came with {trial_name(top.trial)}; {later} after it found nothing better."
