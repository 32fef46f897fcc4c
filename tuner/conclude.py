"""Conclude: from outcomes and fresh runs to the summary. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from tuner.config.plan import Plan
from tuner.config.slo import Slo
from tuner.confirm import best_of, finalists, values_of
from tuner.finalruns import FinalistRun
from tuner.finalvalue import LEAST_SEEDS, Value
from tuner.fluidity import Fluidity
from tuner.latencies import Percentiles
from tuner.outcome import Outcome, TrialState
from tuner.score import Score
from tuner.summary import Point, Session, StudyCost, Summary, TrialCounts
from tuner.target import OpenLoop
from tuner.verdict import Verdict, decide


def conclude(
    plan: Plan,
    outcomes: Mapping[int, Outcome],
    runs: Sequence[FinalistRun],
    sessions: Sequence[Session],
    *,
    interrupted: bool,
) -> Summary:
    """What the study says, with what has been measured so far, in so many sessions."""
    ordered = [outcomes[number] for number in sorted(outcomes)]
    values = values_of(plan, outcomes, runs)
    confirmed = {trial: value for trial, value in values.items() if _is_confirmed(value)}
    at_least = {trial: value for trial, value in values.items() if _is_bound(value)}
    unconfirmed = [one.trial for one in finalists(plan, outcomes) if _lacks(outcomes[one.trial], confirmed)]
    if interrupted:
        verdict = _interrupted(ordered, confirmed, is_confirmed=bool(confirmed) and not unconfirmed)
    elif unconfirmed:
        verdict = _unconfirmed(ordered, confirmed, at_least, unconfirmed)
    else:
        verdict = _verdict(ordered, confirmed)
    default = _finalist_point(_best_default(ordered, confirmed), confirmed | at_least, runs)
    best = None if verdict.best is None else _finalist_point(outcomes[verdict.best], confirmed | at_least, runs)
    if verdict.word in {"deploy", "keep-default"} and best and _box_rps(best, plan) < _wanted_rps(plan):
        verdict, best, default = _too_slow(best, plan), None, None
    return Summary(
        study=plan.study,
        dir=str(plan.out),
        model=plan.model.name,
        engines=tuple(engine.name for engine in plan.engines),
        slo=slo_of(plan.slo),
        workload=plan.workload.name,
        seed=plan.seed,
        simulated=plan.box.simulation is not None,
        trials=_counts(ordered),
        default=default,
        best=best,
        gain=verdict.gain,
        verdict=verdict.word,
        why=verdict.why,
        how_sure=verdict.how_sure,
        frontier=frontier(ordered),
        cost=_cost(ordered, runs, sessions),
    )


def slo_of(slo: Slo) -> dict[str, object]:
    """The SLO as JSON shows it: name, attainment and limits in seconds."""
    limits = slo.limits
    slope = {"ttft_s_per_prompt_token": limits.ttft_s_per_prompt_token} if limits.ttft_s_per_prompt_token else {}
    return {"name": slo.name, "attainment": slo.attainment, **limits.present(), **slope}


def frontier(outcomes: Sequence[Outcome]) -> tuple[Point, ...]:
    """The open-loop probes that no other beats in both tokens/s per GPU and tokens/s per user, fastest users last."""
    points = [
        point_of(outcome, probe)
        for outcome in outcomes
        for probe in outcome.probes
        if isinstance(probe.load, OpenLoop) and probe.stopped is None and probe.tok_s_per_user > 0
    ]
    kept: list[Point] = []
    for point in sorted(points, key=lambda one: (-one.tok_s_per_user, -one.throughput_tok_s_per_gpu, one.trial)):
        if not kept or point.throughput_tok_s_per_gpu > kept[-1].throughput_tok_s_per_gpu:
            kept.append(point)
    return tuple(reversed(kept))


def point_of(outcome: Outcome, probe: Score) -> Point:
    """One probe of a trial as a point."""
    gpus = outcome.configuration.gpus
    load: dict[str, float] = (
        {"rate_rps": probe.load.rate_rps} if isinstance(probe.load, OpenLoop) else {"users": probe.load.users}
    )
    return Point(
        trial=outcome.trial,
        engine=outcome.configuration.engine,
        configuration=outcome.configuration.knobs,
        command=outcome.command,
        gpus=gpus,
        load=load,
        goodput_rps_per_gpu=probe.goodput_rps / gpus,
        ci95=None,
        attainment=probe.attainment,
        throughput_tok_s_per_gpu=probe.throughput_tok_s / gpus,
        tok_s_per_user=probe.tok_s_per_user,
        ttft_s=probe.ttft_s,
        itl_s=probe.itl_s,
        tpot_s=probe.tpot_s,
        e2e_s=probe.e2e_s,
        capacity_rps_per_gpu=(outcome.capacity_rps or 0.0) / gpus if isinstance(probe.load, OpenLoop) else None,
        capacity_by=outcome.capacity_by if isinstance(probe.load, OpenLoop) else None,
        fluidity=probe.fluidity,
        capacity_is_least=outcome.capacity_is_least,
    )


def _is_confirmed(value: Value) -> bool:
    """Whether the edge was reached, on enough seeds to compute an interval from."""
    return value.is_settled and len(value.per_seed) >= LEAST_SEEDS


def _is_bound(value: Value) -> bool:
    """Whether fresh seeds held the SLO at some level, but no edge was reached: it is worth at least so much."""
    return value.holds and not value.is_settled and len(value.per_seed) >= LEAST_SEEDS


def _verdict(outcomes: Sequence[Outcome], values: Mapping[int, Value]) -> Verdict:
    is_default = {outcome.trial: outcome.configuration.is_default for outcome in outcomes}
    default = next((value for trial, value in values.items() if is_default[trial]), None)
    challenger = next((value for trial, value in values.items() if not is_default[trial]), None)
    return decide(outcomes, default, challenger)


def _box_rps(point: Point, plan: Plan) -> float:
    """Good requests per second of the whole box, if every server on it does as well as the one measured."""
    return point.goodput_rps_per_gpu * point.gpus * (len(plan.box.gpus) // point.gpus)


def _wanted_rps(plan: Plan) -> float:
    return plan.slo.min_throughput_rps or 0.0


def _too_slow(best: Point, plan: Plan) -> Verdict:
    reached, wanted = _box_rps(best, plan), _wanted_rps(plan)
    why = f"the best, t{best.trial}, reaches {reached:.3g} req/s on {plan.box.title}; {wanted:g} req/s are wanted"
    return Verdict("nothing-meets-slo", why, "high", None, None)


def _unconfirmed(
    outcomes: Sequence[Outcome], values: Mapping[int, Value], at_least: Mapping[int, Value], trials: Sequence[int]
) -> Verdict:
    names = " and ".join(f"t{trial}" for trial in trials)
    why = f"{names} could not be followed to the edge of the SLO on fresh seeds"
    bounds = [f"at least {at_least[one].mean:.3g} req/s per GPU of t{one}" for one in trials if one in at_least]
    why += f", which saw {' and '.join(bounds)}" if bounds else ""
    return Verdict("inconclusive", why, "low", _best_searched(outcomes, values), None)


def _interrupted(outcomes: Sequence[Outcome], values: Mapping[int, Value], *, is_confirmed: bool) -> Verdict:
    best = _best_searched(outcomes, values)
    when = "while it was being concluded" if is_confirmed else "before the winner was measured again"
    why = f"stopped after {len(outcomes)} trials, {when}"
    return Verdict("interrupted", why, "low", best, None)


def _best_searched(outcomes: Sequence[Outcome], values: Mapping[int, Value]) -> int | None:
    """The trial of highest goodput in the search, but for those that did not hold it again on fresh seeds."""
    refuted = {trial for trial, value in values.items() if not value.holds}
    competing = [outcome for outcome in outcomes if outcome.competes and outcome.trial not in refuted]
    return best_of(competing).trial if competing else None


def _lacks(outcome: Outcome, confirmed: Mapping[int, Value]) -> bool:
    """Whether a finalist still has to be confirmed. A default that its search saw fail does not have to be."""
    return outcome.competes and outcome.trial not in confirmed


def _best_default(outcomes: Sequence[Outcome], values: Mapping[int, Value]) -> Outcome | None:
    """The best of the engines' defaults; None where none held the SLO, in its search or on fresh seeds."""
    fresh = {trial for trial, value in values.items() if value.holds}
    held = [one for one in outcomes if one.configuration.is_default and (one.competes or one.trial in fresh)]
    return best_of(held) if held else None


def _finalist_point(
    outcome: Outcome | None, values: Mapping[int, Value], runs: Sequence[FinalistRun]
) -> Point | None:
    """One configuration: from its fresh runs where it has some, else from its search. None where it does not hold.

    What fresh runs did not follow to an edge is worth at least what they saw: without an interval.
    """
    if outcome is None:
        return None
    assert outcome.best, "a trial that holds the SLO has a best probe"
    value = values.get(outcome.trial)
    if value is not None and not value.holds:
        return None
    if value is None:
        return searched_point(outcome, outcome.best)
    point = fresh_point(outcome, value, runs)
    return point if value.is_settled else replace(point, ci95=None)


def searched_point(outcome: Outcome, best: Score) -> Point:
    """What a search found, at the load of its best probe: no more than was good there, however far its curve goes."""
    good_rps = min(outcome.value_rps_per_gpu, best.attainment * best.offered_rps / outcome.configuration.gpus)
    return replace(point_of(outcome, best), goodput_rps_per_gpu=good_rps)


def fresh_point(outcome: Outcome, value: Value, runs: Sequence[FinalistRun]) -> Point:
    """A finalist at its edge: means over seeds, interpolated between the levels on either side of it."""
    own, (low, high) = [run for run in runs if run.trial == outcome.trial], value.between
    share = math.log(value.level / low) / math.log(high / low) if high > low else 0.0
    weighted = [(run.score, 1 - share) for run in own if run.rate == low]
    if high > low:
        weighted += [(run.score, share) for run in own if run.rate == high]
    point = point_of(outcome, weighted[0][0])
    level_key = next(iter(point.load))
    level = round(value.level) if level_key == "users" else float(f"{value.level:.3g}")
    return replace(
        point,
        load={level_key: level},
        goodput_rps_per_gpu=value.mean,
        ci95=value.ci95,
        attainment=value.attainment,
        throughput_tok_s_per_gpu=_mean([(one.throughput_tok_s, w) for one, w in weighted]) / point.gpus,
        tok_s_per_user=_mean([(one.tok_s_per_user, w) for one, w in weighted]),
        ttft_s=_mean_percentiles([(one.ttft_s, w) for one, w in weighted]),
        itl_s=_mean_percentiles([(one.itl_s, w) for one, w in weighted]),
        tpot_s=_mean_percentiles([(one.tpot_s, w) for one, w in weighted]),
        e2e_s=_mean_percentiles([(one.e2e_s, w) for one, w in weighted]),
        fluidity=_mean_fluidity([(one.fluidity, w) for one, w in weighted]),
    )


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    return sum(number * weight for number, weight in weighted) / sum(weight for _, weight in weighted)


def _mean_percentiles(seen: Sequence[tuple[Percentiles | None, float]]) -> Percentiles | None:
    """Each percentile in the weighted mean over windows."""
    some = [(one, weight) for one, weight in seen if one and weight > 0]
    if not some:
        return None
    return Percentiles(
        _mean([(p.p50, w) for p, w in some]),
        _mean([(p.p90, w) for p, w in some]),
        _mean([(p.p99, w) for p, w in some]),
    )


def _mean_fluidity(seen: Sequence[tuple[Fluidity | None, float]]) -> Fluidity | None:
    """Each figure in the weighted mean over the windows that have it."""
    some = [(one, weight) for one, weight in seen if one and weight > 0]
    if not some:
        return None
    return Fluidity(
        _mean_known([(one.mean_index, weight) for one, weight in some]),
        _mean_known([(one.fluid_frac, weight) for one, weight in some]),
        _mean_known([(one.rate_tok_s, weight) for one, weight in some]),
    )


def _mean_known(weighted: Sequence[tuple[float | None, float]]) -> float | None:
    known = [(number, weight) for number, weight in weighted if number is not None]
    return _mean(known) if known else None


def _counts(outcomes: Sequence[Outcome]) -> TrialCounts:
    by_state = {state: sum(outcome.state == state for outcome in outcomes) for state in get_args(TrialState)}
    return TrialCounts(total=len(outcomes), **by_state)


def _cost(outcomes: Sequence[Outcome], runs: Sequence[FinalistRun], sessions: Sequence[Session]) -> StudyCost:
    gpus = {outcome.trial: outcome.configuration.gpus for outcome in outcomes}
    startup = sum(one.cost.startup_s * one.configuration.gpus for one in outcomes)
    searching = sum(one.cost.measuring_s * one.configuration.gpus for one in outcomes)
    startup += sum(run.startup_s * gpus[run.trial] for run in runs)
    confirming = sum(run.measuring_s * gpus[run.trial] for run in runs)
    startup += sum(one.cut_startup_gpu_s for one in sessions)
    measuring = searching + confirming + sum(one.cut_measuring_gpu_s for one in sessions)
    wall_s = sum(one.wall_s for one in sessions)
    return StudyCost(wall_s, startup + measuring, startup, measuring)
