"""What one lonely request misses, in words."""

import numpy as np
import pytest

from tests.logs import a_log
from tuner.config.slo import Limits
from tuner.idle import missed_when_idle
from tuner.probe import Recorded
from tuner.requestlog import RequestLog, Status
from tuner.score import score
from tuner.target import ClosedLoop

STEADY = (0.0, (0.310, 0.320, 0.330))
STALLED = (1.0, (1.300, 1.310, 1.700))


def idle(log: RequestLog, limits: Limits) -> Recorded:
    return Recorded("idle", 0, score(log, ClosedLoop(1), limits), log, planned_s=1.0, seed=1)


@pytest.mark.parametrize(
    ("limits", "bad", "said"),
    [
        pytest.param(Limits(ttft_s=0.2), 2, "TTFT 305 ms (limit 200 ms)",
                     id="by how much"),
        pytest.param(Limits(ttft_s=0.1, ttft_s_per_prompt_token=0.001),
                     2, "TTFT 305 ms (limit 200 ms)",
                     id="a limit that grows with the prompt, as it was for them"),
        pytest.param(Limits(itl_s=0.05), 1, "ITL 390 ms (limit 50 ms)",
                     id="the gap that was too long, not the usual one"),
        pytest.param(Limits(ttft_s=1.0), 0, "", id="none"),
    ],
)  # fmt: skip
def test_what_is_missed_alone_is_told_with_the_limit_it_had(limits: Limits, bad: int, said: str) -> None:
    log = a_log([STEADY, STALLED])
    assert log.prompt_tokens.tolist() == [100, 100]
    misses = "misses the SLO though it is alone" if bad == 1 else "miss the SLO though they are alone"
    whole = f"{bad} of 2 requests {misses}: {said}" if bad else ""
    assert missed_when_idle(idle(log, limits), limits) == whole


def test_requests_that_failed_are_counted() -> None:
    limits = Limits(ttft_s=0.2)
    log = a_log([STEADY, STALLED], status=np.array([Status.OK, Status.FAILED]))
    assert missed_when_idle(idle(log, limits), limits).endswith("TTFT 310 ms (limit 200 ms), 1 failed")
