"""The step-time tables of a simulated study: what is not there yet is made before it starts, where it can be."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from launchers.sim.roofline import UNCALIBRATED
from launchers.sim.steptable import (
    LIBRARY,
    LIBRARY_VERSION,
    SYSTEMS,
    TableKey,
    find_table,
    keep_table,
    kept_tables,
    library_installed,
    table_key,
)
from tuner.config.engine import KnobValue
from tuner.config.plan import Plan
from tuner.errors import NotMeasured
from tuner.space import Space


@dataclass(frozen=True)
class Sizing:
    """What a study may vary of all that decides a server's step times."""

    engine: str
    tp: int
    kv_cache_dtype: str

    @property
    def kv_dtype_bytes(self) -> float:
        """Bytes of one element of the KV cache."""
        return 1.0 if self.kv_cache_dtype == "fp8" else 2.0


def make_tables(plan: Plan, spaces: Iterable[Space]) -> Mapping[Sizing, str]:
    """Where the step times of each sizing in `spaces` come from, once all tables are made that can be made here.

    Says on stderr that it makes some, since that may take seconds; they are kept for the next study.
    """
    keys = {sizing: _key(plan, sizing) for space in spaces for sizing in sizings(space)}
    absent = [key for key in keys.values() if key and find_table(key) is None]
    reasons = _made(absent, plan.model.title) if absent and library_installed() else {}
    return {sizing: _source(plan, key, reasons) for sizing, key in keys.items()}


def sizings(space: Space) -> list[Sizing]:
    """Every combination of the knobs that a table depends on."""
    return [
        Sizing(space.engine.name, int(tp), str(kv_cache_dtype))
        for tp in _allowed(space, "tp")
        for kv_cache_dtype in _allowed(space, "kv_cache_dtype")
    ]


def sources_text(space: Space, sources: Mapping[Sizing, str]) -> str:
    """The sources of an engine's step times in one line; which tp each is for, if there are several."""
    groups: dict[str, list[str]] = {}
    for sizing in sizings(space):
        label = f"tp={sizing.tp}" + (f" kv_cache_dtype={sizing.kv_cache_dtype}" if sizing.kv_dtype_bytes < 2 else "")
        groups.setdefault(sources[sizing], []).append(label)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{source} for {', '.join(labels)}" for source, labels in groups.items())


def _allowed(space: Space, knob: str) -> tuple[KnobValue, ...]:
    return space.values.get(knob) or (space.engine_defaults[knob],)


def _key(plan: Plan, sizing: Sizing) -> TableKey | None:
    gpu = plan.box.gpu.name
    return table_key(sizing.engine, gpu, plan.model.architecture, sizing.tp, sizing.kv_dtype_bytes)


def _made(absent: list[TableKey], model: str) -> dict[TableKey, str]:
    """Make and keep the tables; returns why some could not be."""
    from launchers.sim.aic import make_table

    number = f"{len(absent)} step-time tables" if len(absent) > 1 else "a step-time table"
    print(f"making {number} of {model} with {LIBRARY} {LIBRARY_VERSION}: 1 to 10 s, once", file=sys.stderr)
    reasons: dict[TableKey, str] = {}
    for key in absent:
        try:
            keep_table(key, make_table(key), kept_tables(), model)
        except NotMeasured as error:
            reasons[key] = f"{LIBRARY}: {error}"
        except OSError as error:
            reasons[key] = f"no table could be kept in {kept_tables()}: {error.strerror}"
    return reasons


def _source(plan: Plan, key: TableKey | None, reasons: Mapping[TableKey, str]) -> str:
    if key is None:
        why = f"no kernels were measured {_unmeasured(plan)}"
    elif find_table(key) is not None:
        return key.source
    else:
        why = reasons.get(key, f"pip install {LIBRARY}=={LIBRARY_VERSION} and a table is made of measured kernels")
    return f"{UNCALIBRATED} ({why})"


def _unmeasured(plan: Plan) -> str:
    if plan.box.gpu.name not in SYSTEMS:
        return f"on {plan.box.gpu.title}"
    return f"for weights of {plan.model.architecture.weight_bytes * 8:g} bits in this format"
