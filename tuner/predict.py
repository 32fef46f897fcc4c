"""Predict: the summary of a study on real or served engines, with what the simulation says beside what was measured.

The simulations are calibrated afresh on the study's probes and kept for later studies; a point's prediction is that
of the simulation as it was before. Nothing here changes a verdict, and what fails here is told, not raised.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from pyarrow import ArrowException

from launchers.sim.calibration import store
from launchers.sim.virtual import open_virtual
from tuner.calibrate import learn
from tuner.config.plan import Plan
from tuner.configuration import Configuration
from tuner.errors import ServerFailed, UserError
from tuner.evaluate import measure
from tuner.horizon import needed_requests
from tuner.outcome import Outcome
from tuner.probe import Prober
from tuner.score import Score
from tuner.seeds import Purpose, derive
from tuner.summary import Comparison, Point, Predicted, Summary
from tuner.target import ClosedLoop, OpenLoop


def compared(plan: Plan, summary: Summary, outcomes: Mapping[int, Outcome]) -> Summary:
    """`summary` with predictions at its points and a comparison for each engine; keeps the new calibrations."""
    return replace(
        summary,
        default=summary.default and _with_prediction(plan, summary.default),
        best=summary.best and _with_prediction(plan, summary.best),
        frontier=tuple(_with_prediction(plan, point) for point in summary.frontier),
        simulation=tuple(_comparison(plan, engine.name, outcomes) for engine in plan.engines),
    )


def _comparison(plan: Plan, engine: str, outcomes: Mapping[int, Outcome]) -> Comparison:
    try:
        lesson = learn(plan, engine, outcomes)
    except (OSError, ArrowException, UserError, np.linalg.LinAlgError) as error:
        return Comparison(engine, 0, why=f"not compared: {error}")
    if lesson.calibration is None:
        return lesson.comparison
    try:
        kept = store(lesson.calibration)
    except OSError as error:
        return replace(lesson.comparison, why=f"the calibration could not be kept: {error}")
    return replace(lesson.comparison, kept=_from_home(kept))


def _with_prediction(plan: Plan, point: Point) -> Point:
    return replace(point, predicted=_predicted(plan, point))


def _predicted(plan: Plan, point: Point) -> Predicted | None:
    """One window of the simulated server at the point's load; None where it would not start, or is not to be
    believed because nothing has calibrated it."""
    configuration = Configuration(point.engine, point.configuration)
    try:
        with open_virtual(plan, configuration) as target:
            if not target.steps.is_calibrated:
                return None
            prober = Prober(target, plan.workload, plan.slo, derive(plan.seed, Purpose.CONFIRM))
            if plan.workload.arrivals.kind == "closed":
                prober.idle()
            level = next(iter(point.load.values()))
            load = ClosedLoop(round(level)) if "users" in point.load else OpenLoop(level)
            found = measure(prober, level, needed_requests(plan.slo, load), plan)
            return _as_predicted(found, point.gpus, target.steps.source)
    except (ServerFailed, UserError):
        return None


def _as_predicted(found: Score, gpus: int, source: str) -> Predicted:
    return Predicted(
        goodput_rps_per_gpu=found.goodput_rps / gpus,
        attainment=found.attainment,
        throughput_tok_s_per_gpu=found.throughput_tok_s / gpus,
        tok_s_per_user=found.tok_s_per_user,
        ttft_s=found.ttft_s,
        itl_s=found.itl_s,
        tpot_s=found.tpot_s,
        e2e_s=found.e2e_s,
        by=source,
    )


def _from_home(path: Path) -> str:
    """`path` as its user writes it: what is recorded may be shown to others."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)
