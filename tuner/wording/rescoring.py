"""What a re-scoring rests on, in words: the same for terminal and files. Pure."""

from tuner.config.slo import Slo
from tuner.rescore import Rescored
from tuner.rescorebench import RescoredBench
from tuner.wording.naming import slo_text, trial_name
from tuner.wording.numbers import device, number


def basis(rescored: Rescored, study: str) -> tuple[str, ...]:
    """Which study was re-scored, and from which loads; then what that leaves open."""
    scope, plan = rescored.scope, rescored.plan
    lines = [
        f"a re-scoring of {study}, measured for SLO {scope.was.name} ({slo_text(scope.was)}), under SLO "
        f"{plan.slo.name} ({slo_text(plan.slo)}); nothing was measured again",
        f"loads: {scope.probes} probes{_span(rescored)} and {scope.windows} fresh windows of finalists, all of "
        f"workload {plan.workload.name}",
    ]
    if plan.slo.workload != plan.workload.name:
        lines.append(f"SLO {plan.slo.name} is meant for workload {plan.slo.workload}; the study measured another")
    lines += _stopped(scope.unusable, scope.was, "more ")
    if scope.open_ended:
        names = ", ".join(trial_name(trial) for trial in scope.open_ended)
        lines.append(f"may be worth more than the best, at loads that were not offered: {names}")
    return (*lines, *_windows(plan.slo, scope.was.timeout_s))


def bench_basis(rescored: RescoredBench, folder: str) -> tuple[str, ...]:
    """Which bench was re-scored, and what that leaves open."""
    order, was = rescored.bench.order, rescored.was
    lines = [
        f"a re-scoring of {folder}, measured for SLO {was.name} ({slo_text(was)}), under SLO {order.slo.name} "
        f"({slo_text(order.slo)}); nothing was measured again",
    ]
    if order.slo.workload != order.workload.name:
        lines.append(f"SLO {order.slo.name} is meant for workload {order.slo.workload}; the bench offered another")
    lines += _stopped(rescored.unusable, was, "")
    if rescored.is_open_ended:
        lines.append("it may be worth more, at loads that were not offered")
    return (*lines, *_windows(order.slo, was.timeout_s))


def _stopped(unusable: int, was: Slo, more: str) -> list[str]:
    if not unusable:
        return []
    probes = f"1 {more}probe was" if unusable == 1 else f"{unusable} {more}probes were"
    return [f"{probes} stopped early under {was.name}, too soon to tell under this SLO"]


def _span(rescored: Rescored) -> str:
    span = rescored.scope.loads_per_gpu
    if span is None:
        return ""
    in_users = rescored.plan.workload.arrivals.kind in {"closed", "at_once"}
    unit = "users" if in_users else "req/s"
    return f" at {number(span[0])} … {number(span[1])} {unit} per {device(rescored.plan)}"


def _windows(slo: Slo, followed_s: float) -> tuple[str, ...]:
    """A request that was given up may have been good under limits that let it wait longer."""
    longest_s = max(slo.limits.present().values(), default=slo.timeout_s)
    if longest_s <= followed_s:
        return ()
    return (f"requests were followed for {number(followed_s)} s; those given up then count as bad",)
