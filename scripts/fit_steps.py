"""Fit a calibration to measured steps, and say how far the simulation was and is off. Needs no engine and no GPU.

    python scripts/fit_steps.py MODEL OUT [--gpu h100] [--keep]

Reads OUT/steps.jsonl of measure_steps.py. Writes OUT/calibration.json, by the rule of launchers/sim/fit.py over whole
probes, and OUT/steps.md, each step beside the simulation's. `--keep`: this user's simulations of that server use it.
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from box_plan import read_rows
from measure_steps import ROWS
from step_probes import StepProbe, load_of, mean_context, requests_of, window_of

from launchers.sim.calibration import SHIPPED, store, write
from launchers.sim.fit import RULE, MeasuredProbe, errors, fit, thinned
from launchers.sim.settings import SimSettings, settings_of
from launchers.sim.steptime import StepTime, step_source, step_time
from tuner.config.calibration import Calibration
from tuner.config.catalog import load, load_model
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.configuration import Configuration

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's name, or its directory")
    parser.add_argument("out", type=Path)
    parser.add_argument("--gpu", default="h100", help="what it was measured on (default: h100)")
    parser.add_argument("--keep", action="store_true", help="for later simulations of this user")
    asked = parser.parse_args()
    rows = [row for row in read_rows(asked.out / ROWS) if row["step_s"]]
    model, gpu = load_model(asked.model), load(Gpu, asked.gpu)
    # The engine's own defaults, as measure_steps.py starts it.
    settings = settings_of(Configuration("vllm", {}), model, gpu, acceptance=0.0)
    over = step_source(settings, model, gpu)
    found = [measured_probe(row, settings, model, gpu) for row in rows]
    fitted = named(fit(thinned(found), SHIPPED[over]), rows, model, gpu)
    write(asked.out / "calibration.json", fitted)
    steps = [step_time(settings, model, gpu, calibration) for calibration in (SHIPPED[over], fitted)]
    off = [typical(found, calibration) for calibration in (SHIPPED[over], fitted)]
    text = report(rows, steps, fitted, off)
    (asked.out / "steps.md").write_text(text, encoding="utf-8")
    print(text)
    if asked.keep:
        print(f"kept: {store(fitted)}")


def probe_of(row: Row) -> StepProbe:
    return StepProbe(**{name: row[name] for name in ("kind", "batch", "context", "prompt", "every_s")})


def measured_probe(row: Row, settings: SimSettings, model: Model, gpu: Gpu) -> MeasuredProbe:
    """The row as the rule wants it. What the probes of a step's kind are medians of is the same in the replay."""
    probe = probe_of(row)
    return MeasuredProbe(
        settings=settings,
        model=model,
        gpu=gpu,
        requests=requests_of(probe),
        load=load_of(probe),
        window=window_of(probe),
        tpot_s=row["tpot_s"],
        ttft_s=row["ttft_s"],
    )


def named(fitted: Calibration, rows: Sequence[Row], model: Model, gpu: Gpu) -> Calibration:
    return fitted.model_copy(
        update={
            "engine": "vllm",
            "version": rows[0]["versions"].get("vllm", "simulated"),
            "model": model.name,
            "gpu": gpu.name,
            "probes": len(rows),
            "measured": "single steps (scripts/measure_steps.py)",
            "rule": RULE,
            "fitted": datetime.now(UTC).replace(microsecond=0),
        }
    )


def predicted_s(row: Row, steps: StepTime) -> float:
    """The same step in the simulation; a prompt larger than the token budget would be several."""
    probe = probe_of(row)
    prompts = 1 if probe.prompt else 0
    return steps.step_s(probe.prompt, 0, prompts, probe.batch, round(probe.batch * mean_context(probe)))


def typical(found: Sequence[MeasuredProbe], calibration: Calibration) -> tuple[float | None, float | None]:
    """Median size of predicted/measured − 1 over whole probes: TPOT, TTFT."""
    off = errors(found, calibration)
    return tuple(float(np.median(np.abs(np.expm1(each)))) if len(each) else None for each in (off.tpot, off.ttft))  # type: ignore[return-value]


def report(
    rows: Sequence[Row],
    steps: Sequence[StepTime],
    fitted: Calibration,
    off: Sequence[tuple[float | None, float | None]],
) -> str:
    """As Markdown. A prompt's time includes taking the request in, which no step does: it is not the step's alone."""
    scales = f"prefill × {fitted.prefill_scale:.3f}, decode × {fitted.decode_scale:.3f}"
    lines = [
        f"# Steps of vLLM {fitted.version}, {fitted.model} on {fitted.gpu}\n",
        f"{fitted.fitted:%Y-%m-%d}, {len(rows)} probes of `scripts/measure_steps.py`, by `scripts/fit_steps.py`.\n",
        f"Before: {steps[0].source}. After: {fitted.per_step_s * 1e3:.2f} ms per step, {scales}.\n",
    ]
    lines += ["| whole probes, median error of | before | after |", "|---|---|---|"]
    for name, before, after in zip(("TPOT", "TTFT"), *off, strict=True):
        lines.append(f"| {name} | {_percent(before)} | {_percent(after)} |")
    lines += [
        "\n| step | answers | context | prompt | measured, ms | 10–90 % | before, ms | after, ms |",
        "|" + "---|" * 8,
    ]
    for row in rows:
        before_s, after_s = (predicted_s(row, each) for each in steps)
        spread = f"{row['step_p10_s'] * 1e3:.2f}–{row['step_p90_s'] * 1e3:.2f}"
        sizes = f"{row['batch']} | {row['context']} | {row['prompt']}"
        times = f"{row['step_s'] * 1e3:.2f} | {spread} | {before_s * 1e3:.2f} | {after_s * 1e3:.2f}"
        lines.append(f"| {row['kind']} | {sizes} | {times} |")
    return "\n".join(lines) + "\n"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"


if __name__ == "__main__":
    main()
