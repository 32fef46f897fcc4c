"""The figures of the page: each with its question and note, and what to say where there is nothing to show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
MISSES = ("miss", "hollow: misses the SLO")


@dataclass(frozen=True)
class Figure:
    """A section of the page. Without pictures there is nothing to draw, and `note` says why."""

    anchor: str
    question: str
    subtitle: str
    note: str
    pictures: tuple[Picture, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    summary: str = ""


def figures(study: Study) -> list[Figure]:
    """Sureness, load, speed, search: the order of the page."""
    return [_sure(study), _load(study), _speed(study), _search(study)]


def _sure(study: Study) -> Figure:
    empty = Figure(
        "sure", "How sure are we?", "Do the winner and the default overlap?", "Nothing was measured again."
    )
    if not study.values:
        return empty
    seeds = max(len(value.per_seed) for value in study.values.values())
    note = (
        f"Fresh runs on {seeds} seeds that had no part in choosing. Bar: 95 % interval of the mean; line: the mean; "
        "marks: the seeds. Seeds are paired, so a gain can be clear although bars overlap."
    )
    return replace(empty, note=note, pictures=(intervals(study),), summary=f"{len(study.values)} finalists")


def _load(study: Study) -> Figure:
    empty = Figure("load", "How much load does it hold?", "At what rate does the SLO break?", "No load was measured.")
    plan, cast = study.plan, study.cast
    leads = [outcome for outcome in study.outcomes if outcome.trial in cast.leads]
    drawn = [*rivals(study.outcomes, cast, RIVALS_DRAWN), *leads]
    lines = [line for outcome in drawn if (line := load_dots(outcome, cast, plan))]
    if not lines:
        return empty
    per, unit = device(plan), load_unit(study.outcomes)
    dots = [dot for line in lines for dot in line]
    axes = Axes(f"offered load, {unit} per {per}", "requests inside the SLO, %", (0, 100))
    need = Level(100 * plan.slo.attainment, f"needed: {wanted_share(plan.slo.attainment)}")
    words = [(_slope(line), cast.name(line[0].trial)) for line in lines if line[0].role != "other"]
    attained = Drawing(axes, dots, lines, level=need, words=words)
    good_lines = [line for outcome in drawn if (line := goodput_dots(outcome, cast, plan))]
    good_dots = [dot for line in good_lines for dot in line]
    goodput = Drawing(Axes(axes.x, f"goodput: requests/s inside the SLO per {per}"), good_dots, good_lines)
    return replace(
        empty,
        note=_load_note(study.summary, per),
        pictures=(picture(attained), picture(goodput)),
        legend=(*_marks(study), MISSES),
        summary=f"{len(dots)} probes",
    )


def _marks(study: Study) -> tuple[tuple[str, str], ...]:
    return (("deploy", study.cast.word), ("default", "engine default"), ("other", "other configurations"))


def _slope(line: Sequence[Dot]) -> Dot:
    """The dot nearest to the middle of the fall: where a curve's name has room."""
    return min(line, key=lambda dot: abs(dot.y - 50))


def _load_note(summary: Summary, per: str) -> str:
    best = summary.best
    if best is None or "rate_rps" not in best.load:
        return ""
    planned = number(HEADROOM * best.goodput_rps_per_gpu, 2)
    return f"Past the knee attainment falls fast: plan for {HEADROOM:.0%} of the goodput, {planned} req/s per {per}."


def _speed(study: Study) -> Figure:
    subtitle = "How much throughput does faster output for one user take?"
    empty = Figure("speed", "What does user speed cost?", subtitle, "No load was offered in an open loop.")
    plan, cast = study.plan, study.cast
    dots = speed_dots(study.outcomes, cast, plan, study.summary.frontier)
    if not dots:
        return empty
    shown = (
        dots
        if len(dots) <= MANY_DOTS
        else [dot for dot in dots if dot.is_best or dot.on_frontier or dot.trial in cast.leads]
    )
    per = device(plan)
    axes = Axes("speed for one user, output tokens/s (faster →)", f"output tokens/s per {per}", x_zero=False)
    leads = [dot for dot in shown if dot.trial in cast.leads]
    lines = [sorted((dot for dot in leads if dot.trial == trial), key=lambda dot: dot.x) for trial in _trials(leads)]
    words = [(next((dot for dot in line if dot.is_best), line[0]), cast.name(line[0].trial)) for line in lines]
    stairs = [(point.tok_s_per_user, point.throughput_tok_s_per_gpu) for point in study.summary.frontier]
    drawing = Drawing(axes, shown, lines, stairs=stairs, stairs_style="step-before", words=words)
    note = "Each mark is one load of one configuration. Steps: the frontier; nothing measured to the end lies above."
    if len(shown) < len(dots):
        note += f" Of {len(dots)} probes, one per configuration is drawn."
    return replace(
        empty,
        note=note,
        pictures=(picture(drawing),),
        legend=(*_marks(study), MISSES, ("steps", "frontier")),
        summary=f"{len(dots)} probes",
    )


def _search(study: Study) -> Figure:
    feasible = any(outcome.holds_slo for outcome in study.outcomes)
    question = "Was the search long enough?" if feasible else "How far off is it?"
    subtitle = "Would more trials find something better?" if feasible else "Is any configuration near the SLO?"
    empty = Figure("search", question, subtitle, "No trial ended.")
    plan, per = study.plan, device(study.plan)
    dots = search_dots(study.outcomes, study.cast, plan, by_attainment=not feasible)
    if not dots:
        return empty
    x = f"{per}-hours spent on trials"
    if feasible:
        drawing = Drawing(Axes(x, f"goodput, req/s per {per}"), dots, stairs=_best_so_far(dots))
        note = _stall(dots)
    else:
        need = Level(100 * plan.slo.attainment, f"needed: {wanted_share(plan.slo.attainment)}")
        drawing = Drawing(Axes(x, "requests inside the SLO at best, %", (0, 100)), dots, level=need)
        note = f"The nearest: {share(max(dot.y for dot in dots) / 100)} of requests inside the SLO."
    steps = (("steps", "best so far"),) if feasible else ()
    return replace(
        empty,
        note=note,
        pictures=(picture(drawing),),
        legend=(*_marks(study), MISSES, ("failed", "did not run"), *steps),
        summary=f"{len(dots)} trials",
    )


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


def _trials(dots: Sequence[Dot]) -> list[int]:
    return list(dict.fromkeys(dot.trial for dot in dots))
