"""What the figures draw: every probe and every trial as a dot with a role, a place and a sentence. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.config.plan import Plan
from tuner.outcome import Outcome
from tuner.report.study import Cast, Role
from tuner.score import Score
from tuner.summary import Point
from tuner.target import ClosedLoop, OpenLoop
from tuner.wording.naming import ending, worth
from tuner.wording.numbers import HOUR_S, device, number, share


@dataclass(frozen=True)
class Dot:
    """A mark in a figure. `holds`: whether it meets the SLO. `label` is read out and shown when pointed at.

    `is_best`: whether it is, or stands for, the probe that gave its trial's value.
    """

    trial: int
    role: Role
    holds: bool
    x: float
    y: float
    label: str
    is_best: bool = False
    on_frontier: bool = False


def load_dots(outcome: Outcome, cast: Cast, plan: Plan) -> list[Dot]:
    """The trial's probes by rising load: share in the SLO (percent) over offered load per GPU."""
    return sorted((_probe_dot(outcome, probe, cast, plan) for probe in _probes(outcome)), key=lambda dot: dot.x)


def goodput_dots(outcome: Outcome, cast: Cast, plan: Plan) -> list[Dot]:
    """The trial's probes by rising load: goodput over offered load, both per GPU."""
    gpus = outcome.configuration.gpus
    places = [(probe, (offered_per_gpu(outcome, probe), probe.goodput_rps / gpus)) for probe in _probes(outcome)]
    return sorted((_dot(outcome, probe, cast, plan, place) for probe, place in places), key=lambda dot: dot.x)


def speed_dots(outcomes: Sequence[Outcome], cast: Cast, plan: Plan, frontier: Sequence[Point]) -> list[Dot]:
    """All open-loop probes: output tokens/s per GPU over tokens/s per user."""
    edge = {(point.trial, point.tok_s_per_user, point.throughput_tok_s_per_gpu) for point in frontier}
    dots = []
    for outcome in outcomes:
        for probe in _probes(outcome):
            if isinstance(probe.load, OpenLoop) and probe.tok_s_per_user > 0:
                place = probe.tok_s_per_user, probe.throughput_tok_s / outcome.configuration.gpus
                dot = _dot(outcome, probe, cast, plan, place)
                dots.append(replace(dot, on_frontier=(dot.trial, *place) in edge))
    return dots


def search_dots(outcomes: Sequence[Outcome], cast: Cast, plan: Plan, *, by_attainment: bool) -> list[Dot]:
    """The trials in order over GPU-hours spent: goodput per GPU, or where nothing holds the SLO percent in it.

    A trial without a value stands at 0.
    """
    spent_s, dots = 0.0, []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.trial):
        spent_s += outcome.cost.total_s * outcome.configuration.gpus
        attainment = outcome.best.attainment if outcome.best else 0.0
        y = 100 * attainment if by_attainment else outcome.value_rps_per_gpu
        value = f"{share(attainment)} in SLO" if by_attainment else f"{number(y)} req/s per {device(plan)}"
        label = f"{cast.name(outcome.trial)}: {value if y else ending(outcome)}"
        role = "failed" if outcome.best is None else cast.role(outcome.trial)
        dots.append(Dot(outcome.trial, role, outcome.holds_slo, spent_s / HOUR_S, y, label, is_best=True))
    return dots


def rivals(outcomes: Sequence[Outcome], cast: Cast, wanted: int) -> list[Outcome]:
    """The `wanted` best trials beside the leading ones; where nothing holds the SLO those nearest to it."""
    others = [outcome for outcome in outcomes if cast.role(outcome.trial) == "other"]
    return sorted(others, key=worth)[:wanted]


def offered_per_gpu(outcome: Outcome, score: Score) -> float:
    """The load of a probe per GPU: req/s, or users."""
    load = score.load.users if isinstance(score.load, ClosedLoop) else score.load.rate_rps
    return load / outcome.configuration.gpus


def load_unit(outcomes: Sequence[Outcome]) -> str:
    """What loads are counted in: `users` where nothing was probed in an open loop."""
    kinds = {type(probe.load) for outcome in outcomes for probe in outcome.probes}
    return "users" if kinds == {ClosedLoop} else "req/s"


def _probes(outcome: Outcome) -> list[Score]:
    """The trial's probes that can stand on an axis; closed loops only where its best is one."""
    kind = type(outcome.best.load) if outcome.best else OpenLoop
    return [probe for probe in outcome.probes if isinstance(probe.load, kind) and _is_finite(outcome, probe)]


def _is_finite(outcome: Outcome, probe: Score) -> bool:
    return math.isfinite(offered_per_gpu(outcome, probe))


def _probe_dot(outcome: Outcome, probe: Score, cast: Cast, plan: Plan) -> Dot:
    return _dot(outcome, probe, cast, plan, (offered_per_gpu(outcome, probe), 100 * probe.attainment))


def _dot(outcome: Outcome, probe: Score, cast: Cast, plan: Plan, place: tuple[float, float]) -> Dot:
    per, gpus = device(plan), outcome.configuration.gpus
    unit = "users" if isinstance(probe.load, ClosedLoop) else "req/s"
    label = (
        f"{cast.name(outcome.trial)}: {number(offered_per_gpu(outcome, probe))} {unit} per {per}, "
        f"{share(probe.attainment)} in SLO, {number(probe.tok_s_per_user)} tok/s per user, "
        f"{number(probe.throughput_tok_s / gpus)} tok/s per {per}"
    )
    holds = probe.attainment >= plan.slo.attainment
    is_best = probe == outcome.best
    return Dot(outcome.trial, cast.role(outcome.trial), holds, place[0], place[1], label, is_best)
