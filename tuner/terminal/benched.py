"""What `tune bench` prints: a line for each probe, then what the server is worth. Pure text, 80 columns."""

import textwrap
from collections.abc import Sequence

from tuner.bench import Bench, Benched
from tuner.benchfolder import goodput_rps, seen_rps
from tuner.config.slo import Slo
from tuner.fluidity import FLUID_INDEX
from tuner.latencies import Percentiles
from tuner.probe import IDLE_REQUESTS, Recorded
from tuner.score import Score
from tuner.target import ClosedLoop, Load
from tuner.wording.inside import Knobs, said_in
from tuner.wording.naming import METRICS, bound_text, slo_text
from tuner.wording.numbers import DASH, kept_up_with, latency, load_text, number, share, wanted_share

LABEL, WIDTH = 20, 78
TIE = "\u00a0"


def heading(url: str, model: str, order: Bench) -> str:
    """What is measured, and by which rule."""
    return f"{model} at {url} · {order.slo.name} SLO · workload {order.workload.name}\n  {slo_text(order.slo)}"


def probe_line(probe: Recorded) -> str:
    """`8 req/s  98.61 % in SLO of 1,020 requests · TTFT p99 212 ms · …`, for a finished probe."""
    found = probe.score
    named = {"ttft_s": found.ttft_s, "tpot_s": found.tpot_s}
    tails = [f"{METRICS[name]} p99 {latency(seen.p99)}" for name, seen in named.items() if seen]
    where = "one at a time" if probe.stage == "idle" else load_text(found.load)
    stopped = ["stopped early"] if found.stopped else []
    return " · ".join([f"{where}: {share(found.attainment)} in SLO of {found.counted:,} requests", *tails, *stopped])


def progress_line(score: Score, done_frac: float) -> str:
    """A probe under way."""
    seen = f", {share(score.attainment)} of {score.counted:,} in SLO so far" if score.counted else ""
    where = "one at a time" if score.load == ClosedLoop(1) else load_text(score.load)
    return f"{where}: {100 * done_frac:.0f} % of the window{seen}"


def idle_line(score: Score) -> str:
    """The idle probe under way: it ends with its last request, long before its window."""
    seen = f", {share(score.attainment)} in SLO so far" if score.counted else ""
    return f"one at a time: {score.counted} of {IDLE_REQUESTS} requests{seen}"


def benched_text(found: Benched, order: Bench) -> str:
    """The summary as it is printed."""
    blocks = [_goodput(found, order)]
    best = found.outcome.best
    if best is not None:
        blocks += [_latencies(best, order.slo), _pace(best), _engine(best, found.outcome.configuration.knobs)]
    if len(found.outcome.probes) > 1:
        blocks.append(_levels(found, order))
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks if block) + "\n"


def _goodput(found: Benched, order: Bench) -> list[str]:
    best, outcome = found.outcome.best, found.outcome
    if best is None:
        return _row("goodput", f"{DASH}, no load was measured to its end")
    wanted = f"need {wanted_share(order.slo.attainment)}"
    lines = _row("stopped", _how_far(outcome.probes)) if found.interrupted else []
    if order.load is None and not outcome.holds_slo:
        lines += _row("goodput", f"{DASH}, no load met the SLO; the closest did at {load_text(best.load)}")
    else:
        what = "the SLO" if order.load is None else "every limit"
        lines += _row("goodput", f"{number(goodput_rps(found, order))} req/s{_per(order)} that meet {what}")
        lines += _row("at a load of", load_text(best.load))
        lines += _unconfirmed(best.load, order) if order.is_search else []
    mark = "✓" if best.attainment >= order.slo.attainment else "✗"
    lines += _row("requests in SLO", f"{share(best.attainment)} of {best.counted:,}, one window  {mark} {wanted}")
    missed = [f"{METRICS.get(name, name)} {count}" for name, count in best.missed.items() if count]
    if missed:
        lines += _row("over a limit", " · ".join(missed))
    if found.edge is not None:
        users = "users" if order.workload.arrivals.kind == "closed" else "req/s"
        lines += _row("holds up to", f"{number(found.edge)} {users}, fitted through all probes")
    if outcome.capacity_rps is not None and order.load is None:
        rate = kept_up_with(outcome.capacity_rps, is_least=outcome.capacity_is_least)
        lines += _row("kept up with", f"{rate} req/s: queue short, pooled p99 gap in its limit")
    return lines


def _unconfirmed(load: Load, order: Bench) -> list[str]:
    """A single search is now and then far off, and its curve cannot tell: other requests can."""
    at = (
        f"--users {load.users}"
        if isinstance(load, ClosedLoop)
        else f"--rate {number(load.rate_rps).replace(',', '')}"
    )
    return _row("how sure", f"one search, unconfirmed; to confirm: {at} --seed {order.seed + 1}")


def _how_far(probes: Sequence[Score]) -> str:
    several = f"{len(probes)} probes" if len(probes) > 1 else "1 probe"
    return f"after {several}; the search had not ended"


def _latencies(best: Score, slo: Slo) -> list[str]:
    rows: list[tuple[str, Percentiles | None, str]] = [
        (METRICS["ttft_s"], best.ttft_s, "ttft_s"),
        (METRICS["tpot_s"], best.tpot_s, "tpot_s"),
        (f"{METRICS['itl_s']}, all gaps", best.itl_s, "itl_s"),
        (METRICS["e2e_s"], best.e2e_s, "e2e_s"),
    ]
    lines = [f"  {'':<{LABEL}}" + "".join(f"{name:>11}" for name in ("p50", "p90", "p99"))]
    for label, seen, name in rows:
        figures = [DASH] * 3 if seen is None else [latency(one) for one in (seen.p50, seen.p90, seen.p99)]
        bound = f"   limit {bound_text(slo.limits, name)}" if name in slo.limits.present() else ""
        lines.append(f"  {label:<{LABEL}}" + "".join(f"{figure:>11}" for figure in figures) + bound)
    return lines


def _pace(best: Score) -> list[str]:
    lines = _row(
        "output tokens", f"{number(best.throughput_tok_s)} tok/s, {number(best.tok_s_per_user)} to each user"
    )
    fluid = best.fluidity
    if fluid and fluid.mean_index is not None:
        lines += _row(
            "fluidity",
            f"{share(fluid.mean_index)} of token deadlines met; "
            f"{share(fluid.fluid_frac)} of answers met {wanted_share(FLUID_INDEX)}",
        )
    if fluid and fluid.rate_tok_s is not None:
        lines += _row("fluid token rate", f"{number(fluid.rate_tok_s)} tok/s")
    return lines


def _engine(best: Score, knobs: Knobs) -> list[str]:
    """What the engine said of itself, of all its traffic; nothing where it said nothing."""
    said = " · ".join(text.replace(" ", TIE) for text in said_in(best, knobs))
    lines = textwrap.wrap(said, WIDTH - LABEL, break_on_hyphens=False)
    labels = ["the engine itself", *[""] * len(lines)]
    return [row for label, line in zip(labels, lines, strict=False) for row in _row(label, line.replace(TIE, " "))]


def _levels(found: Benched, order: Bench) -> list[str]:
    """Every probe, by load."""
    lines = [f"  {'load':<14}{'in SLO':>9}{'goodput':>12}{'tok/s':>10}{'tok/s/user':>13}{'TTFT p99':>12}"]
    for one in sorted(found.outcome.probes, key=lambda score: score.offered_rps):
        ttft = latency(one.ttft_s.p99 if one.ttft_s else None)
        good = f"{number(seen_rps(found, one) * order.gpus)} req/s"
        figures = (share(one.attainment), good, number(one.throughput_tok_s))
        stopped = "  stopped early" if one.stopped else ""
        lines.append(
            f"  {load_text(one.load):<14}{figures[0]:>9}{figures[1]:>12}{figures[2]:>10}"
            f"{number(one.tok_s_per_user):>13}{ttft:>12}{stopped}"
        )
    return lines


def _per(order: Bench) -> str:
    return f" per GPU, {order.gpus} of them," if order.gpus > 1 else ""


def _row(label: str, text: str) -> list[str]:
    return [f"  {label:<{LABEL}}{text}"]
