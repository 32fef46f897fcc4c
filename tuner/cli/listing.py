"""`tune list`: what names there are, and what they mean."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from launchers.engines import ENGINES
from launchers.find import where_found
from tuner.config.catalog import load, names
from tuner.config.engine import EngineSpec, Knob
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.slo import Slo
from tuner.config.workload import Workload
from tuner.space import grid

H100, DEFAULT_ENGINE = "h100", "vllm"
WIDE = 120


def print_listing(kinds: Sequence[str]) -> None:
    """Print a table for each of `kinds`."""
    console = Console(highlight=False)
    for kind in kinds:
        if kind == "knobs" and console.width < WIDE:
            _print_knobs_narrow(console)
        else:
            console.print(TABLES[kind](), "")


def _print_knobs_narrow(console: Console) -> None:
    """One paragraph a knob: names stay whole, so that they can be searched for."""
    gpu = load(Gpu, H100)
    for name in _engine_names():
        for knob, about in load(EngineSpec, name).knobs.items():
            extra = ", only if asked for" if _is_extra(about) else ""
            console.print(f"{name}.{knob}  {_range(about)}  (default {about.default_on(gpu)}{extra})", style="bold")
            console.print(Padding(" ".join(about.why.split()), (0, 0, 1, 4), expand=False))


def _models() -> Table:
    table = _table("models", "name", "served as", "parameters", "GPUs' heads")
    for name in names(Model):
        model = load(Model, name)
        sizes = model.architecture
        splits = ", ".join(str(tp) for tp in (1, 2, 4, 8) if sizes.divides(tp))
        table.add_row(name, model.path, f"{sizes.parameters / 1e9:.2g} B", f"tp {splits}")
    table.caption = "any other: a directory with a config.json, or a Hugging Face id"
    return table


def _slos() -> Table:
    table = _table("SLOs", "name", "what must hold", "workload")
    for name in names(Slo):
        slo = load(Slo, name)
        table.add_row(name, slo.title.partition(": ")[2] or slo.title, slo.workload)
    return table


def _workloads() -> Table:
    table = _table("workloads", "name", "what it is", "arrivals")
    for name in names(Workload):
        workload = load(Workload, name)
        table.add_row(name, workload.title, workload.arrivals.kind)
    table.caption = "also: a trace (.csv, .jsonl, .json), or fixed lengths such as 1024x128"
    return table


def _engines() -> Table:
    table = _table("engines", "name", "versions tuned", "here", "knobs searched", "knobs if asked")
    for name in _engine_names():
        spec = load(EngineSpec, name)
        versions = spec.tuned_versions if spec.hardware == "run" else f"{spec.tuned_versions}, not run on hardware"
        searched = [knob for knob, about in spec.knobs.items() if not _is_extra(about)]
        asked = [knob for knob, about in spec.knobs.items() if _is_extra(about)]
        table.add_row(name, versions, where_found(ENGINES[name]), ", ".join(searched), ", ".join(asked))
    return table


def _knobs() -> Table:
    table = _table(f"knobs (defaults on an {H100.upper()})", "engine", "knob", "range", "default", "why")
    gpu = load(Gpu, H100)
    for name in _engine_names():
        for knob, about in load(EngineSpec, name).knobs.items():
            shown = f"{knob}*" if _is_extra(about) else knob
            table.add_row(name, shown, _range(about), str(about.default_on(gpu)), about.why)
    table.caption = "* only if asked for with --knob"
    return table


def _gpus() -> Table:
    table = _table("GPUs", "name", "what it is", "memory", "bandwidth", "bf16 dense")
    for name in names(Gpu):
        gpu = load(Gpu, name)
        speed = (f"{gpu.bandwidth / 1e12:.3g} TB/s", f"{gpu.bf16_flops / 1e12:.3g} TFLOP/s")
        table.add_row(name, gpu.title, f"{gpu.memory_gib:.0f} GiB", *speed)
    return table


TABLES: dict[str, Callable[[], Table]] = {
    "models": _models,
    "slos": _slos,
    "workloads": _workloads,
    "engines": _engines,
    "knobs": _knobs,
    "gpus": _gpus,
}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, caption_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _engine_names() -> list[str]:
    """The default engine first."""
    return sorted(names(EngineSpec), key=lambda name: name != DEFAULT_ENGINE)


def _is_extra(knob: Knob) -> bool:
    return knob.only_if_asked or knob.changes_answers


def _range(knob: Knob) -> str:
    values = grid(knob)
    if knob.choices is not None:
        return ", ".join(str(value) for value in values)
    return f"{values[0]} – {values[-1]}"
