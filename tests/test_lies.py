"""How measurements lie, provoked on simulated servers in virtual time: what docs/measurement.md says of it holds."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from tests.builders import an_slo
from tuner.cli.planning import Options, plan_from
from tuner.config.slo import Limits, Slo
from tuner.configuration import Configuration
from tuner.curve import dispersion
from tuner.probe import Prober
from tuner.score import Score
from tuner.target import OpenLoop
from tuner.trial import TrialOrder, open_for

SLO = an_slo(limits=Limits(ttft_s=0.5), attainment=0.9, warmup_s=5.0, window_s=60.0, timeout_s=30.0)
BATCH = 64


@cache
def attainments(batch: int, rate_rps: float, window_s: float, traces: int = 8) -> tuple[float, ...]:
    return tuple(score.attainment for score in windows(batch, rate_rps, window_s, traces))


def windows(batch: int, rate_rps: float, window_s: float, traces: int, slo: Slo = SLO) -> Iterator[Score]:
    """Whole windows on one server, every one with a trace of its own."""
    options = Options("qwen-7b", "chat", workload="256x64", simulate="virtual", gpus="1", out=Path("study"))
    plan = plan_from(options).plan
    knobs = {"max_batch_size": batch, "token_budget": 2048, "tp": 1}
    with open_for(TrialOrder(plan, 0, Configuration("vllm", knobs), (0,))) as target:
        for trace in range(traces):
            prober = Prober(target, plan.workload, slo, seed=trace, stage="confirm")
            yield prober.measure_for(OpenLoop(rate_rps), window_s)


def test_a_short_window_overstates_what_an_overloaded_server_holds() -> None:
    short, long = (np.mean(attainments(BATCH, 80.0, window_s, traces=3)) for window_s in (3.0, 60.0))
    assert short > 0.85 and long < 0.6


def test_near_capacity_requests_share_their_fate_and_a_probe_says_so() -> None:
    """Six windows differ by far more than as many independent requests would, and the batches of one window tell."""
    scores = list(windows(BATCH, 80.0, 10.0, traces=6))
    shares = np.array([score.attainment for score in scores])
    binomial = shares.mean() * (1 - shares.mean()) / scores[0].counted
    assert shares.var(ddof=1) > 5 * binomial
    assert dispersion(scores) > 5


def test_the_same_traces_show_a_difference_that_other_traces_would_hide() -> None:
    better, worse = (np.array(attainments(batch, 84.0, 10.0, traces=6)) for batch in (BATCH, BATCH - 4))
    assert np.var(better - worse) < np.var(better - np.roll(worse, 1)) / 2
