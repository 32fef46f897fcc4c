"""Measured rows as probes of the simulated server that they were measured on: CSV in, `Row`s out.

A row is a closed loop of `concurrency` users, `isl` tokens in and `osl` out, replayed with GENERATIONS requests per
user and the engine's defaults. Of models, GPUs, engines or settings that the simulator does not have there is none.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launchers.sim.fit import MeasuredProbe
from launchers.sim.settings import settings_of
from launchers.sim.steptime import step_source
from tuner.config.calibration import StepSource
from tuner.config.catalog import load, names
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.workload import Lengths, Workload
from tuner.configuration import Configuration
from tuner.errors import ServerFailed
from tuner.target import ClosedLoop, Window
from tuner.workload.build import build

ROWS = Path(__file__).parent / "silicon_dev.csv"
GENERATIONS = 4
LEAST_REQUESTS = 60
FORMATS = {"": None, "bf16": None, "bfloat16": None, "fp16": None, "float16": None, "fp8": "fp8"}


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


def over_roofline(rows: Sequence[Row]) -> list[Row]:
    """The same rows replayed over the roofline, whether or not they have a table."""
    return [replace(row, probe=replace(row.probe, over="roofline"), steps="roofline") for row in rows]


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
    if precision not in FORMATS:
        raise NotSimulated(f"precision {precision}")
    weights = {"weight_format": FORMATS[precision], "weight_bytes": 1.0 if FORMATS[precision] else 2.0}
    return preset.model_copy(update={"architecture": preset.architecture.model_copy(update=weights)})


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
