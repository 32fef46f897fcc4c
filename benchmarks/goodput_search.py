"""How well the search finds a server's goodput, at what cost, and how often intervals of finalists hold the truth.

    python benchmarks/goodput_search.py [--workers 2] [--seeds 10] [--first-seed 3000] [--replications 200]
        [--cache FOLDER] [--out FILE]

Simulated servers in virtual time, so that the truth can be had by brute force (`goodput_truth.py`). What was run
before is read from the cache. Prints what it writes, with a plot.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
from goodput_cases import CASES, SOFT, Case, configuration_of, open_case, plan_of
from goodput_intervals import MORE_SEEDS, PAIRS, SEEDS, Coverage, coverage_of
from goodput_truth import SIMULATED_BY, TRACES, Truth, Windows, fingerprint, truth_of

from tuner.trial import TrialOrder, prober_for, search_load

NEARLY = 0.05
SOFT_TRACES = (24,)
INCUMBENT = 0.9
"""A warm search begins at this share of the true value, as if the best configuration so far were worth that."""

SEARCHED_BY = (
    "tuner/curve.py",
    "tuner/goodput.py",
    "tuner/horizon.py",
    "tuner/latencies.py",
    "tuner/probe.py",
    "tuner/score.py",
    "tuner/trial.py",
    "tuner/workload/typical.py",
)
"""Code that other searches would come of."""

BUDGET_REQUESTS = {0.99: 12_000, 0.9: 3_000, 0.0: 12_000}


@dataclass(frozen=True)
class Found:
    """One search: what it claims and the level it recommends, relative to the truth; what it cost.

    `true_goodput` is what the server really gives at the level recommended, relative to the truth, with `attainment`.
    `counted` requests in windows, of `sent`; seconds that the server was held.
    """

    case: str
    wanted: float
    start: str
    claimed: float
    true_goodput: float
    attainment: float
    probes: int
    counted: int
    sent: int
    server_s: float


def main() -> None:
    """Truth, searches, intervals; print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=3000, help="tune the search on others than you publish")
    parser.add_argument("--replications", type=int, default=200, help="0: as many as are kept")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/goodtune/benchmarks")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    chosen = parser.parse_args()
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    started_s, folder = time.perf_counter(), chosen.cache / fingerprint(*SIMULATED_BY)
    with ProcessPoolExecutor(chosen.workers) as pool:
        cases = (*CASES, *SOFT)
        truths = dict(zip(cases, pool.map(_truth, cases, [folder] * len(cases)), strict=True))
        kept = folder / f"searches-{fingerprint(*SEARCHED_BY)}-{seeds.start}-{seeds.stop}.json"
        if not kept.exists():
            jobs = [(case, truths[case], seed) for case in CASES for seed in seeds]
            rows = [asdict(one) for both in pool.map(_search, jobs) for one in both]
            kept.write_text(json.dumps(rows), encoding="utf-8")
        found = [Found(**row) for row in json.loads(kept.read_text(encoding="utf-8"))]
    wanted = [(pair, SEEDS) for pair in PAIRS] + [(PAIRS[0], MORE_SEEDS)]
    intervals = [coverage_of(pair, number, chosen.replications, folder, chosen.workers) for pair, number in wanted]
    effort = f"{time.perf_counter() - started_s:.0f} s with {chosen.workers} workers beside what was in the cache"
    text = report(truths, found, intervals, effort)
    chosen.out.write_text(text, encoding="utf-8")
    plot(found).save(chosen.out.with_suffix(".svg"))
    print(text)


def _truth(case: Case, folder: Path) -> Truth:
    return truth_of(Windows(case, folder), SOFT_TRACES if case in SOFT else TRACES)


def _search(job: tuple[Case, Truth, int]) -> list[Found]:
    """One case under one seed: cold, as the first trial of a study, and warm, as a later one."""
    case, truth, seed = job
    # Under the same seeds all cases would meet the same windows, and share their luck.
    own = seed * 1000 + CASES.index(case)
    return [_searched(case, truth, own, start) for start in ("cold", "warm")]


def _searched(case: Case, truth: Truth, seed: int, start: str) -> Found:
    target, plan = open_case(case), replace(plan_of(case), seed=seed)
    hint = INCUMBENT * truth.value_rps / case.gpus if start == "warm" else 0.0
    order = TrialOrder(plan, 0, configuration_of(case), tuple(range(case.gpus)), hint)
    prober, since_s = prober_for(order, target, lambda event: None), target.clock_s()
    answer = search_load(order, prober, lambda event: None)
    level = answer.edge or 0.0
    attainment = truth.attainment_at(level) if level else 0.0
    return Found(
        case.name, case.attainment, start, answer.goodput_rps / truth.value_rps,
        level * attainment / truth.value_rps, attainment, len(answer.probes),
        sum(one.counted for one in answer.probes), sum(len(one.log) for one in prober.recorded),
        target.clock_s() - since_s,
    )  # fmt: skip


def report(
    truths: dict[Case, Truth], found: list[Found], intervals: list[tuple[list[Coverage], float]], effort: str
) -> str:
    """Everything as Markdown."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    seeds = len(found) // len(CASES) // 2
    return f"""# Finding goodput, and how sure one can be of it

{len(CASES)} simulated servers under SLOs of the product, in virtual time; truth and words: docs/measurement.md.
{seeds} seeds each, other ones for every case, none of which was used to tune the search.
Cold: nothing known. Warm: begins at {INCUMBENT:.0%} of the truth, as after an earlier trial.

{machine}; {date.today().isoformat()}; {effort}; `python benchmarks/goodput_search.py`

Without a cache: half an hour of processor time for the truths, 10 minutes for the searches, and for each replication
of an interval 4 s on the gentle slope and 10 s at the cliff.

## The search
Share of searches whose claimed value is at least 95 % of the truth, within 5 % of it, above 105 % of it; whose true
goodput at the recommended load is at least 95 % of the truth; median error of the claim; medians of cost.
`cases ≥ 95 %`: share of cases whose median claim over seeds is.
`ideal ±5 %`: of a search that knew the edge and spent every request of the bar's budget there, from the spread of
attainment between windows: what noise alone allows.

{_table(_summary(truths, found))}

![Claimed value by case](goodput_search.svg)

## Intervals
Two finalists on {SEEDS} seeds, as a study has them, and on {MORE_SEEDS}: 95 % intervals of confirmations, each
replicated on fresh seeds. Levels begin where a search with an error of 5 % would have put them. `bound`: ended
without an edge or peak, so without an interval.

{_table([_coverage_row(row) for rows, _ in intervals for row in rows])}

Median half-width of all intervals of single values on {SEEDS} seeds: {_half_width(intervals, PAIRS)}; of those under
Poisson arrivals, which all but `code` have: {_half_width(intervals, [one for one in PAIRS if not _is_bursty(one)])}.
Median server-seconds of a confirmation of both: {", ".join(f"{server_s:.0f}" for _, server_s in intervals)}.

## Cases
Power: odds of a bad request grow as load to this power near the edge. Dispersion: variance of a window's attainment
over that of independent requests. Ratios are of claims to truth, cold then warm.

{_table([_case_row(case, truths[case], found) for case in CASES])}

Not searched, because the truth itself is not known to 2 %: attainment hardly depends on load there.

{_table([_case_row(case, truths[case], []) for case in SOFT])}
"""


def _summary(truths: dict[Case, Truth], found: list[Found]) -> list[dict[str, str]]:
    groups = [(f"{wanted:g} {start}", wanted, start) for wanted in (0.99, 0.9, 0.0) for start in ("cold", "warm")]
    rows = []
    for name, wanted, start in [*groups, ("all", None, None)]:
        own = [one for one in found if wanted is None or (one.wanted, one.start) == (wanted, start)]
        claims = np.array([one.claimed for one in own])
        ideal = [_ideal(case, truths[case]) for case in CASES if wanted is None or case.attainment == wanted]
        rows.append({
            "attainment": name, "searches": f"{len(own)}", "≥ 95 %": f"{(claims >= 1 - NEARLY).mean():.0%}",
            "cases ≥ 95 %": f"{np.mean([claim >= 1 - NEARLY for claim in _medians(own)]):.0%}",
            "±5 %": f"{(abs(claims - 1) <= NEARLY).mean():.0%}", "ideal ±5 %": f"{np.mean(ideal):.0%}",
            "> 105 %": f"{(claims > 1 + NEARLY).mean():.0%}",
            "true ≥ 95 %": f"{np.mean([one.true_goodput >= 1 - NEARLY for one in own]):.0%}",
            "median error": f"{np.median(abs(claims - 1)):.1%}", "bias": f"{np.median(claims) - 1:+.1%}",
            "probes": f"{statistics.median(one.probes for one in own):g}",
            "counted": f"{statistics.median(one.counted for one in own):.0f}",
            "sent": f"{statistics.median(one.sent for one in own):.0f}",
            "server-s": f"{statistics.median(one.server_s for one in own):.0f}",
        })  # fmt: skip
    return rows


def _medians(found: list[Found]) -> list[float]:
    """The median claim of each case and start, over seeds."""
    return [
        statistics.median(one.claimed for one in found if (one.case, one.start) == both)
        for both in sorted({(one.case, one.start) for one in found})
    ]


def _ideal(case: Case, truth: Truth) -> float:
    """The chance to be within 5 % with all requests of the budget at the known edge of a known slope."""
    nearest = int(np.argmin(np.abs(np.log(np.array(truth.rates) / truth.level))))
    slo, rate_rps = plan_of(case).slo, truth.rates[nearest]
    in_window = max(slo.window_s * rate_rps, slo.deciding_requests)
    spread = truth.spread[nearest] * (in_window / BUDGET_REQUESTS[case.attainment]) ** 0.5
    # At a peak an error of attainment is one of goodput; at an edge it is one of load.
    error = spread / truth.attainment[nearest] if case.attainment == 0 else spread / max(truth.slope, 1e-6)
    return 1.0 if error <= 0 else 1 - 2 * statistics.NormalDist().cdf(-NEARLY / error)


def _half_width(intervals: list[tuple[list[Coverage], float]], pairs: Sequence[tuple[Case, Case]]) -> str:
    chosen = [rows for pair, (rows, _) in zip(PAIRS, intervals, strict=False) if pair in pairs]
    return f"±{statistics.median(width for rows in chosen for row in rows[:2] for width in row.half_widths):.1%}"


def _is_bursty(pair: tuple[Case, Case]) -> bool:
    return plan_of(pair[0]).workload.arrivals.kind == "gamma"


def _coverage_row(row: Coverage) -> dict[str, str]:
    half_width = f"±{statistics.median(row.half_widths):.1%}"
    return {
        "": row.what, "intervals": f"{row.replications}", "hold the truth": f"{row.holds:.1%}",
        "median half-width": half_width, "bias": f"{row.bias:+.1%}", "bound": f"{row.bounded}",
    }  # fmt: skip


def _case_row(case: Case, truth: Truth, found: Sequence[Found]) -> dict[str, str]:
    row = {
        "case": case.name, "true req/s": f"{truth.value_rps:.2f}", "± (s.e.)": f"{truth.value_error:.1%}",
        "power": f"{truth.power:.1f}", "dispersion": f"{truth.dispersion(plan_of(case).slo):.0f}",
    }  # fmt: skip
    for start in ("cold", "warm"):
        own = [one for one in found if (one.case, one.start) == (case.name, start)]
        if own:
            row[start] = " ".join(f"{one.claimed:.2f}" for one in own)
    return row


def _table(rows: list[dict[str, str]]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([row.get(name, "") for name in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(found: list[Found]) -> alt.LayerChart | alt.FacetChart:
    """Every claim by case."""
    rows = pd.DataFrame([asdict(one) for one in found])
    points = alt.Chart(rows).mark_point(size=18, opacity=0.7).encode(
        x=alt.X("claimed:Q", scale=alt.Scale(domain=[0.7, 1.3], clamp=True), title="claimed / true value"),
        y=alt.Y("case:N", title=None, sort=None, axis=alt.Axis(labelLimit=400)),
        color=alt.Color("start:N", title=None),
    )  # fmt: skip
    band = alt.Chart(pd.DataFrame({"low": [1 - NEARLY], "high": [1 + NEARLY]})).mark_rect(opacity=0.15, color="green")
    return alt.layer(band.encode(x="low:Q", x2="high:Q"), points).properties(width=360, height=620)


if __name__ == "__main__":
    main()
