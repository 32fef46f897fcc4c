"""The live screen: progress as lines that fit a width and a height. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from rich.text import Text

from tuner.config.plan import Plan
from tuner.configuration import Configuration
from tuner.outcome import Outcome
from tuner.score import Score
from tuner.terminal.progress import Progress, Running
from tuner.terminal.ranking import ranking
from tuner.wording.comparison import at_percentile
from tuner.wording.conclusion import closest, closest_text
from tuner.wording.naming import METRICS, ending, slo_text, title, trial_name, worth_text
from tuner.wording.numbers import (
    device,
    dollars,
    dollars_per_million_tokens,
    duration,
    latency,
    limit,
    load_text,
    number,
    rate_unit,
    share,
    signed_percent,
)

WIDE = 120
RUNNING_SHOWN = 4
TRIALS_THAT_TELL = 3
"""Ended trials before the rest's duration is estimated."""
LEAST_BAR = 10
LEAST_NAME = 24
KNOB_SEPARATOR = " · "
LABEL = 6
"""Columns of BEST and NOW."""


Keys = Literal["unheard", "heard", "ending"]
"""ending: q was pressed."""


@dataclass(frozen=True)
class Moment:
    """`elapsed_s` seconds after the study began; the wall clock, for the hour it ends; whether keys do something."""

    elapsed_s: float
    wall: datetime
    keys: Keys = "unheard"


def screen(progress: Progress, moment: Moment, width: int, height: int) -> list[Text]:
    """At most `height` lines of at most `width` columns. Where room is short the table goes first, BEST never."""
    fixed = [*_header(progress, moment, width), Text(), *_best(progress, width)]
    now = _now(progress, moment, width)
    room = height - len(fixed) - 1
    if now and room > 1:
        fixed += [Text(), *now[: room - 1]]
    foot = _foot(progress, moment)
    room = height - len(fixed) - 1
    table = ranking(progress, width, room - len(foot))
    lines = [*fixed, Text(), *table] if table else fixed
    if len(lines) + len(foot) <= height:
        lines += foot
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def window_title(progress: Progress) -> str:
    """What the terminal's window is called meanwhile: `tune 24/64 · best 6.90 req/s/GPU`."""
    trials = progress.plan.trials
    title = f"tune {progress.done}/{trials}" if trials is not None else f"tune {progress.done}"
    best = progress.best
    if best is None or not best.holds_slo:
        return title
    return f"{title} · best {number(best.value_rps_per_gpu)} {rate_unit(progress.plan)}"


def bar(frac: float, width: int) -> str:
    """A bar of `width` columns, filled to `frac` in steps of half a column."""
    halves = round(2 * width * min(max(frac, 0.0), 1.0))
    full = "━" * (halves // 2) + ("╸" if halves % 2 else "")
    return full + "─" * (width - len(full))


def end_line(progress: Progress, outcome: Outcome) -> str:
    """One line for a trial that ended: `t24 misses SLO: TTFT  budget 512`."""
    name, what = trial_name(outcome.trial), _title(progress, outcome.configuration)
    if not outcome.holds_slo:
        where = f" → {outcome.failure.log}" if outcome.failure and outcome.failure.log else ""
        return f"{name} {ending(outcome)}  {what}{where}"
    is_best = progress.best is not None and progress.best.trial == outcome.trial
    value = f"{worth_text(outcome)} {rate_unit(progress.plan)}"
    if outcome.state == "pruned":
        return f"{name} {ending(outcome)}, {value}  {what}"
    return f"{name} {value}{', best so far' if is_best else ''}  {what}"


def log_lines(outcome: Outcome) -> list[str]:
    """The two lines of a failed server's log that matter, if it has any: what it was doing, what was wrong."""
    failure = outcome.failure
    return [f"      {line}" for line in (failure.before, failure.evidence) if line] if failure else []


def opening_line(plan: Plan) -> str:
    """The first line of a study: on what it runs, and whether that is simulated."""
    if plan.box.simulation is None:
        return f"{plan.box.title}: {slo_text(plan.slo)}"
    kind = "in virtual time" if plan.box.simulation == "virtual" else "by server processes in real time"
    return f"simulated {plan.box.title}, {kind}: no {device(plan)} is used"


def _foot(progress: Progress, moment: Moment) -> list[Text]:
    """What keys do now."""
    if moment.keys == "unheard":
        return []
    stop = "Q stop now, keep results"
    if progress.confirming is not None:
        return [Text(stop, style="dim")]
    end = "the search ends with what is running" if moment.keys == "ending" else "q end the search, confirm the best"
    return [Text(f"{end} · {stop}", style="dim")]


def _header(progress: Progress, moment: Moment, width: int) -> list[Text]:
    plan = progress.plan
    simulated = " simulated" if plan.box.simulation else ""
    slo = f"{plan.slo.name}: {slo_text(plan.slo)}" if width >= WIDE else plan.slo.name
    left = Text.assemble(("tune", "bold"), f"  {plan.model.name} · {slo} · {plan.box.title}{simulated}")
    first = _spread(left, Text(str(plan.out), style="dim"), width)
    facts = _fitting(_facts(progress, moment), width - LEAST_BAR - 2, " · ")
    return [first, Text.assemble((bar(_frac(progress, moment), width - len(facts) - 2), "green"), f"  {facts}")]


def _facts(progress: Progress, moment: Moment) -> list[str]:
    """The most important first."""
    plan = progress.plan
    if progress.confirming is not None:
        confirming = progress.confirming
        return [f"confirming {confirming.done}/{confirming.total}", duration(moment.elapsed_s)]
    parts = [f"{progress.done}/{plan.trials} trials" if plan.trials is not None else f"{progress.done} trials"]
    if plan.budget_s is not None:
        parts.append(f"{duration(_spent_s(progress, moment))} of {duration(plan.budget_s)}")
    parts.append(_end(progress, moment))
    bad = {"infeasible": progress.count("infeasible"), "failed": progress.count("failed")}
    return [*parts, *(f"{count} {word}" for word, count in bad.items() if count)]


def _end(progress: Progress, moment: Moment) -> str:
    """When the study ends at the latest, where a budget says so in wall time; else about how long it will take."""
    budget_s, trials = progress.plan.budget_s, progress.plan.trials
    if budget_s is None or progress.plan.box.simulation == "virtual":
        timed = progress.done - progress.resumed
        if trials is None or timed < TRIALS_THAT_TELL:
            return duration(moment.elapsed_s)
        left_s = moment.elapsed_s / timed * max(0, trials - progress.done)
        return f"{duration(moment.elapsed_s)}, about {duration(left_s)} left"
    end = moment.wall + timedelta(seconds=max(0.0, budget_s - moment.elapsed_s))
    return f"ends ≤ {end:%H:%M}"


def _frac(progress: Progress, moment: Moment) -> float:
    plan = progress.plan
    if progress.confirming is not None:
        return progress.confirming.done / max(progress.confirming.total, 1)
    by_trials = progress.done / plan.trials if plan.trials else 0.0
    by_budget = _spent_s(progress, moment) / plan.budget_s if plan.budget_s else 0.0
    return max(by_trials, by_budget)


def _spent_s(progress: Progress, moment: Moment) -> float:
    """What the budget has been charged: the box's virtual seconds, or the real ones."""
    return progress.spent_s if progress.plan.box.simulation == "virtual" else moment.elapsed_s


def _best(progress: Progress, width: int) -> list[Text]:
    best = progress.best
    if best is None or best.best is None or not best.holds_slo:
        return [Text.assemble(("BEST".ljust(LABEL), "bold"), _no_best(progress))]
    value = f"{number(best.value_rps_per_gpu)} {rate_unit(progress.plan)}"
    line = Text.assemble(("BEST".ljust(LABEL), "bold"), (f"{trial_name(best.trial)}  {value}", "bold blue"))
    price = _price(progress.plan, best.best, best.configuration.gpus)
    settled = "measured again now" if progress.confirming else "screened once, not confirmed"
    facts = [fact for fact in (_against_default(progress, best), price, settled) if fact]
    line.append(f"  {_fitting(facts, width - line.cell_len - 2, '  ')}")
    return [line, *_parted(_title(progress, best.configuration), width)]


def _parted(name: str, width: int) -> list[Text]:
    """A configuration's name in as many lines as it takes, parted between knobs."""
    lines = [""]
    for part in name.split(KNOB_SEPARATOR):
        longer = f"{lines[-1]}{KNOB_SEPARATOR}{part}" if lines[-1] else part
        if lines[-1] and LABEL + len(longer) > width:
            lines.append(part)
        else:
            lines[-1] = longer
    return [Text(" " * LABEL + line) for line in lines]


def _no_best(progress: Progress) -> str:
    nearest = closest(progress.ended)
    if nearest is None:
        return "nothing measured yet"
    return f"none holds the SLO yet; closest {trial_name(nearest.trial)}: {closest_text(nearest, progress.plan)}"


def _against_default(progress: Progress, best: Outcome) -> str:
    default = progress.default
    if default is None or default.trial == best.trial:
        return "the default" if best.configuration.is_default else ""
    if not default.holds_slo:
        return "default holds no load"
    ratio = best.value_rps_per_gpu / default.value_rps_per_gpu
    return f"{signed_percent(ratio)} % vs default ({number(default.value_rps_per_gpu)})"


def _price(plan: Plan, score: Score, gpus: int) -> str:
    price = dollars_per_million_tokens(plan.box.gpu.dollars_per_hour, score.throughput_tok_s / gpus)
    return f"{dollars(price)}/M out" if price is not None else ""


def _now(progress: Progress, moment: Moment, width: int) -> list[Text]:
    running = list(progress.running.values())
    if progress.confirming is not None and not running:
        return [Text.assemble(("NOW".ljust(LABEL), "bold"), f"measuring again: {progress.confirming.what}")]
    lines = []
    for index, trial in enumerate(running[:RUNNING_SHOWN]):
        label = ("" if index else "NOW").ljust(LABEL)
        left = Text.assemble((label, "bold"), f"{trial_name(trial.trial)}  {_title(progress, trial.configuration)}")
        age = duration(moment.elapsed_s - trial.since_s)
        doing: str = trial.stage or ""
        if trial.load is not None and len(running) > 1:
            doing = f"{doing} {load_text(trial.load)} {trial.done_frac:4.0%}"
        right = Text(f"{doing}  {age:>5}", style="dim")
        left.truncate(max(LEAST_NAME, width - right.cell_len - 2), overflow="ellipsis")
        lines.append(_spread(left, right, width))
        if len(running) == 1:
            lines += _probe(trial, progress.plan, width)
    if len(running) > RUNNING_SHOWN:
        lines.append(Text(f"{'':{LABEL}}and {len(running) - RUNNING_SHOWN} more", style="dim"))
    return lines


def _probe(running: Running, plan: Plan, width: int) -> list[Text]:
    if running.load is None:
        return []
    room = 24 if width >= WIDE else 14
    line = Text(" " * LABEL + f"{load_text(running.load)}  {bar(running.done_frac, room)} {running.done_frac:4.0%}")
    if running.score is None:
        return [line]
    facts = _score_facts(running.score, plan)
    if line.cell_len + 3 + len(facts) <= width:
        return [line.append(f"   {facts}")]
    return [line, Text(" " * LABEL + facts)]


def _score_facts(score: Score, plan: Plan) -> str:
    holds = "✓" if score.attainment >= plan.slo.attainment else "✗"
    facts = [f"in SLO {share(score.attainment)} {holds}"]
    for metric, bound in plan.slo.limits.present().items():
        facts.append(
            f"{METRICS[metric]} {latency(at_percentile(score, metric, plan.slo.attainment))} of {limit(bound)}"
        )
    return "   ".join(facts)


def _title(progress: Progress, configuration: Configuration) -> str:
    return title(progress.naming, configuration.engine, configuration.knobs)


def _fitting(facts: Sequence[str], room: int, between: str) -> str:
    """As many of `facts` as fit into `room`, from the first on."""
    kept = ""
    for fact in facts:
        longer = f"{kept}{between}{fact}" if kept else fact
        if len(longer) > room:
            break
        kept = longer
    return kept


def _spread(left: Text, right: Text, width: int) -> Text:
    """`left` and `right` at the two ends of a line; without `right` where both do not fit."""
    room = width - left.cell_len - right.cell_len
    if room < 2:
        return left
    return Text.assemble(left, " " * room, right)
