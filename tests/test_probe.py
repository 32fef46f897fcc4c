"""Probe: how long one lasts. Measured on the simulated engine in virtual time."""

from pathlib import Path

import pytest

from tests.builders import an_slo
from tuner.cli.planning import Options, plan_from
from tuner.config.slo import Limits
from tuner.configuration import Configuration
from tuner.probe import Prober
from tuner.target import OpenLoop
from tuner.trial import TrialOrder, open_for

RATE_RPS = 40.0
COUNTED = 100


def window_s(folder: Path, limits: Limits, warmup_s: float = 2.0) -> float:
    """The window of a probe of `COUNTED` requests at `RATE_RPS`, which would take 2.75 s."""
    slo = an_slo(limits=limits, attainment=0.9, warmup_s=warmup_s, window_s=10.0, timeout_s=20.0)
    options = Options("qwen-7b", "chat", workload="128x16", simulate="virtual", gpus="1", out=folder / "study")
    plan = plan_from(options).plan
    order = TrialOrder(plan, 0, Configuration("vllm", {"max_batch_size": 64, "token_budget": 2048, "tp": 1}), (0,))
    with open_for(order) as target:
        prober = Prober(target, plan.workload, slo, seed=1)
        prober.measure(OpenLoop(RATE_RPS), COUNTED)
        return prober.recorded[0].log.window_s


@pytest.mark.parametrize(
    ("limits", "warmup_s", "expected_s"),
    [
        pytest.param(Limits(ttft_s=0.1, itl_s=0.05), 2.0, 2.75, id="as long as its requests take"),
        pytest.param(Limits(ttft_s=0.3), 2.0, 8.0 / 0.9, id="until 3 % too much load breaks it for one in ten"),
        pytest.param(Limits(e2e_s=0.3), 2.0, 8.0 / 0.9, id="where only the whole request is limited too"),
        pytest.param(Limits(ttft_s=0.3), 10.0, 2.75, id="the queue grows while the probe warms up"),
        pytest.param(Limits(ttft_s=5.0), 2.0, 10.0, id="never longer than the window of the SLO"),
        pytest.param(Limits(itl_s=0.1), 2.0, 10.0, id="without a limit on waiting the server has to keep up"),
    ],
)
def test_a_probe_lasts_long_enough_for_an_overload_to_show(
    limits: Limits, warmup_s: float, expected_s: float, tmp_path: Path
) -> None:
    assert window_s(tmp_path, limits, warmup_s) == pytest.approx(expected_s)
