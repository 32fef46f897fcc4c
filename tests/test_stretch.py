"""Stretch: the factor named is the least at which what was measured would have held the SLO."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import an_slo
from tests.logs import a_log
from tuner.config.slo import Limits, Slo
from tuner.requestlog import Status
from tuner.score import answers_of, attainment_of
from tuner.stretch import LONGEST, needed_scale
from tuner.target import OpenLoop

LOAD = OpenLoop(5.0)
HALF = an_slo(attainment=0.5, limits=Limits(ttft_s=0.1, itl_s=0.05))


def scale_for(ttfts_s: list[float], gap_s: float = 0.01, slo: Slo = HALF, failed: int = 0) -> float | None:
    """What answers of two chunks need."""
    rows = [(0.0, (ttft_s, ttft_s + gap_s)) for ttft_s in ttfts_s]
    status = np.array([Status.FAILED] * failed + [Status.OK] * (len(rows) - failed))
    return needed_scale(answers_of(a_log(rows, status=status), LOAD), slo)


@pytest.mark.parametrize(
    ("ttfts_s", "others", "scale"),
    [
        pytest.param([0.31] * 4, {}, 3.2, id="all wait three times too long"),
        pytest.param([0.05, 0.15, 0.31, 0.9], {}, 1.6, id="half of them have to hold it"),
        pytest.param([0.05] * 4, {"gap_s": 0.12}, 2.5, id="the worst limit says it"),
        pytest.param([0.2] * 4, {"gap_s": 0.12}, 2.5, id="all limits grow together"),
        pytest.param([1.55] * 4, {}, 16, id="two digits"),
        pytest.param([0.05] * 4, {}, None, id="it holds as it is"),
        pytest.param([0.05] * 4, {"failed": 3}, None, id="failures do not become good"),
        pytest.param([0.31] * 4, {"failed": 2}, 3.2, id="as many failures as are allowed"),
        pytest.param([0.1 * LONGEST * 1.1] * 4, {}, None, id="nobody waits so long"),
    ],
)
def test_the_factor_is_that_of_the_request_that_has_to_be_good(
    ttfts_s: list[float], others: dict[str, float], scale: float | None
) -> None:
    assert scale_for(ttfts_s, **others) == scale  # type: ignore[arg-type]


@given(st.lists(st.floats(0.001, 5.0), min_size=1, max_size=40), st.floats(0.01, 0.2), st.floats(0.01, 0.999))
def test_with_the_factor_the_slo_is_held_and_with_a_clearly_smaller_one_it_is_not(
    ttfts_s: list[float], gap_s: float, attainment: float
) -> None:
    slo = HALF.model_copy(update={"attainment": attainment})
    scale = scale_for(ttfts_s, gap_s, slo)
    if scale is None:
        return
    answers = answers_of(a_log([(0.0, (ttft_s, ttft_s + gap_s)) for ttft_s in ttfts_s]), LOAD)
    assert attainment_of(answers, slo.scaled(scale).limits) >= attainment
    assert attainment_of(answers, slo.scaled(scale * 0.88).limits) < attainment
