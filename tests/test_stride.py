"""How far a finalist steps from what was measured."""

import pytest

from tuner.crest import Level
from tuner.stride import BOLDEST, STEP, stride_down, stride_up


def levels(*attainments: float) -> list[Level]:
    return [Level(10 * STEP**k, share, 5000, 10 * STEP**k) for k, share in enumerate(attainments)]


@pytest.mark.parametrize(
    ("attainments", "expected"),
    [
        pytest.param((0.99, 0.91), STEP, id="just below the edge"),
        pytest.param((0.95, 0.94), 1.18, id="the power law reaches 0.9 at 1.15 times as much"),
        pytest.param((0.99, 0.989), BOLDEST, id="hardly falling"),
        pytest.param((1.0, 1.0), BOLDEST, id="none is bad"),
        pytest.param((0.93, 0.95), BOLDEST, id="better with more load"),
        pytest.param((0.99,), 1.15, id="one level, most allowed misses unused"),
        pytest.param((0.92,), STEP, id="one level, near the edge"),
    ],
)
def test_upward_as_far_as_the_power_law_says_within_bounds(attainments: tuple[float, ...], expected: float) -> None:
    assert stride_up(levels(*attainments), 0.9) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("attainments", "expected"),
    [
        pytest.param((0.89, 0.79), STEP, id="just above the edge"),
        pytest.param((0.8, 0.78), 1.27, id="5 % of load are 2 points of attainment, 10 are missing"),
        pytest.param((0.5, 0.5), BOLDEST, id="flat"),
    ],
)
def test_downward_as_far_as_a_line_says_within_bounds(attainments: tuple[float, ...], expected: float) -> None:
    assert stride_down(levels(*attainments), 0.9) == pytest.approx(expected, abs=0.01)
