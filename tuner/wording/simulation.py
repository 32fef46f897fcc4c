"""Words for simulations: what their step times are, and how near they came to what was measured."""

from collections.abc import Iterator
from pathlib import PurePath

from launchers.sim.steptime import step_time
from launchers.sim.virtual import planned_settings
from tuner.config.plan import Plan
from tuner.configuration import Configuration
from tuner.errors import ServerFailed
from tuner.summary import Comparison, Summary
from tuner.wording.comparison import deployed
from tuner.wording.naming import trial_name
from tuner.wording.numbers import device, number, share


def simulated_engine(plan: Plan, title: str, default: Configuration, lacking: str = "") -> str:
    """Where the step times of an engine's default come from (`lacking`: and why not from a table), what it adds to
    each step, and in virtual time how long it takes to start; or what keeps it from starting."""
    try:
        settings = planned_settings(plan, default)
    except ServerFailed as failed:
        return f"{title}'s default will not start on this box: {failed}"
    steps = step_time(settings, plan.model, plan.box.gpu, plan.calibrations.get(default.engine))
    start = f", start {settings.startup_s:.0f} s" if plan.box.simulation == "virtual" else ""
    return f"{title}: step times from {steps.source}{lacking}; +{steps.per_step_s * 1e3:.1f} ms per step{start}"


def predicted_against_measured(summary: Summary, plan: Plan) -> tuple[str, ...]:
    """Sentences on the deployed point and on each engine's probes; none where nothing was compared."""
    titles = {engine.name: engine.title for engine in plan.engines}
    said = [sentence for one in summary.simulation for sentence in _of_engine(one, titles[one.engine])]
    return (*_of_point(summary, plan), *said)


def _of_point(summary: Summary, plan: Plan) -> Iterator[str]:
    point = deployed(summary)
    if point is None or point.predicted is None:
        return
    guess = point.predicted
    yield (
        f"{trial_name(point.trial)}: {number(guess.goodput_rps_per_gpu)} good req/s per {device(plan)} and "
        f"{share(guess.attainment)} in SLO predicted, {number(point.goodput_rps_per_gpu)} and "
        f"{share(point.attainment)} measured."
    )


def _of_engine(one: Comparison, title: str) -> Iterator[str]:
    if one.tpot_error_before is not None:
        errors = [_error("TPOT", one.tpot_error_before, one.tpot_error_after)]
        if one.ttft_error_before is not None:
            errors.append(_error("TTFT", one.ttft_error_before, one.ttft_error_after))
        yield f"{title}, median error over {one.probes} probes: {'; '.join(errors)}."
    if one.why:
        yield f"{title}: {one.why}."
    if one.kept:
        yield f"{title}'s calibration is kept for later simulations: {PurePath(one.kept).name}."


def _error(metric: str, before: float, after: float | None) -> str:
    return f"{metric} {before * 100:.0f} % before, {(after or 0.0) * 100:.0f} % after calibration"
