"""How near the simulator's TPOT is to measured rows: before calibration, and calibrated on one TP, scored on others.

    python benchmarks/simulator_fidelity.py [--csv PATH] [--write-shipped]

Prints a Markdown report (kept in simulator_fidelity.md) and, for the rows that are shipped, draws
simulator_fidelity.svg. Rows are closed loops of `concurrency` users, `isl` tokens in and `osl` out, replayed with
GENERATIONS requests per user. Of each row only the median TPOT is fitted. Rows of models, GPUs, engines
or settings that the simulator does not have are counted and named. `--write-shipped` instead writes what the rule
gives on the rows of SHIPPED_FROM into launchers/sim/calibrations.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parent.parent))

from launchers.sim.calibration import DEFAULT, SHIPPED, shipped_calibration, write
from launchers.sim.fit import RULE, MeasuredProbe, fit, predict, thinned
from launchers.sim.settings import settings_of
from launchers.sim.steptime import step_source
from tuner.config.calibration import Calibration, StepSource
from tuner.config.catalog import load, names
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.slo import Limits
from tuner.config.workload import Lengths, Workload
from tuner.configuration import Configuration
from tuner.errors import ServerFailed
from tuner.target import ClosedLoop, Window
from tuner.workload.build import build

HERE = Path(__file__).parent
ROWS = HERE / "silicon_dev.csv"
FIGURE = HERE / "simulator_fidelity.svg"
GENERATIONS = 4
LEAST_REQUESTS = 60
WEIGHT_BYTES = {"": 2.0, "bf16": 2.0, "bfloat16": 2.0, "fp16": 2.0, "float16": 2.0, "fp8": 1.0}
SHIPPED_FROM = ("qwen3-32b", "h100", "vllm", 2)
# Kernels alone: a time per step that is next to nothing.
KERNELS = DEFAULT.model_copy(update={"per_step_s": 1e-9, "prefill_scale": 1.0, "decode_scale": 1.0})
# Where the fit of the default begins: a step's own work in milliseconds, and scales held at 1.
FIRST_GUESS = KERNELS.model_copy(update={"per_step_s": 1e-3})
SCALES_HELD = (1.0, 1e-6, 1e-6)


class NotSimulated(Exception):
    """A row outside what the simulator models; the text says why."""


@dataclass(frozen=True)
class Row:
    """One measured row; times in seconds."""

    model: str
    gpu: str
    engine: str
    version: str
    precision: str
    tp: int
    isl: int
    osl: int
    users: int
    ttft_s: float | None
    tpot_s: float
    probe: MeasuredProbe
    steps: StepSource

    @property
    def group(self) -> tuple[str, ...]:
        return self.model, self.gpu, self.engine, self.version, self.precision, self.steps

    def throughput(self, ttft_s: float, tpot_s: float) -> float:
        """Output tokens per second and GPU of a closed loop whose requests take their median times."""
        return self.users * self.osl / (ttft_s + (self.osl - 1) * tpot_s) / self.tp


@dataclass(frozen=True)
class Scored:
    """Rows with what a calibration predicts of them."""

    rows: Sequence[Row]
    ttft_s: np.ndarray
    tpot_s: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """Relative errors of TPOT."""
        return self.tpot_s / np.array([row.tpot_s for row in self.rows]) - 1

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


READING = (
    "Errors are predicted / measured − 1 of the median TPOT. *Shipped* is what a simulation of that model takes\n"
    "as it comes. *Spearman* ranks output tokens/s per GPU over all rows of a line, *lowest* over those of one\n"
    "workload (tokens in and out), the least of them. Rows that a calibration was fitted on are named so; it\n"
    "has not seen any other. A row is replayed with 4 requests per user, at least 60, and the engine's defaults."
)
SOURCE = """
![Predicted against measured TPOT, before and after calibration on TP2](simulator_fidelity.svg)

The rows are `silicon_dev.csv`. Its column `source` names where each is from: `silicon_sample.csv` of NVIDIA's
ai-dynamo/aiconfigurator (Apache-2.0) at commit 095f58a5; `origin` says who measured."""
HEAD = (
    "| rows | calibration | n | TPOT bias | median of absolute | p95 of absolute | Spearman | lowest |\n"
    "|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=ROWS, help="measured rows, columns as in silicon_dev.csv")
    parser.add_argument("--write-shipped", action="store_true", help="write launchers/sim/calibrations")
    asked = parser.parse_args()
    rows, left_out = read_rows(asked.csv)
    if asked.write_shipped:
        write_shipped(rows)
        return
    print("# Simulator against measured rows\n")
    print(f"`python benchmarks/simulator_fidelity.py`, {date.today()}, rows of `{asked.csv.name}`:")
    print(f"{len(rows)} simulated, {sum(left_out.values())} left out.\n\n{READING}\n")
    for reason, count in left_out.most_common():
        print(f"- left out, {count} of them: {reason}")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    drawn = [line for group in groups.values() for line in report(group)]
    print(f"\n## Every row, as shipped\n\n{HEAD}")
    for precise, name in ((True, "step times: table"), (False, "step times: roofline")):
        of_kind = [row for row in rows if (row.steps == "table") == precise]
        if of_kind:
            print(f"| {name} | shipped | {as_shipped(of_kind).cells()} |")
    if asked.csv == ROWS:
        draw(drawn)
        print(SOURCE)


def read_rows(path: Path) -> tuple[list[Row], Counter[str]]:
    """The rows that can be simulated, and why others cannot, with how many."""
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    with path.open(newline="", encoding="utf-8") as file:
        for number, text in enumerate(csv.DictReader(file)):
            try:
                rows.append(_row(text, number))
            except NotSimulated as why:
                left_out[str(why)] += 1
    return rows, left_out


def _row(text: dict[str, str], number: int) -> Row:
    model, gpu, engine = _model(text), _gpu(text), (text.get("engine") or "").lower()
    if engine not in names(EngineSpec):
        raise NotSimulated(f"engine {engine or 'not named'}")
    for column in ("pp", "dp_attn"):
        if float(text.get(column) or 1) != 1:
            raise NotSimulated(f"{column} {text[column]}")
    try:
        tp, isl, osl, users = (round(float(text[name])) for name in ("tp", "isl", "osl", "concurrency"))
        tpot_s = float(text["tpot_ms"]) / 1e3
    except ValueError as error:
        raise NotSimulated("no TP, lengths, concurrency or TPOT") from error
    if osl < 2 or tpot_s <= 0 or users < 1:
        raise NotSimulated("no second token, or no user")
    try:
        settings = settings_of(Configuration(engine, {"tp": tp}), model, gpu, 0.0, isl + osl + 16)
    except ServerFailed as failed:
        raise NotSimulated(f"{model.name} TP{tp} on {gpu.title} would not start: {failed.kind}") from failed
    if not settings.admits(isl, osl):
        raise NotSimulated(f"{model.name} does not take {isl} + {osl} tokens")
    lengths = {"prompt": Lengths(fixed=isl), "output": Lengths(fixed=osl)}
    requests = build(Workload(title="", source="", **lengths), number, max(LEAST_REQUESTS, GENERATIONS * users))
    ttft_s = float(text["ttft_ms"]) / 1e3 if text.get("ttft_ms") else None
    load_, window = ClosedLoop(users), Window(0.0, 1e9, 1e9)
    probe = MeasuredProbe(settings, model, gpu, requests, load_, window, tpot_s, ttft_s)
    steps = step_source(settings, model, gpu)
    precision = _precision(text)
    key = (model.name, gpu.name, engine, text.get("engine_version") or "", precision)
    return Row(*key, tp, isl, osl, users, ttft_s, tpot_s, probe, steps)


def _model(text: dict[str, str]) -> Model:
    """The preset of this name, whoever publishes it and whether it says Instruct; in the row's number format."""
    presets = {_bare(preset.path): preset for preset in (load(Model, name) for name in names(Model))}
    preset = presets.get(_bare(text["model"]))
    if preset is None:
        raise NotSimulated(f"model {text['model']}")
    precision = _precision(text)
    if precision not in WEIGHT_BYTES:
        raise NotSimulated(f"precision {precision}")
    sizes = preset.architecture.model_copy(update={"weight_bytes": WEIGHT_BYTES[precision]})
    return preset.model_copy(update={"architecture": sizes})


def _precision(text: dict[str, str]) -> str:
    named = "fp8" if text["model"].lower().endswith("-fp8") else ""
    return (text.get("precision") or named).lower()


def _bare(path: str) -> str:
    return path.rpartition("/")[2].lower().removesuffix("-fp8").removesuffix("-instruct").removeprefix("meta-")


def _gpu(text: dict[str, str]) -> Gpu:
    title = text["gpu"].lower().replace("-", "").replace("_", "").replace(" ", "")
    found = next((name for name in names(Gpu) if name != "cpu" and title.startswith(name)), None)
    if found is None:
        raise NotSimulated(f"GPU {text['gpu']}")
    return load(Gpu, found)


def report(rows: Sequence[Row]) -> Iterator[dict[str, object]]:
    """Print one group's table: each TP before and after; yields dots for the figure."""
    first = rows[0]
    version = f" {first.version}" if first.version else ""
    title = f"{first.model} {first.precision or 'bf16'} on {first.gpu}, {first.engine}{version}"
    print(f"\n## {title} (step times: {first.steps})\n")
    print(HEAD)
    by_tp = {tp: [row for row in rows if row.tp == tp] for tp in sorted({row.tp for row in rows})}
    kernels = KERNELS.model_copy(update={"over": first.steps})
    shipped = shipped_calibration(first.engine, first.model, first.gpu)
    for tp, own in by_tp.items():
        print(f"| TP{tp} | none: kernels alone | {scored(own, kernels).cells()} |")
    for tp, own in by_tp.items():
        print(f"| TP{tp} | shipped | {scored(own, shipped).cells()} |")
    for fitted_on in _folds(list(by_tp)):
        fitting = [row for tp in fitted_on for row in by_tp[tp]]
        prior = DEFAULT.model_copy(update={"over": first.steps})
        found = fit(thinned([row.probe for row in fitting]), prior)
        others = {tp: own for tp, own in by_tp.items() if tp not in fitted_on}
        name = "+".join(f"TP{tp}" for tp in fitted_on)
        print(f"| {name} (fitted on) | {factors(found)} | {scored(fitting, found).cells()} |")
        for tp, own in others.items():
            print(f"| TP{tp} | fitted on {name} | {scored(own, found).cells()} |")
        held_back = [row for own in others.values() for row in own]
        if len(others) > 1:
            together = " and ".join(f"TP{tp}" for tp in others)
            print(f"| **{together}** | **fitted on {name}** | {scored(held_back, found).cells()} |")
        if fitted_on == (min(by_tp),):
            yield from _dots(scored(held_back, kernels), "kernels alone")
            yield from _dots(scored(held_back, found), f"calibrated on {name}")


def _folds(tps: list[int]) -> list[tuple[int, ...]]:
    """Every set of TPs to fit on that leaves one or all but one to score: each alone, then all but one."""
    if len(tps) < 2:
        return []
    folds = [(tp,) for tp in tps]
    return folds + [fold for fold in combinations(tps, len(tps) - 1) if fold not in folds]


def as_shipped(rows: Sequence[Row]) -> Scored:
    """Every row under what is shipped for it."""
    ones = [scored([row], shipped_calibration(row.engine, row.model, row.gpu)) for row in rows]
    return Scored(rows, np.concatenate([one.ttft_s for one in ones]), np.concatenate([one.tpot_s for one in ones]))


def scored(rows: Sequence[Row], calibration: Calibration) -> Scored:
    """Every row replayed under `calibration`."""
    pairs = [predict(row.probe, calibration, Limits()) for row in rows]
    tpot_s = np.array([one.tpot_s.p50 if one.tpot_s else np.nan for one in pairs])
    return Scored(rows, np.array([one.ttft_s.p50 if one.ttft_s else np.nan for one in pairs]), tpot_s)


def factors(calibration: Calibration) -> str:
    scales = f"prefill × {calibration.prefill_scale:.3f}, decode × {calibration.decode_scale:.3f}"
    return f"{calibration.per_step_s * 1e3:.2f} ms a step, {scales}"


def write_shipped(rows: Sequence[Row]) -> None:
    """What the rule gives on the rows of SHIPPED_FROM: the time per step alone (default), and all three."""
    chosen = [row for row in rows if (row.model, row.gpu, row.engine, row.tp) == SHIPPED_FROM]
    model, gpu, engine, tp = SHIPPED_FROM
    known = {
        "probes": len(chosen),
        "measured": f"{chosen[0].probe.model.title} TP{tp} on {gpu.upper()} (benchmarks/silicon_dev.csv)",
        "fitted": datetime.now(UTC).replace(microsecond=0),
    }
    probes = [row.probe for row in chosen]
    plain = fit(probes, FIRST_GUESS, SCALES_HELD)
    default = plain.model_copy(update=known | {"rule": f"{RULE}; scales held at 1"})
    write(SHIPPED / "default.json", default)
    own = {"engine": engine, "version": chosen[0].version, "model": model, "gpu": gpu, "rule": RULE, **known}
    write(SHIPPED / f"{engine}-{model}-{gpu}.json", fit(probes, default).model_copy(update=own))


def _spearman(measured: dict[int, float], predicted: dict[int, float], rows: Sequence[int]) -> float:
    if len(rows) < 3:
        return float("nan")
    return float(spearmanr([measured[i] for i in rows], [predicted[i] for i in rows]).statistic)


def _dots(found: Scored, name: str) -> Iterator[dict[str, object]]:
    for row, predicted_s in zip(found.rows, found.tpot_s, strict=True):
        yield {
            "calibration": f"{row.model}, {name}",
            "TP": f"TP{row.tp}",
            "measured TPOT, ms": row.tpot_s * 1e3,
            "predicted TPOT, ms": predicted_s * 1e3,
        }


def draw(dots: Sequence[dict[str, object]]) -> None:
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
