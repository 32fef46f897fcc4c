"""What `tune bench` prints at its end: what the server is worth. Pure text, 80 columns."""

import textwrap
from collections.abc import Sequence

from tuner.benched import Benched, came_rps
from tuner.benchfolder import seen_rps
from tuner.benchorder import Bench
from tuner.curve import level_of
from tuner.fluidity import FLUID_INDEX
from tuner.goodput import ABOUT
from tuner.latencies import Percentiles
from tuner.score import Score
from tuner.target import ClosedLoop, Load, OpenLoop
from tuner.terminal.benching import replaced
from tuner.wording.inside import Knobs, said_in
from tuner.wording.naming import METRICS, bound_text, slo_text
from tuner.wording.numbers import DASH, kept_up_with, latency, load_text, number, share, users_text, wanted_share

LABEL, WIDTH = 20, 78
# The share by which what came may differ from the load without a word.
FAR_OFF = 0.1
TIE = "\u00a0"


def heading(url: str, model: str, order: Bench) -> str:
    """What is measured, by which rule, and what of the workload is not as it says."""
    asked = f"{model} at {url} · {order.slo.name} SLO · workload {order.workload.name}"
    return "\n".join([asked, *(f"  {line}" for line in (slo_text(order.slo), replaced(order)) if line)])


def benched_text(found: Benched, order: Bench) -> str:
    """The summary as it is printed."""
    blocks = [[*_cut_short(found, order), *_goodput(found, order), *_watch(found.watch)]]
    if found.best is not None:
        knobs = found.outcome.configuration.knobs
        blocks += [_latencies(found, order), _pace(found.best), _engine(found.best, knobs)]
    if len(found.outcome.probes) > 1:
        blocks.append(_levels(found, order))
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks if block) + "\n"


def _cut_short(found: Benched, order: Bench) -> list[str]:
    if found.cut is None:
        return []
    during = f"at {_at(found.cut.load, order)}" if found.cut.load else "before any load was offered"
    several = "1 probe" if len(found.outcome.probes) == 1 else f"{len(found.outcome.probes)} probes"
    behind = f", after {several}" if found.outcome.probes else ""
    what = "the search" if order.is_search else "the probe"
    said = {
        "user": ("stopped", f"{during}{behind}; {what} had not ended"),
        "server": ("the server died", f"{during}{behind}: {found.cut.why}"),
        "client": ("ended early", f"{during}{behind}: {found.cut.why}"),
    }
    return _wrapped(*said[found.cut.by])


def _goodput(found: Benched, order: Bench) -> list[str]:
    best, outcome = found.best, found.outcome
    if best is None:
        return _row("goodput", f"{DASH}, no load was measured to its end")
    if order.load is None and not outcome.holds_slo:
        lines = _none_holds(best, order)
    else:
        what = "the SLO" if order.load is None else "every limit"
        lines = _row("goodput", f"{number(seen_rps(found, best))} req/s{_per(order)} that meet {what}")
        lines += _row("at a load of", f"{_at(best.load, order)}{_came(best)}")
        lines += _edge(found, order)
        lines += _unconfirmed(best.load, order)
    lines += _in_slo(best, order)
    missed = [f"{METRICS.get(name, name)} {count}" for name, count in best.missed.items() if count]
    if missed:
        lines += _row("over a limit", " · ".join(missed))
    if outcome.capacity_rps is not None and order.load is None:
        rate = kept_up_with(outcome.capacity_rps, is_least=outcome.capacity_is_least)
        lines += _row("kept up with", f"{rate} req/s: queue short, pooled p99 gap in its limit")
    return lines


def _none_holds(best: Score, order: Bench) -> list[str]:
    """Where a lucky window held the SLO, it is the curve through all of them that does not."""
    if best.attainment < order.slo.attainment:
        return _row("goodput", f"{DASH}, no load met the SLO; the closest to it: {_at(best.load, order)}")
    lines = _row("goodput", f"{DASH}, no load worth having meets the SLO, by all probes")
    return lines + _row("the closest", f"{_at(best.load, order)}, whose window met it")


def _in_slo(best: Score, order: Bench) -> list[str]:
    """Fewer requests than decide, but for chance in how many come, are no reason to be content."""
    deciding, is_met = order.slo.deciding_requests, best.attainment >= order.slo.attainment
    is_little = best.counted < ABOUT * deciding if is_met else not best.counted
    mark = "?" if is_little else "✓" if is_met else "✗"
    seen = f"{share(best.attainment)} of {best.counted:,}, one window"
    lines = _row("requests in SLO", f"{seen}  {mark} need {wanted_share(order.slo.attainment)}")
    return lines + (_row("", f"too few to tell: {deciding:,} would") if is_little else [])


def _edge(found: Benched, order: Bench) -> list[str]:
    """Up to which load the SLO is held, and who says so."""
    best = found.best
    if best is None or not (order.is_search or order.is_ramp):
        return []
    level = level_of(best.load)
    if found.edge is None or found.fitted is None:
        return _row("holds at least", f"{_level(level, order)}; no higher load that misses it was offered")
    if order.is_ramp:
        return _row("holds up to", f"{_level(found.edge, order)}, the last step that did")
    if found.fitted >= level:
        return _row("holds up to", f"{_level(found.edge, order)}, fitted through all probes")
    return _row(
        "holds up to", f"{_level(found.edge, order)}, as seen; fitted through all probes: {number(found.fitted)}"
    )


def _level(level: float, order: Bench) -> str:
    if order.workload.arrivals.kind != "closed":
        return f"{number(level)} req/s"
    return users_text(round(level)) if level == round(level) else f"{number(level)} users"


def _unconfirmed(load: Load, order: Bench) -> list[str]:
    """A single search is now and then far off, and its curve cannot tell: other requests can."""
    if not (order.is_search or order.is_ramp):
        return []
    at = (
        f"--users {load.users}"
        if isinstance(load, ClosedLoop)
        else f"--rate {number(load.rate_rps).replace(',', '')}"
    )
    how = "one search, unconfirmed" if order.is_search else "best of many short steps"
    return _row("how sure", f"{how}; to confirm: {at} --seed {order.seed + 1}")


def _at(load: Load, order: Bench) -> str:
    if isinstance(load, ClosedLoop) and order.is_at_once:
        return f"{load.users:,} requests at once"
    return load_text(load)


def _came(best: Score) -> str:
    """A short window of bursts or sessions may hold far more or fewer requests than its load promises."""
    came = came_rps(best)
    if came is None or not isinstance(best.load, OpenLoop) or abs(came / best.load.rate_rps - 1) < FAR_OFF:
        return ""
    return f"; {number(came)} req/s came in the window"


def _watch(lines: Sequence[str]) -> list[str]:
    return [row for number, line in enumerate(lines) for row in _wrapped("" if number else "watch", line)]


def _latencies(found: Benched, order: Bench) -> list[str]:
    """Beside a limit stand the figures that it judges: of gaps, the P99 of each answer's own."""
    best, limits = found.best, order.slo.limits
    assert best is not None
    own = found.own_itl_s(best)
    judged: list[tuple[str, Percentiles | None, str]] = [
        (METRICS["ttft_s"], best.ttft_s, "ttft_s"),
        (METRICS["tpot_s"], best.tpot_s, "tpot_s"),
        (f"P99 {METRICS['itl_s']} of each", own, "itl_s"),
        (f"{METRICS['itl_s']}, all gaps", best.itl_s, ""),
        (METRICS["e2e_s"], best.e2e_s, "e2e_s"),
    ]
    lines = [f"  {'':<{LABEL}}" + "".join(f"{name:>11}" for name in ("p50", "p90", "p99"))]
    for label, seen, name in judged:
        figures = [DASH] * 3 if seen is None else [latency(one) for one in (seen.p50, seen.p90, seen.p99)]
        bound = f"   limit {bound_text(limits, name)}" if name in limits.present() else ""
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
    return [line.replace(TIE, " ") for line in _wrapped("the engine itself", said)]


def _levels(found: Benched, order: Bench) -> list[str]:
    """Every probe, by load; goodput as above, for each GPU."""
    good = "goodput" if order.gpus == 1 else "goodput/GPU"
    lines = [f"  {'load':<14}{'in SLO':>9}{good:>12}{'tok/s':>10}{'tok/s/user':>13}{'TTFT p99':>12}"]
    for one in sorted(found.outcome.probes, key=lambda score: level_of(score.load)):
        ttft = latency(one.ttft_s.p99 if one.ttft_s else None)
        figures = (share(one.attainment), f"{number(seen_rps(found, one))} req/s", number(one.throughput_tok_s))
        stopped = "  stopped early" if one.stopped else ""
        lines.append(
            f"  {_at(one.load, order):<14}{figures[0]:>9}{figures[1]:>12}{figures[2]:>10}"
            f"{number(one.tok_s_per_user):>13}{ttft:>12}{stopped}"
        )
    return lines


def _per(order: Bench) -> str:
    return f" per GPU, {order.gpus} of them," if order.gpus > 1 else ""


def _row(label: str, text: str) -> list[str]:
    return [f"  {label:<{LABEL}}{text}"]


def _wrapped(label: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, WIDTH - LABEL, break_on_hyphens=False, break_long_words=False)
    return [row for number, line in enumerate(lines) for row in _row("" if number else label, line)]
