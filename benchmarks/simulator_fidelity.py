"""How near the simulator's TPOT is to measured rows: before calibration, and calibrated on one TP, scored on others.

    python benchmarks/simulator_fidelity.py [--csv PATH] [--write-shipped]

Prints a Markdown report (kept in simulator_fidelity.md) and, for the rows of silicon_dev.csv, draws
simulator_fidelity.svg. Of each row only the median TPOT is fitted. Rows that cannot be simulated are counted and
named. Rows of 8-bit floats are scored over a table too, made from the same library as those that are shipped
(tables/). `--write-shipped` instead writes what the rule gives into launchers/sim/calibrations.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from pathlib import Path

import numpy as np
from measured_rows import ROWS, Row, over_roofline, read_rows
from scipy.stats import spearmanr
from shipped_calibrations import KERNELS, fitted_afresh, write_shipped

from launchers.sim.calibration import SHIPPED
from launchers.sim.fit import predict
from launchers.sim.steptable import kept_tables
from tuner.config.calibration import Calibration
from tuner.config.slo import Limits
from tuner.requests import FloatArray

HERE = Path(__file__).parent
TABLES = HERE / "tables"
FIGURE = HERE / "simulator_fidelity.svg"

READING = (
    "Errors are predicted / measured − 1 of the median TPOT. *Shipped* is what a simulation takes as it comes,\n"
    "whatever the model, engine and GPU: over tables what is fitted on TP2 of Qwen3-32B, over the roofline the time\n"
    "per step that the same rows give. *Spearman* ranks output tokens/s per GPU over all rows of a line, *lowest*\n"
    "over those of one workload (tokens in and out), the least of them. Rows that a calibration was fitted on are\n"
    "named so; it has not seen any other: each begins with the same guess (shipped_calibrations.py). A row is\n"
    "replayed with 4 requests per user, at least 60, and the engine's defaults."
)
SOURCE = """
![Predicted against measured TPOT, before and after calibration on TP2](simulator_fidelity.svg)

The rows are `silicon_dev.csv`. Its column `source` names where each is from: `silicon_sample.csv` of NVIDIA's
ai-dynamo/aiconfigurator (Apache-2.0) at commit 095f58a5; `origin` says who measured."""
HEAD = (
    "| rows | calibration | n | TPOT bias | median of absolute | p95 of absolute | Spearman | lowest |\n"
    "|---|---|---|---|---|---|---|---|"
)


Dot = dict[str, object]
"""One row of the figure's data."""


@dataclass(frozen=True)
class Scored:
    """Rows with what a calibration predicts of them."""

    rows: Sequence[Row]
    ttft_s: FloatArray
    tpot_s: FloatArray

    @property
    def errors(self) -> FloatArray:
        """Relative errors of TPOT."""
        measured_s: FloatArray = np.array([row.tpot_s for row in self.rows])
        return self.tpot_s / measured_s - 1

    def rank(self) -> tuple[float, float]:
        """Spearman of throughput: over all rows, and the lowest within one workload (isl, osl)."""
        seen = [i for i, row in enumerate(self.rows) if row.ttft_s]
        measured = {i: self.rows[i].throughput(self.rows[i].ttft_s or 0, self.rows[i].tpot_s) for i in seen}
        predicted = {i: self.rows[i].throughput(self.ttft_s[i], self.tpot_s[i]) for i in seen}
        shapes: dict[tuple[int, int], list[int]] = {}
        for i in seen:
            shapes.setdefault((self.rows[i].isl, self.rows[i].osl), []).append(i)
        within = [_spearman(measured, predicted, own) for own in shapes.values() if len(own) > 3]
        return _spearman(measured, predicted, seen), min(within, default=float("nan"))

    def cells(self) -> str:
        bias, size = np.median(self.errors), np.abs(self.errors)
        overall, lowest = self.rank()
        figures = (
            f"{bias:+.1%} | {np.median(size):.1%} | {np.percentile(size, 95):.1%} | {overall:.3f} | {lowest:.3f}"
        )
        return f"{len(self.rows)} | {figures}".replace("%", " %").replace("nan", "–")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=ROWS, help="measured rows, columns as in silicon_dev.csv")
    parser.add_argument("--write-shipped", action="store_true", help="write launchers/sim/calibrations")
    asked = parser.parse_args()
    with own_tables_only():
        if asked.write_shipped:
            write_shipped()
            return
        dots = report(asked.csv)
    if asked.csv == ROWS:
        draw(dots)
        print(SOURCE)


@contextmanager
def own_tables_only() -> Iterator[None]:
    """Inside the block a simulation finds the tables that are shipped and those of this benchmark, and no other."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        shutil.copytree(TABLES, kept_tables())
        yield


def report(path: Path) -> list[Dot]:
    """Print everything; returns the dots of the figure."""
    rows, left_out = read_rows(path)
    print("# Simulator against measured rows\n")
    print(f"`python benchmarks/simulator_fidelity.py`, {date.today()}, rows of `{path.name}`:")
    print(f"{len(rows)} simulated, {sum(left_out.values())} left out.\n\n{READING}\n")
    for reason, count in left_out.most_common():
        print(f"- left out, {count} of them: {reason}")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows + over_roofline([row for row in rows if row.steps == "table"]):
        groups.setdefault(row.group, []).append(row)
    dots = [dot for group in groups.values() for dot in of_group(group)]
    print(f"\n## Every row, as shipped\n\n{HEAD}")
    for kind, calibration in SHIPPED.items():
        of_kind = [row for row in rows if row.steps == kind]
        if of_kind:
            print(f"| step times: {kind} | shipped | {scored(of_kind, calibration).cells()} |")
    return dots


def of_group(rows: Sequence[Row]) -> Iterator[Dot]:
    """Print one group's table: each TP before and after; yields dots for the figure."""
    first = rows[0]
    version = f" {first.version}" if first.version else ""
    title = f"{first.model} {first.precision or 'bf16'} on {first.gpu}, {first.engine}{version}"
    print(f"\n## {title} (step times: {first.steps})\n")
    print(HEAD)
    by_tp = {tp: [row for row in rows if row.tp == tp] for tp in sorted({row.tp for row in rows})}
    kernels = KERNELS.model_copy(update={"over": first.steps})
    for name, calibration in (("none: kernels alone", kernels), ("shipped", SHIPPED[first.steps])):
        for tp, own in by_tp.items():
            print(f"| TP{tp} | {name} | {scored(own, calibration).cells()} |")
    for fitted_on in _folds(list(by_tp)) if first.steps == "table" else []:
        found = fitted_afresh([row for tp in fitted_on for row in by_tp[tp]], first.steps)
        held_back = of_fold(by_tp, fitted_on, found)
        if fitted_on == (min(by_tp),):
            yield from _dots(scored(held_back, kernels), "kernels alone")
            yield from _dots(scored(held_back, found), f"calibrated on TP{fitted_on[0]}")


def of_fold(by_tp: dict[int, list[Row]], fitted_on: tuple[int, ...], found: Calibration) -> list[Row]:
    """Print the lines of one calibration; returns the rows that it has not seen."""
    name = "+".join(f"TP{tp}" for tp in fitted_on)
    fitting = [row for tp in fitted_on for row in by_tp[tp]]
    print(f"| {name} (fitted on) | {factors(found)} | {scored(fitting, found).cells()} |")
    others = {tp: own for tp, own in by_tp.items() if tp not in fitted_on}
    for tp, own in others.items():
        print(f"| TP{tp} | fitted on {name} | {scored(own, found).cells()} |")
    held_back = [row for own in others.values() for row in own]
    if len(others) > 1:
        together = " and ".join(f"TP{tp}" for tp in others)
        print(f"| **{together}** | **fitted on {name}** | {scored(held_back, found).cells()} |")
    return held_back


def _folds(tps: list[int]) -> list[tuple[int, ...]]:
    """Every set of TPs to fit on that leaves one or all but one to score: each alone, then all but one."""
    if len(tps) < 2:
        return []
    folds = [(tp,) for tp in tps]
    return folds + [fold for fold in combinations(tps, len(tps) - 1) if fold not in folds]


def scored(rows: Sequence[Row], calibration: Calibration) -> Scored:
    """Every row replayed under `calibration`."""
    pairs = [predict(row.probe, calibration, Limits()) for row in rows]
    tpot_s = np.array([one.tpot_s.p50 if one.tpot_s else np.nan for one in pairs])
    return Scored(rows, np.array([one.ttft_s.p50 if one.ttft_s else np.nan for one in pairs]), tpot_s)


def factors(calibration: Calibration) -> str:
    scales = f"prefill × {calibration.prefill_scale:.3f}, decode × {calibration.decode_scale:.3f}"
    return f"{calibration.per_step_s * 1e3:.2f} ms a step, {scales}"


def _spearman(measured: dict[int, float], predicted: dict[int, float], rows: Sequence[int]) -> float:
    if len(rows) < 3:
        return float("nan")
    return float(spearmanr([measured[i] for i in rows], [predicted[i] for i in rows]).statistic)


def _dots(found: Scored, name: str) -> Iterator[Dot]:
    for row, predicted_s in zip(found.rows, found.tpot_s, strict=True):
        yield {
            "calibration": f"{row.model}, {name}",
            "TP": f"TP{row.tp}",
            "measured TPOT, ms": row.tpot_s * 1e3,
            "predicted TPOT, ms": predicted_s * 1e3,
        }


def draw(dots: Sequence[Dot]) -> None:
    """Predicted over measured, a panel for each calibration, with the diagonal."""
    import altair as alt
    import pandas as pd

    frame = pd.DataFrame(dots)
    scale = alt.Scale(type="log", domain=[5, 200], nice=False)
    order = list(frame["calibration"].unique())
    axes = {"x": alt.X("measured TPOT, ms:Q", scale=scale), "y": alt.Y("predicted TPOT, ms:Q", scale=scale)}
    points = alt.Chart(frame).mark_point(filled=True, size=24).encode(**axes, color="TP:N")
    line = (
        alt.Chart(frame)
        .mark_line(color="grey", strokeWidth=1)
        .encode(x=axes["x"], y=alt.Y("measured TPOT, ms:Q", scale=scale, title="predicted TPOT, ms"))
    )
    panels = (line + points).properties(width=260, height=260)
    panels = panels.facet(alt.Facet("calibration:N", sort=order, title=None), columns=2)
    panels.save(str(FIGURE))


if __name__ == "__main__":
    main()
