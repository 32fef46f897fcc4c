"""The page: a study's values put into the template, in the order in which a reader asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

import tuner
from tuner import record
from tuner.config.plan import Plan
from tuner.confirm import values_of
from tuner.outcome import Outcome
from tuner.report.figures import figures
from tuner.report.inside import inside
from tuner.report.study import Study
from tuner.report.table import table_of
from tuner.space import spaces_of
from tuner.summary import Point, Summary
from tuner.wording.commands import command_lines, study_command
from tuner.wording.comparison import at_percentile, comparison, deployed, percentile_name
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
from tuner.wording.fluidity import fluidity_meaning, fluidity_rows
from tuner.wording.naming import METRICS, Naming, bound_text, naming_of, slo_text, title, trial_name
from tuner.wording.numbers import (
    DASH,
    device,
    dollars,
    dollars_per_million_tokens,
    duration,
    goodput,
    latency,
    number,
    share,
    wanted_share,
)
from tuner.wording.simulation import predicted_against_measured, simulated_engine

COMMAND_WIDTH = 88


@dataclass(frozen=True)
class Kpi:
    """A figure in large type, its name above, its context below."""

    name: str
    value: str
    context: str


def write_report(folder: Path, summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> Path:
    """Write `report.html` into `folder`: one file that loads nothing. Returns its path."""
    path = folder / "report.html"
    partial = path.with_name(".report.html.partial")
    values = values_of(plan, {outcome.trial: outcome for outcome in outcomes}, record.read_runs(folder))
    partial.write_text(page(Study(summary, outcomes, plan, values)), encoding="utf-8")
    partial.replace(path)
    return path


def page(study: Study) -> str:
    """The page as HTML. The same values give the same bytes."""
    summary, outcomes, plan = study.summary, study.outcomes, study.plan
    naming = naming_of(plan, [outcome.configuration for outcome in outcomes])
    point, fluid = deployed(summary), fluidity_rows(summary)
    box = f"{plan.box.title}{' simulated' if summary.simulated else ''}"
    template = _environment().get_template("page.html.j2")
    return template.render(
        headline=headline(summary),
        sentence=sentence(summary, plan),
        title=f"{plan.model.title} · {plan.slo.name} SLO · {box}",
        slo=slo_text(plan.slo),
        counts=counts(summary),
        cost=cost(summary, plan),
        name=_name(point, naming),
        kpis=_kpis(summary, outcomes, plan),
        comparison=(*comparison(summary, plan), *fluid) if summary.best or summary.default else (),
        fluidity=fluidity_meaning(plan.slo.limits) if fluid else "",
        columns=_columns(summary),
        command="\n".join(command_lines(point.command, COMMAND_WIDTH)) if point else "",
        cautions=cautions(summary, plan),
        steps=next_steps(outcomes, plan) if summary.verdict == "nothing-meets-slo" else (),
        figures=figures(study),
        is_virtual=plan.box.simulation == "virtual",
        inside=inside(outcomes, study.cast, naming),
        table=table_of(outcomes, study.cast, naming, plan),
        reproduce=_reproduce(summary, plan),
    )


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _name(point: Point | None, naming: Naming) -> str:
    return title(naming, point.engine, point.configuration) if point else ""


def _columns(summary: Summary) -> tuple[str, ...]:
    """The headings of the comparison: the points that exist, one where they are the same trial."""
    same = summary.default is not None and summary.best is not None and summary.default.trial == summary.best.trial
    default = ("default",) if summary.default else ()
    return (*default, trial_name(summary.best.trial)) if summary.best and not same else default


def _kpis(summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> list[Kpi]:
    sure = Kpi("How sure", summary.how_sure.capitalize(), summary.why)
    point = deployed(summary)
    if point is None:
        return [*_misses(summary, outcomes, plan), sure]
    rival = summary.default if summary.default and summary.default.trial != point.trial else None
    per = device(plan)
    against = f"default {goodput(rival)}" if rival else ""
    if summary.default is None:
        against = f"default {default_holds_nothing(outcomes, plan)}"
    kpis = [Kpi(f"Goodput, req/s per {per}", goodput(point), against), sure]
    price = plan.box.gpu.dollars_per_hour
    if price is not None:
        each = _price(point, price)
        before = f"default {_price(rival, price)}; " if rival else ""
        kpis.insert(1, Kpi("Cost, per million output tokens", each, f"{before}at {dollars(price)} per {per}-hour"))
    return [*kpis, *_latencies(point, plan)]


def _latencies(point: Point, plan: Plan) -> list[Kpi]:
    """The share inside the SLO, with the limits and where their percentiles are."""
    seen = [
        f"{METRICS[name]} {percentile_name(plan.slo.attainment)} "
        f"{latency(at_percentile(point, name, plan.slo.attainment))} of {bound_text(plan.slo.limits, name)}"
        for name in plan.slo.limits.present()
    ]
    need = f"need {wanted_share(plan.slo.attainment)}"
    return [Kpi("Requests inside the SLO", share(point.attainment), "; ".join([need, *seen]))]


def _misses(summary: Summary, outcomes: Sequence[Outcome], plan: Plan) -> list[Kpi]:
    """How near it came, and what stands in the way."""
    nearest = closest(outcomes)
    breaks = what_breaks(outcomes)
    kpis = [Kpi("What breaks", breaks.split(" in ")[0].split(",")[0], breaks)]
    if nearest is not None and nearest.best is not None:
        reached = number(nearest.value_rps_per_gpu) if nearest.holds_slo else share(nearest.best.attainment)
        kpis.insert(0, Kpi("Closest", f"{trial_name(nearest.trial)}: {reached}", closest_text(nearest, plan)))
    return kpis


def _price(point: Point, dollars_per_hour: float) -> str:
    price = dollars_per_million_tokens(dollars_per_hour, point.throughput_tok_s_per_gpu)
    return DASH if price is None else dollars(price)


def _reproduce(summary: Summary, plan: Plan) -> dict[str, str]:
    engines = ", ".join(f"{engine.title} (knobs tuned for {engine.tuned_versions})" for engine in plan.engines)
    simulated = {None: "", "virtual": ", simulated in virtual time", "served": ", simulated by server processes"}
    return {
        "Command": "\n".join(command_lines(study_command(plan), COMMAND_WIDTH)),
        "Study": summary.dir,
        "Model": f"{plan.model.title} ({plan.model.path})",
        "SLO": f"{plan.slo.name}: {slo_text(plan.slo)}; window {duration(plan.slo.window_s)} "
        f"after {duration(plan.slo.warmup_s)} of warm-up; source: {plan.slo.source}",
        "Workload": f"{plan.workload.title}; source: {plan.workload.source}",
        "Box": f"{plan.box.title}{simulated[plan.box.simulation]}",
        "Engines": engines,
        "Search": f"{plan.sampler}, seed {plan.seed}; {counts(summary)}",
        **_simulation(summary, plan),
        "Goodtune": f"{tuner.__version__}; plan.yaml beside this page has every name resolved",
    }


def _simulation(summary: Summary, plan: Plan) -> dict[str, str]:
    """Of a simulation, where its step times come from; then predicted against measured."""
    said = predicted_against_measured(summary, plan)
    if plan.box.simulation is not None:
        spaces = spaces_of(plan).values()
        said = (*(f"{simulated_engine(plan, space.engine.title, space.default)}." for space in spaces), *said)
    return {"Simulation": " ".join(said)} if said else {}
