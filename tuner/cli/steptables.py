"""The step-time tables of a simulated study: what is not there yet is made before it starts, where it can be."""

import sys
from collections.abc import Iterable, Mapping, Sequence

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


def make_tables(plan: Plan, spaces: Iterable[Space]) -> Mapping[str, str]:
    """Make the tables that `spaces` need and nobody shipped; engine → why it has none for some servers, else "".

    Says on stderr that it makes some, since that may take seconds; they are kept for the next study.
    """
    keys = {space.engine.name: _keys(plan, space) for space in spaces}
    absent = [key for of_engine in keys.values() for key in of_engine.values() if key and find_table(key) is None]
    reasons = _made(absent, plan.model.title) if absent and library_installed() else {}
    return {engine: _without_table(plan, of_engine, reasons) for engine, of_engine in keys.items()}


def _keys(plan: Plan, space: Space) -> dict[str, TableKey | None]:
    """What a study may vary of all that decides a server's step times → its table's key, where it can have one."""
    gpu, architecture = plan.box.gpu.name, plan.model.architecture
    keys: dict[str, TableKey | None] = {}
    for kv_cache_dtype in _allowed(space, "kv_cache_dtype"):
        kv_dtype_bytes = 1.0 if kv_cache_dtype == "fp8" else 2.0
        for tp in _allowed(space, "tp"):
            label = f"tp={tp}" if kv_dtype_bytes == 2.0 else f"tp={tp} with kv_cache_dtype={kv_cache_dtype}"
            keys[label] = table_key(space.engine.name, gpu, architecture, int(tp), kv_dtype_bytes)
    return keys


def _allowed(space: Space, knob: str) -> Sequence[KnobValue]:
    return space.values.get(knob) or (space.engine_defaults[knob],)


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


def _without_table(plan: Plan, keys: Mapping[str, TableKey | None], reasons: Mapping[TableKey, str]) -> str:
    """The servers that have no table, by the reason for it."""
    lacking: dict[str, list[str]] = {}
    for label, key in keys.items():
        if key is None or find_table(key) is None:
            lacking.setdefault(_why(plan, key, reasons), []).append(label)
    text = "; ".join(f"{', '.join(labels)}: {why}" for why, labels in lacking.items())
    if sum(map(len, lacking.values())) == len(keys) and len(lacking) == 1:
        text = next(iter(lacking))
    elif text:
        text = f"roofline for {text}"
    return f" ({text})" if text else ""


def _why(plan: Plan, key: TableKey | None, reasons: Mapping[TableKey, str]) -> str:
    if key is not None:
        return reasons.get(key, f"pip install {LIBRARY}=={LIBRARY_VERSION} and a table is made of measured kernels")
    if plan.box.gpu.name not in SYSTEMS:
        return f"no kernels were measured on {plan.box.gpu.title}"
    return f"no kernels were measured for weights of {plan.model.architecture.weight_bytes * 8:g} bits in this format"
