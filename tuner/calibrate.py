"""Calibrate: what the measured probes of a study say about the simulation of its engines. Reads the raw logs.

Probes whose configuration speculates are left out (the share of guesses accepted is not known), and so are probes
that were stopped early and configurations that the simulation would not start.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from launchers.sim.calibration import SHIPPED, SIMULATED
from launchers.sim.fit import RULE, MeasuredProbe, errors, fit, median, thinned
from launchers.sim.settings import SimSettings
from launchers.sim.steptime import step_source
from launchers.sim.virtual import planned_settings
from tuner.config.calibration import Calibration
from tuner.config.plan import Plan
from tuner.config.workload import Workload
from tuner.configuration import Configuration
from tuner.errors import ServerFailed
from tuner.outcome import Outcome
from tuner.probe import IDLE_REQUESTS
from tuner.rawlog import RawProbe, read_probes
from tuner.record import trial_folder
from tuner.requests import FloatArray, Requests
from tuner.summary import Comparison
from tuner.target import ClosedLoop, Window
from tuner.workload.build import build

# Of each probe so many counted requests are replayed, fewer where prompts are long: with `thinned`, what bounds the
# time of a fit.
MOST_COUNTED, LEAST_COUNTED = 200, 30
MOST_COUNTED_TOKENS = 1_000_000
# How much longer than in the measurement the load goes on behind the last counted request.
TAIL = 1.5
# With more than this median error left in TPOT, the simulation is not one of this server, and nothing is kept.
FAR_OFF = 0.5
# Fewer probes than these must not take the place of what a whole study taught.
LEAST_TO_KEEP = 4
UNCALIBRATED = "nothing had calibrated its roofline before, so no point was predicted"


@dataclass(frozen=True)
class Lesson:
    """What was learned of one engine: the comparison, and the calibration that is worth keeping, if any."""

    comparison: Comparison
    calibration: Calibration | None


def learn(plan: Plan, engine: str, outcomes: Mapping[int, Outcome]) -> Lesson:
    """Fit the simulation of `engine` to the study's probes, and say how far it is off before and after.

    Raises OSError, ArrowException and ConfigError where raw logs or the workload's trace cannot be read.
    """
    found = [
        (step_source(settings, plan.model, plan.box.gpu), probe)
        for outcome in outcomes.values()
        if outcome.configuration.engine == engine and outcome.state != "failed"
        if (settings := _settings(plan, outcome.configuration))
        for probe in _measured(plan, outcome.trial, settings)
    ]
    if not found:
        return Lesson(Comparison(engine, 0, why="no probe that can be replayed in virtual time"), None)
    over = Counter(kind for kind, _ in found).most_common(1)[0][0]
    probes = thinned([probe for kind, probe in found if kind == over])
    before = plan.calibrations.get(engine) or SHIPPED[over]
    knows_rooflines = before.over == "roofline" and before != SHIPPED["roofline"]
    # What is shipped was not fitted to anything of this study.
    fitted = _named(plan, engine, len(probes), fit(probes, SHIPPED[over]))
    first, last = errors(probes, before), errors(probes, fitted)
    comparison = Comparison(
        engine=engine,
        why=UNCALIBRATED if over == "roofline" and not knows_rooflines else None,
        probes=len(probes),
        tpot_error_before=_typical(first.tpot),
        tpot_error_after=_typical(last.tpot),
        ttft_error_before=_typical(first.ttft),
        ttft_error_after=_typical(last.ttft),
        calibration=fitted,
    )
    if plan.box.simulation is not None:
        # A simulation teaches nothing about the engine, and its own delays would add up from study to study.
        return Lesson(comparison, None)
    unfit = _unfit(comparison, plan.workload)
    if unfit:
        return Lesson(replace(comparison, why=unfit), None)
    return Lesson(comparison, fitted)


def _unfit(comparison: Comparison, workload: Workload) -> str | None:
    """Why a calibration is not worth keeping; None where it is."""
    if workload.real_text:
        return "how many tokens its prompts have was estimated, so the calibration is not kept"
    left = comparison.tpot_error_after
    if comparison.probes < LEAST_TO_KEEP:
        return f"only {comparison.probes} probes could be compared, so the calibration is not kept"
    if left is None or left > FAR_OFF:
        return "even calibrated, the simulation is not one of this server, so the calibration is not kept"
    return None


def _named(plan: Plan, engine: str, probes: int, fitted: Calibration) -> Calibration:
    return fitted.model_copy(
        update={
            "engine": engine,
            "version": plan.versions.get(engine, SIMULATED),
            "model": plan.model.name,
            "gpu": plan.box.gpu.name,
            "probes": probes,
            "measured": plan.study,
            "rule": RULE,
            "fitted": datetime.now(UTC).replace(microsecond=0),
        }
    )


def _settings(plan: Plan, configuration: Configuration) -> SimSettings | None:
    """The simulated server, None where it would say nothing about the measured one."""
    try:
        settings = planned_settings(plan, configuration)
    except ServerFailed:
        return None
    return None if settings.drafts else settings


def _measured(plan: Plan, trial: int, settings: SimSettings) -> Iterator[MeasuredProbe]:
    folder = trial_folder(plan.out, trial)
    for path in [folder / "requests.parquet", *sorted((folder / "confirm").glob("*.parquet"))]:
        for raw in read_probes(path) if path.exists() else []:
            is_known = raw.seed is not None and raw.is_whole and raw.stage != "ramp"
            if is_known and (raw.counted & raw.ended_well).any():
                yield _replayable(plan, raw, settings)


def _replayable(plan: Plan, raw: RawProbe, settings: SimSettings) -> MeasuredProbe:
    """The probe with its window closed after the first counted requests: for its medians they are enough."""
    warmup_s = 0.0 if _is_unwarmed(plan, raw) else plan.slo.warmup_s
    end_s = float(np.nextafter(raw.due_s[raw.counted][: _enough(raw)][-1], np.inf))
    seen = raw.counted & raw.ended_well & (raw.due_s < end_s)
    start_s = raw.sent_s if isinstance(raw.load, ClosedLoop) else raw.due_s
    several = seen & (raw.output_tokens > 1)
    tpot_s = (raw.last_s - raw.first_s)[several] / (raw.output_tokens[several] - 1)
    return MeasuredProbe(
        settings=settings,
        model=plan.model,
        gpu=plan.box.gpu,
        requests=_as_answered(_offered(plan, raw, end_s), raw),
        load=raw.load,
        window=Window(warmup_s, end_s - warmup_s, plan.slo.timeout_s),
        tpot_s=median(tpot_s),
        ttft_s=median((raw.first_s - start_s)[seen]),
    )


def _enough(raw: RawProbe) -> int:
    few = int(np.searchsorted(np.cumsum(raw.prompt_tokens[raw.counted]), MOST_COUNTED_TOKENS))
    return min(max(few, LEAST_COUNTED), MOST_COUNTED)


def _is_unwarmed(plan: Plan, raw: RawProbe) -> bool:
    return raw.stage == "idle" or plan.workload.arrivals.kind == "at_once"


def _offered(plan: Plan, raw: RawProbe, end_s: float) -> Requests:
    """The same requests until all counted ones have ended, and some longer, for a simulated server that is slower;
    in a closed loop more, for one that is faster."""
    assert raw.seed is not None, "a probe to be replayed says its seed"
    if raw.stage == "idle":
        return build(plan.workload, raw.seed, IDLE_REQUESTS)
    counted_until_s = float(np.nanmax(raw.last_s[raw.counted & raw.ended_well & (raw.due_s < end_s)]))
    horizon_s = end_s + TAIL * (counted_until_s - end_s)
    known = int(raw.request[raw.due_s <= max(horizon_s, end_s)].max()) + 1
    runs_on = isinstance(raw.load, ClosedLoop) and plan.workload.arrivals.kind != "at_once"
    return build(plan.workload, raw.seed, 2 * known if runs_on else known)


def _as_answered(requests: Requests, raw: RawProbe) -> Requests:
    """The same requests with answers as long as they came. One whose end was not seen is taken to have been as much
    shorter than asked as the others were."""
    seen = raw.ended_well & (raw.request < len(requests))
    place, came = raw.request[seen], raw.output_tokens[seen]
    output_tokens = requests.output_tokens * (came.sum() / requests.output_tokens[place].sum())
    output_tokens[place] = came
    return replace(requests, output_tokens=np.maximum(np.rint(output_tokens), 1).astype(np.int64))


def _typical(log_ratios: FloatArray) -> float | None:
    """The median size of predicted/measured − 1."""
    return float(np.median(np.abs(np.expm1(log_ratios)))) if len(log_ratios) else None
