"""What a re-scoring rests on, in words: the same for terminal and files. Pure."""

from tuner.config.plan import Plan
from tuner.rescore import Rescored
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
    if scope.unusable:
        probes = "1 more probe was" if scope.unusable == 1 else f"{scope.unusable} more probes were"
        lines.append(f"{probes} stopped early under {scope.was.name}, too soon to tell under this SLO")
    if scope.open_ended:
        names = ", ".join(trial_name(trial) for trial in scope.open_ended)
        lines.append(f"may be worth more than the best, at loads that were not offered: {names}")
    return (*lines, *_windows(plan, scope.was.timeout_s))


def _span(rescored: Rescored) -> str:
    span = rescored.scope.loads_per_gpu
    if span is None:
        return ""
    in_users = rescored.plan.workload.arrivals.kind in {"closed", "at_once"}
    unit = "users" if in_users else "req/s"
    return f" at {number(span[0])} … {number(span[1])} {unit} per {device(rescored.plan)}"


def _windows(plan: Plan, followed_s: float) -> tuple[str, ...]:
    """A request that was given up may have been good under limits that let it wait longer."""
    longest_s = max(plan.slo.limits.present().values(), default=plan.slo.timeout_s)
    if longest_s <= followed_s:
        return ()
    return (f"requests were followed for {number(followed_s)} s; those given up then count as bad",)
