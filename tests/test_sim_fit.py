from dataclasses import replace

import numpy as np
import pytest

from launchers.sim.fit import MeasuredProbe, errors, fit, medians, predict, thinned
from launchers.sim.settings import settings_of
from launchers.sim.steptime import step_time
from launchers.sim.virtual import VirtualTarget
from tests.builders import a_calibration
from tuner.config.calibration import Calibration
from tuner.config.catalog import load, load_model
from tuner.config.gpu import Gpu
from tuner.config.slo import Limits
from tuner.config.workload import Lengths, Workload
from tuner.configuration import Configuration
from tuner.target import ClosedLoop, Load, OpenLoop, Window
from tuner.workload.build import build

MODEL, GPU = load_model("qwen-7b"), load(Gpu, "h100")
PRIOR = a_calibration()
LOADS = (ClosedLoop(1), ClosedLoop(32), OpenLoop(4.0), OpenLoop(12.0))


def a_probe(truth: Calibration, load_: Load, tp: int = 1, prompt: int = 1500, requests: int = 80) -> MeasuredProbe:
    """What a server of which `truth` holds was seen to do."""
    settings = settings_of(Configuration("vllm", {"tp": tp}), MODEL, GPU, 0.0, 4096)
    workload = Workload(title="t", source="t", prompt=Lengths(fixed=prompt), output=Lengths(fixed=60))
    offered, window = build(workload, 5, requests), Window(0.0, 1e6, 1e6)
    log = VirtualTarget(settings, step_time(settings, MODEL, GPU, truth)).replay(
        offered, load_, window, lambda _: None
    )
    return MeasuredProbe(settings, MODEL, GPU, offered, load_, window, *medians(log, load_))


def probes_of(truth: Calibration, loads: tuple[Load, ...] = LOADS) -> list[MeasuredProbe]:
    return [a_probe(truth, load_, tp, prompt) for load_ in loads for tp in (1, 4) for prompt in (300, 3000)]


def factors(one: Calibration) -> list[float]:
    return [one.per_step_s, one.prefill_scale, one.decode_scale]


@pytest.mark.parametrize(
    "truth",
    [
        pytest.param(a_calibration(per_step_s=0.004, prefill_scale=1.2, decode_scale=0.9), id="slow engine"),
        pytest.param(a_calibration(per_step_s=0.001, prefill_scale=0.9, decode_scale=1.15), id="fast engine"),
    ],
)
def test_a_known_calibration_is_recovered_from_what_its_servers_did(truth):
    found = fit(probes_of(truth), PRIOR)
    # Pure decode steps hardly tell time per step from decode scale: the prior has a say in how they share the blame.
    assert found.per_step_s == pytest.approx(truth.per_step_s, rel=0.35)
    assert factors(found)[1:] == pytest.approx(factors(truth)[1:], rel=0.1)
    assert np.abs(errors(probes_of(truth), found).tpot).max() < 0.03


def test_measurements_that_the_prior_explains_leave_it_as_it_is():
    assert factors(fit(probes_of(PRIOR), PRIOR)) == pytest.approx(factors(PRIOR), rel=0.01)


def test_few_and_one_sided_probes_move_only_what_they_speak_of():
    slow = a_calibration(per_step_s=0.004)
    found = fit([a_probe(slow, ClosedLoop(1), prompt=16)], PRIOR)
    assert found.per_step_s == pytest.approx(0.004, rel=0.2)
    assert found.prefill_scale == pytest.approx(1.0, rel=0.02)
    assert found.decode_scale == pytest.approx(1.0, rel=0.1)
    assert fit([], PRIOR) == PRIOR


def test_a_factor_without_a_spread_is_held():
    probes = probes_of(a_calibration(per_step_s=0.004, prefill_scale=1.2), LOADS[:2])
    found = fit(probes, PRIOR, (0.7, 0.0, 0.0))
    assert factors(found)[1:] == [1.0, 1.0]
    assert found.per_step_s > 1.5 * PRIOR.per_step_s


def test_one_spoilt_probe_among_many_hardly_counts():
    probes = probes_of(PRIOR)
    spoilt = [replace(probes[0], tpot_s=10 * probes[0].tpot_s), *probes[1:]]
    assert factors(fit(spoilt, PRIOR)) == pytest.approx(factors(PRIOR), rel=0.25)


def test_first_tokens_of_closed_loops_are_not_compared():
    found = errors([a_probe(PRIOR, ClosedLoop(8)), a_probe(PRIOR, OpenLoop(4.0))], PRIOR)
    assert (len(found.tpot), len(found.ttft)) == (2, 1)
    assert np.abs([*found.tpot, *found.ttft]).max() == 0


def test_the_same_probes_give_the_same_calibration():
    truth = a_calibration(per_step_s=0.003)
    assert fit(probes_of(truth, LOADS[:2]), PRIOR) == fit(probes_of(truth, LOADS[:2]), PRIOR)


def test_a_prediction_is_the_score_of_the_same_requests_replayed():
    probe = a_probe(PRIOR, OpenLoop(4.0))
    found = predict(probe, PRIOR, Limits(tpot_s=1.0))
    assert found.tpot_s and found.tpot_s.p50 == probe.tpot_s
    assert found.attainment == 1.0


def test_a_fit_takes_a_bounded_number_of_probes_fewer_where_they_are_long_from_first_to_last():
    probe = a_probe(PRIOR, ClosedLoop(1), requests=10)
    many = [replace(probe, tpot_s=float(number)) for number in range(1, 101)]
    assert thinned(many[:5]) == many[:5]
    assert len(thinned(many)) == 32
    assert (thinned(many)[0], thinned(many)[-1]) == (many[0], many[-1])
    for longer in ({"prompt_tokens": probe.requests.prompt_tokens * 1000}, {"output_tokens": np.full(10, 10**6)}):
        assert len(thinned([replace(probe, requests=replace(probe.requests, **longer))] * 100)) == 8
