"""The conclusion of a study in words: headline, sentence, what to watch. Pure."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tuner.config.plan import Plan
from tuner.goodput import LEAST_ATTAINMENT
from tuner.outcome import Outcome
from tuner.summary import Point, Summary, VerdictWord
from tuner.target import ClosedLoop
from tuner.wording.commands import SCALE, slo_scale
from tuner.wording.comparison import deployed
from tuner.wording.naming import (
    broken_limit,
    differences,
    ending,
    failure_text,
    limits_text,
    naming_of,
    short,
    trial_name,
)
from tuner.wording.numbers import (
    HOUR_S,
    device,
    dollars,
    duration,
    goodput,
    gpu_time,
    interval,
    load_text,
    more_requests,
    number,
    share,
    wanted_share,
)


@dataclass(frozen=True)
class Headline:
    """The verdict as a glyph and a few words; `good` where there is something to deploy."""

    glyph: str
    words: str
    good: bool


def headline(summary: Summary) -> Headline:
    """The verdict in capitals, as the terminal and the page head it."""
    name = trial_name(summary.best.trial) if summary.best else ""
    heads: Mapping[VerdictWord, Headline] = {
        "deploy": Headline("✓", f"DEPLOY {name}".strip(), True),
        "keep-default": Headline("✓", "KEEP THE DEFAULT", True),
        "inconclusive": Headline("?", "INCONCLUSIVE", False),
        "nothing-meets-slo": Headline("▽", "NOTHING TO DEPLOY", False),
        "interrupted": Headline("‖", "INTERRUPTED", False),
    }
    return heads[summary.verdict]


def sentence(summary: Summary, plan: Plan) -> str:
    """The verdict as one sentence, with the gain and its interval where there is one."""
    sentences: Mapping[VerdictWord, Callable[[Summary, Plan], str]] = {
        "deploy": _deploy,
        "keep-default": _keep_default,
        "inconclusive": _inconclusive,
        "nothing-meets-slo": _nothing,
        "interrupted": _interrupted,
    }
    return sentences[summary.verdict](summary, plan)


def closest(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The trial that came nearest: to the throughput that is wanted, where some held the SLO, else to the SLO; None
    where nothing was measured."""
    holding = [outcome for outcome in outcomes if outcome.holds_slo]
    if holding:
        return max(holding, key=lambda outcome: outcome.value_rps_per_gpu)
    measured = [outcome for outcome in outcomes if outcome.best is not None]
    return max(measured, key=lambda outcome: outcome.best.attainment if outcome.best else 0.0, default=None)


def what_breaks(outcomes: Sequence[Outcome]) -> str:
    """Which limit stops the trials that started, and why others did not start: `TPOT in 39 of 39 that started`."""
    if any(outcome.holds_slo for outcome in outcomes):
        return "the throughput that is wanted"
    started = [outcome.best for outcome in outcomes if outcome.best is not None]
    broken = Counter(name for score in started if (name := broken_limit(score)))
    failures = Counter(failure_text(outcome.failure) for outcome in outcomes if outcome.failure)
    parts = [f"{name} in {count} of {len(started)} that ran" for name, count in broken.most_common(2)]
    parts += [f"{count} {reason}" for reason, count in failures.most_common(3)]
    return ", ".join(parts) or ("no limit" if started else "nothing was measured")


def counts(summary: Summary) -> str:
    """`48 tried · 30 measured · 9 stopped early · 7 infeasible · 2 failed`; zeros are left out."""
    trials = summary.trials
    named = {
        "measured": trials.measured,
        "stopped early": trials.pruned,
        "infeasible": trials.infeasible,
        "failed": trials.failed,
    }
    return " · ".join([f"{trials.total} tried", *(f"{count} {word}" for word, count in named.items() if count)])


def cost(summary: Summary, plan: Plan) -> str:
    """GPU time and its price; simulated time costs nothing and is called so."""
    spent = gpu_time(summary.cost.gpu_s, device(plan))
    if plan.box.simulation == "virtual":
        return f"{spent} of virtual time in {duration(summary.cost.wall_s)}"
    price = plan.box.gpu.dollars_per_hour
    in_dollars = f" ({dollars(summary.cost.gpu_s / HOUR_S * price)})" if price and not summary.simulated else ""
    return f"{spent}{in_dollars} in {duration(summary.cost.wall_s)}"


def cautions(summary: Summary, plan: Plan) -> tuple[str, ...]:
    """What a reader must know before deploying."""
    said = []
    if summary.simulated:
        said.append(f"Simulated {plan.box.title}: measure it on real {device(plan)}s before you rely on it.")
    point = deployed(summary)
    if point is not None:
        naming = naming_of(plan)
        knobs = next(engine.knobs for engine in plan.engines if engine.name == point.engine)
        changed = differences(naming, point.engine, point.configuration)
        said += [
            f"{short(name)} can change the model's answers: check their quality."
            for name in changed
            if knobs[name].changes_answers
        ]
        guessing = str(point.configuration.get("speculation", "off"))
        if summary.simulated and guessing != "off":
            chances = plan.workload.acceptance.of(guessing)
            given = chances if isinstance(chances, tuple) else (chances,)
            chance = ", ".join(map(share, given))
            said.append(f"Speculation rests on an assumed acceptance of {chance} per guess: measure it on real text.")
        said += _about_the_load(point, plan)
        replicas = len(plan.box.gpus) // point.gpus
        if replicas > 1:
            total = number(point.goodput_rps_per_gpu * point.gpus * replicas)
            said.append(f"The whole box: {replicas} such servers, {total} req/s, assuming even routing.")
    return tuple(said)


def _about_the_load(point: Point, plan: Plan) -> Iterator[str]:
    """What the way in which load was offered means for the figures."""
    arrivals, recorded_rps = plan.workload.arrivals, plan.workload.trace_rate_rps
    if plan.box.simulation and plan.workload.ends_naturally:
        yield "Simulated answers are as long as the workload lets them be: a real model may end them sooner."
    if arrivals.ramp:
        yield (
            f"Each trial kept the best of up to {arrivals.ramp.users} steps of {duration(arrivals.ramp.every_s)}: "
            "such a best is too good by chance. Believe the windows measured again on fresh seeds."
        )
    if arrivals.kind == "trace" and recorded_rps:
        held = point.load.get("rate_rps", 0.0) / recorded_rps
        yield (
            f"The trace came at {number(recorded_rps)} req/s on average: one such server holds it at "
            f"{number(held, 2)} times its own speed."
        )


def next_steps(outcomes: Sequence[Outcome], plan: Plan) -> tuple[tuple[str, str], ...]:
    """What to try when nothing meets the SLO, cheapest first: an option of `tune` (or a file), and what it does."""
    steps = []
    if closest(outcomes) is None:
        steps += [
            (outcome.failure.log, "says why") for outcome in outcomes if outcome.failure and outcome.failure.log
        ]
        return (*steps[:1], ("--model …", "a smaller model"))
    if any(outcome.holds_slo for outcome in outcomes):
        return (_more_gpus(outcomes, plan), ("--model …", "a smaller or quantised model"))
    return (*_softer(outcomes, plan), ("--model …", "a smaller or quantised model"))


def _softer(outcomes: Sequence[Outcome], plan: Plan) -> Iterator[tuple[str, str]]:
    """An SLO that would have been held, by what was measured."""
    scaled = [(one.needed_scale, one) for one in outcomes if one.needed_scale is not None]
    if scaled:
        scale, one = min(scaled, key=lambda pair: pair[0])
        now = limits_text(plan.slo.limits)
        yield (
            f"{SCALE} {scale * slo_scale(plan):.3g}",
            f"longer limits, the least that {_whose(one)} needed; now {now}",
        )
    nearest = closest(outcomes)
    reached = math.floor(100 * nearest.best.attainment) / 100 if nearest and nearest.best else 0.0
    if nearest and LEAST_ATTAINMENT <= reached < plan.slo.attainment:
        now = wanted_share(plan.slo.attainment)
        yield f"--attainment {reached:g}", f"fewer requests in SLO, as many as {_whose(nearest)}; now {now}"


def _whose(outcome: Outcome) -> str:
    """`t0's requests at 0.5 req/s`."""
    assert outcome.best is not None, "who was judged has a best probe"
    is_idle = outcome.best.load == ClosedLoop(1)
    where = "one at a time" if is_idle else f"at {load_text(outcome.best.load)}"
    return f"{trial_name(outcome.trial)}'s requests {where}"


def _more_gpus(outcomes: Sequence[Outcome], plan: Plan) -> tuple[str, str]:
    """The limits are held, and the box is too small for the throughput that is wanted."""
    best = closest(outcomes)
    assert best is not None, "some hold the SLO"
    wanted_rps, gpus = plan.slo.min_throughput_rps or 0.0, best.configuration.gpus
    servers = math.ceil(wanted_rps / (best.value_rps_per_gpu * gpus))
    reaches = f"{trial_name(best.trial)} reaches {number(best.value_rps_per_gpu)} each"
    return f"--gpus {servers * gpus}", f"as many {device(plan)}s as {wanted_rps:g} req/s take, for {reaches}"


def closest_text(outcome: Outcome, plan: Plan) -> str:
    """`89.2 % in SLO at 1.1 req/s per GPU (need 95 %)`; `5.9 req/s per H100 inside the SLO` of one that holds it."""
    assert outcome.best is not None, "closest() gives only trials that were measured"
    if outcome.holds_slo:
        return f"{number(outcome.value_rps_per_gpu)} req/s per {device(plan)} inside the SLO"
    where = load_text(outcome.best.load)
    return f"{share(outcome.best.attainment)} in SLO at {where} (need {wanted_share(plan.slo.attainment)})"


def default_holds_nothing(outcomes: Sequence[Outcome], plan: Plan) -> str:
    """What to say of a default that holds the SLO at no load, or that could not be measured; of each engine's."""
    tried = [outcome for outcome in outcomes if outcome.configuration.is_default]
    if len(tried) < 2:
        return _holds_nothing(tried[0], plan) if tried else "was not measured"
    return "; ".join(f"{one.configuration.engine}'s {_holds_nothing(one, plan)}" for one in tried)


def _holds_nothing(tried: Outcome, plan: Plan) -> str:
    if tried.best is None:
        return f"was not measured: {ending(tried)}"
    broken = broken_limit(tried.best)
    why = f"; {broken} breaks first" if broken else ""
    return f"held the SLO at no load of its search: at best {closest_text(tried, plan)}{why}"


def _deploy(summary: Summary, plan: Plan) -> str:
    best = summary.best
    if summary.gain is not None:
        many = _capital(more_requests(summary.gain.ratio))
        than = "" if "default" in many else " than the default"
        return f"{many} per {device(plan)} inside the SLO{than} ({interval(summary.gain)})"
    if best is None:
        return "A configuration holds the SLO"
    at = f"{goodput(best)} req/s per {device(plan)} inside the SLO"
    return f"{at}; the default was not seen to hold it" if summary.default is None else at


def _keep_default(summary: Summary, plan: Plan) -> str:
    if summary.gain is None:
        return "Nothing that was tried beats the engine's own default"
    rival = more_requests(summary.gain.ratio)
    return f"Nothing beats it measurably: the best rival serves {rival} ({interval(summary.gain)})"


def _inconclusive(summary: Summary, plan: Plan) -> str:
    if summary.gain is None:
        return "The study cannot tell whether anything beats the default"
    seems = more_requests(summary.gain.ratio)
    return f"It seems {seems} per {device(plan)}, but the interval is too wide ({interval(summary.gain)})"


def _nothing(summary: Summary, plan: Plan) -> str:
    if summary.trials.total == 0:
        return "No configuration was measured"
    if summary.trials.measured + summary.trials.pruned == 0:
        return f"Nothing could be measured: {counts(summary)}"
    if plan.slo.attainment == 0 and plan.slo.min_throughput_rps:
        return f"No configuration reaches {plan.slo.min_throughput_rps:g} req/s on {plan.box.title}"
    need = "" if plan.slo.attainment == 0 else f"{wanted_share(plan.slo.attainment)} of "
    total = summary.trials.total
    whom = "The one configuration tried does not keep" if total == 1 else f"0 of {total} configurations keep"
    return f"{whom} {need}requests inside the SLO at any load"


def _interrupted(summary: Summary, plan: Plan) -> str:
    if summary.best is None:
        return "Stopped before any configuration held the SLO"
    best = summary.best
    return f"Best so far {trial_name(best.trial)}: {goodput(best)} req/s per {device(plan)}, not confirmed"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
