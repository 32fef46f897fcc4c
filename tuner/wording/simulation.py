"""Words for how near the simulation came to what was measured: predicted against measured. Pure."""

from collections.abc import Iterator
from pathlib import PurePath

from tuner.config.plan import Plan
from tuner.summary import Comparison, Summary
from tuner.wording.comparison import deployed
from tuner.wording.naming import trial_name
from tuner.wording.numbers import device, number, share


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
