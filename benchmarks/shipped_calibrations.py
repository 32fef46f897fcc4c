"""The two calibrations that are shipped, from the measured rows they are fitted to.

`simulator_fidelity.py --write-shipped` writes them.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from measured_rows import ROWS, Row, over_roofline, read_rows

from launchers.sim.calibration import SHIPPED, SHIPPED_FOLDER, write
from launchers.sim.fit import RULE, fit, thinned
from tuner.config.calibration import Calibration, StepSource

FITTED_ON = ("qwen3-32b", "h100", "vllm", 2)
"""Model, GPU, engine and TP."""
# Kernels alone: a time per step that is next to nothing.
KERNELS = SHIPPED["table"].model_copy(update={"per_step_s": 1e-9, "prefill_scale": 1.0, "decode_scale": 1.0})
# Where a fit to rows begins that nothing came before. Half of it or twice as much leads to the same within 1 %.
FIRST_GUESS_S = 1e-3
SCALES_HELD = (1.0, 0.0, 0.0)
PRIOR_OF_SHIPPED = {"table": "prior: the time per step alone", "roofline": "scales held at 1"}


def fitted_afresh(rows: Sequence[Row], over: StepSource) -> Calibration:
    """What the rule gives on rows that nothing came before: first the time per step alone; over a table then all
    three factors, with that as the prior. A roofline keeps its scales: how far one GPU is from its datasheet says
    nothing about another.
    """
    probes = thinned([row.probe for row in rows])
    guess = KERNELS.model_copy(update={"per_step_s": FIRST_GUESS_S, "over": over})
    per_step = fit(probes, guess, SCALES_HELD)
    return fit(probes, per_step) if over == "table" else per_step


def refitted(over: StepSource) -> Calibration:
    """What should be shipped for one kind of step times."""
    rows = [row for row in read_rows(ROWS)[0] if (row.model, row.gpu, row.engine, row.tp) == FITTED_ON]
    assert {row.steps for row in rows} == {"table"}
    model, gpu, engine, tp = FITTED_ON
    version = rows[0].version
    found = fitted_afresh(rows if over == "table" else over_roofline(rows), over)
    return found.model_copy(
        update={
            "engine": engine,
            "version": version,
            "model": model,
            "gpu": gpu,
            "probes": len(rows),
            "measured": f"{rows[0].probe.model.title} TP{tp} on {gpu.upper()}, vLLM {version}",
            "rule": f"{RULE}; {PRIOR_OF_SHIPPED[over]}",
            "fitted": datetime.now(UTC).replace(microsecond=0),
        }
    )


def write_shipped() -> None:
    """Put them where they are shipped."""
    for over in SHIPPED:
        write(SHIPPED_FOLDER / f"{over}.json", refitted(over))
