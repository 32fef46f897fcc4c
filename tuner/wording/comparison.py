"""The default and the best side by side, figure by figure, as terminal and page show them. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from tuner.config.plan import Plan
from tuner.config.slo import Slo
from tuner.latencies import Percentiles
from tuner.score import Score
from tuner.summary import Point, Summary
from tuner.wording.naming import METRICS, bound_text, grows_with_prompt
from tuner.wording.numbers import (
    device,
    dollars_per_million_tokens,
    goodput,
    kept_up_with,
    latency,
    number,
    share,
    wanted_share,
)

# A point stands at the edge of its SLO, where a percentile meets its limit: so near, it is at the limit, not over it.
AT_THE_LIMIT = 1.02


@dataclass(frozen=True)
class Row:
    """One figure of the default and of the best. `holds`: whether what is deployed meets the limit in `note`."""

    label: str
    default: str
    best: str
    holds: bool | None = None
    note: str = ""


def deployed(summary: Summary) -> Point | None:
    """The point whose command the user should run: the default where it is kept, else the best."""
    return summary.default or summary.best if summary.verdict == "keep-default" else summary.best


SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def percentile_name(attainment: float) -> str:
    """The highest percentile that an SLO with this attainment says something about."""
    if attainment >= 0.99:
        return "p99"
    return "p90" if attainment >= 0.9 else "p50"


def at_percentile(of: Point | Score, metric: str, attainment: float) -> float | None:
    """The metric's percentile that an SLO with this attainment speaks of, in seconds; None where nothing was seen."""
    percentiles: Percentiles | None = getattr(of, metric)
    return None if percentiles is None else float(getattr(percentiles, percentile_name(attainment)))


def comparison(summary: Summary, plan: Plan) -> tuple[Row, ...]:
    """Default against best, figure by figure; a cell is empty where its point does not exist."""
    per, slo, both = device(plan), plan.slo, (summary.default, summary.best)
    unit = "users" if any(point and "users" in point.load for point in both) else "req/s"
    rows = [
        _row(summary, f"goodput, req/s per {per}", goodput),
        _row(summary, f"at a load of, {unit} per {per}", lambda point: number(offered_per_gpu(point))),
    ]
    if any(point and point.gpus > 1 for point in both):
        rows.append(_row(summary, f"{per}s per server", lambda point: str(point.gpus)))
    price = plan.box.gpu.dollars_per_hour
    if price is not None:
        note = f"${price:.2f} per {per}-hour"
        rows.append(_row(summary, "$ per million out tokens", lambda point: _cost(point, price), note=note))
    if any(point and point.capacity_rps_per_gpu for point in both):
        rows.append(_capacity_row(summary, f"kept up with, req/s per {per}"))
    rows += [_latency_row(summary, name, slo) for name in slo.limits.present()]
    chosen = deployed(summary)
    holds = chosen.attainment >= slo.attainment if chosen else None
    note = f"need {wanted_share(slo.attainment)}"
    rows.append(_row(summary, "requests inside the SLO", lambda point: share(point.attainment), holds, note))
    rows.append(_row(summary, f"output tok/s per {per}", lambda point: number(point.throughput_tok_s_per_gpu)))
    rows.append(_row(summary, "output tok/s per user", lambda point: number(point.tok_s_per_user)))
    return tuple(rows)


def offered_per_gpu(point: Point) -> float:
    """The load in req/s or users, per GPU."""
    return next(iter(point.load.values())) / point.gpus


def _row(
    summary: Summary, label: str, show: Callable[[Point], str], holds: bool | None = None, note: str = ""
) -> Row:
    default, best = summary.default, summary.best
    return Row(label, show(default) if default else "", show(best) if best else "", holds, note)


def _capacity_row(summary: Summary, label: str) -> Row:
    """G3, whatever the SLO's attainment; a dash where none of the measured rates was kept up with."""
    chosen = deployed(summary)
    short = "TTFT stayed short" if chosen and chosen.capacity_by == "ttft" else "queue stayed short"
    return _row(summary, label, _capacity_text, note=short)


def _capacity_text(point: Point) -> str:
    return kept_up_with(point.capacity_rps_per_gpu, is_least=point.capacity_is_least)


def _latency_row(summary: Summary, metric: str, slo: Slo) -> Row:
    chosen, attainment, bound = deployed(summary), slo.attainment, slo.limits.present()[metric]
    seen = at_percentile(chosen, metric, attainment) if chosen else None
    gaps = ", all gaps" if metric == "itl_s" else ""
    label = f"{METRICS[metric]} {percentile_name(attainment)}{gaps}"
    # The percentile over all gaps is shown, but a request is judged by the P99 of its own gaps, or its own limit.
    judged = metric != "itl_s" and not grows_with_prompt(slo.limits, metric) and seen is not None
    is_at_limit = judged and seen is not None and bound < seen <= bound * AT_THE_LIMIT
    holds = _is_held(seen, bound, attainment) if judged and seen is not None and not is_at_limit else None
    said = bound_text(slo.limits, metric)
    note = f"at its limit, {said}" if is_at_limit else f"limit {said}"
    note = f"{note} each" if metric == "itl_s" else note
    return _row(summary, label, lambda point: latency(at_percentile(point, metric, attainment)), holds, note)


def _is_held(seen_s: float, bound_s: float, attainment: float) -> bool | None:
    """Whether a limit is held by as many requests as the percentile shown is of; None where more have to hold it."""
    if seen_s > bound_s:
        return False
    return True if SHARES[percentile_name(attainment)] >= attainment else None


def _cost(point: Point, dollars_per_hour: float) -> str:
    price = dollars_per_million_tokens(dollars_per_hour, point.throughput_tok_s_per_gpu)
    return number(price, 2)
