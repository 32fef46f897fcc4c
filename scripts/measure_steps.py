"""Measure what an engine's steps take, by probes over HTTP: prompts alone, answers alone, and both in one step.

    python scripts/measure_steps.py MODEL OUT [--where gpu|cpu|served] [--limit 540] [--quick]

Adds a line to OUT/steps.jsonl for each probe that was not measured yet, in order of value. fit_steps.py makes a
calibration of them.
"""

import time
from collections.abc import Iterator

import numpy as np
from box_plan import about, add_row, default_of, parser_for, planned, read_rows
from step_probes import StepProbe, load_of, requests_of, steps_s, window_of

from launchers.open import open_target
from launchers.sim.fit import medians
from tuner.errors import MeasurementVoid
from tuner.target import Target

ROWS = "steps.jsonl"
PROMPTS = (128, 256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 8, 32, 64, 128, 256, 512)
CONTEXTS = (256, 1024, 4096, 8192 - 64)
MIXED_BATCHES, MIXED_CONTEXT, MIXED_PROMPTS = (32, 128), 1024, (256, 1024, 2048, 4096)
# More takes long to compute and, with a large model, does not fit beside it.
MOST_CONTEXT_TOKENS = 2**19


def main() -> None:
    asked = parser_for(__doc__).parse_args()
    plan = planned(asked)
    path = asked.out / ROWS
    known = {row["name"] for row in read_rows(path)}
    missing = [probe for probe in (small_probes() if asked.quick else probes()) if probe.name not in known]
    if not missing:
        print(f"{path}: all is measured")
        return
    since_s = time.perf_counter()
    with open_target(plan, default_of(plan), plan.box.gpus, asked.out) as target:
        ready_s = target.clock_s()
        for done, probe in enumerate(missing):
            if time.perf_counter() - since_s > asked.limit:
                print(f"{len(missing) - done} probes are left for the next time")
                break
            try:
                add_row(path, about(plan) | {"name": probe.name} | vars(probe) | measured(target, probe))
            except MeasurementVoid as void:
                print(f"{probe.name} is left for the next time: {void}", flush=True)
    print(f"{path}: {len(read_rows(path))} probes; the server took {ready_s:.0f} s to start")


def probes() -> Iterator[StepProbe]:
    """Everything, the most telling first: every second batch and context, then the rest."""
    yield from (StepProbe("prefill", prompt=tokens) for tokens in PROMPTS)
    grid = [(batch, context) for context in CONTEXTS for batch in BATCHES if batch * context <= MOST_CONTEXT_TOKENS]
    for batch, context in [*grid[::2], *grid[1::2]]:
        yield StepProbe("decode", batch=batch, context=context)
    for batch in MIXED_BATCHES:
        yield from (StepProbe("mixed", batch, MIXED_CONTEXT, tokens) for tokens in MIXED_PROMPTS)


def small_probes() -> Iterator[StepProbe]:
    """One or two of each kind, for a CPU."""
    yield from (StepProbe("prefill", prompt=tokens) for tokens in (128, 512))
    yield from (StepProbe("decode", batch=batch, context=256) for batch in (1, 8))
    yield StepProbe("mixed", 4, 256, 512)


def measured(target: Target, probe: StepProbe) -> dict[str, float | int | None]:
    """The step's time (median, 10 % and 90 % of `seen`), and the medians that a calibration is fitted to."""
    target.reset_cache()
    load = load_of(probe)
    log = target.replay(requests_of(probe), load, window_of(probe), lambda seen: None)
    times_s = steps_s(probe, log)
    times_s = times_s[~np.isnan(times_s)]
    tpot_s, ttft_s = medians(log, load)
    low, middle, high = np.quantile(times_s, (0.1, 0.5, 0.9)).tolist() if len(times_s) else (None, None, None)
    print(f"{probe.name}: {f'{middle * 1e3:.2f} ms' if middle else 'no step could be singled out'}", flush=True)
    of_step = {"step_s": middle, "step_p10_s": low, "step_p90_s": high, "seen": len(times_s)}
    return {**of_step, "tpot_s": tpot_s, "ttft_s": ttft_s, "took_s": log.ended_s}


if __name__ == "__main__":
    main()
