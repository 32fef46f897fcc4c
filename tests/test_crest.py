"""The crest of a few measured levels: an edge, a peak, or as far as they reach."""

import numpy as np
import pytest

from tuner.crest import Level, crest_of

COUNTED = 5000


def level(rate: float, bad: float, offered_rps: float | None = None) -> Level:
    return Level(rate, 1 - bad, COUNTED, offered_rps if offered_rps is not None else rate)


def on_power_law(rate: float, edge: float, power: float) -> Level:
    """1 % of the requests are bad at `edge`."""
    odds = 0.01 / 0.99 * (rate / edge) ** power
    return level(rate, odds / (1 + odds))


@pytest.mark.parametrize("power", [2.0, 8.0, 50.0])
def test_an_edge_lies_where_the_power_law_allows_no_more_misses(power: float) -> None:
    found = crest_of([on_power_law(rate, 10.3, power) for rate in (10.0, 10.5)], (10.0, 10.5), 0.99)
    assert found.level == pytest.approx(10.3)
    assert (found.attainment, found.power) == (pytest.approx(0.99), pytest.approx(power))
    assert found.slope == pytest.approx(power * 0.99 * 0.01)


@pytest.mark.parametrize("power", [3.0, 25.0])
def test_a_peak_lies_where_one_request_in_as_many_as_the_power_is_bad(power: float) -> None:
    edge = 10.2 * (0.01 / 0.99 * (power - 1)) ** (1 / power)
    found = crest_of([on_power_law(rate, edge, power) for rate in (10.0, 10.5)], (10.0, 10.5), 0.0)
    assert found.level == pytest.approx(10.2)
    assert found.goodput_rps == pytest.approx(10.2 * (1 - 1 / power))


def test_users_who_wait_for_a_full_server_bring_fewer_requests_and_peak_earlier() -> None:
    """20 % more users bring 4 % more requests: growth 0.215. Goodput peaks where 0.215/power are bad."""
    levels = [level(10, 0.01, 5.0), level(12, 0.09, 5.2)]
    found, growth = crest_of(levels, (10, 12), 0.0), np.log(5.2 / 5.0) / np.log(1.2)
    assert 1 - found.attainment == pytest.approx(growth / found.power, rel=1e-3)
    assert found.offered_rps == pytest.approx(5.0 * (found.level / 10) ** growth)


@pytest.mark.parametrize(
    ("levels", "wanted", "at"),
    [
        pytest.param([level(10, 0.0), level(11, 0.0)], 0.9, 11, id="all good: as far as was measured"),
        pytest.param([level(10, 1.0), level(11, 1.0)], 0.0, 10, id="all bad"),
        pytest.param([level(10, 0.05), level(11, 0.02)], 0.9, 11, id="better with more load"),
        pytest.param([level(10, 0.2), level(11, 0.6)], 0.9, 10, id="both beyond the edge"),
        pytest.param([level(10, 0.0), level(11, 1.0)], 0.99, 10.5, id="a wall: between them"),
    ],
)
def test_it_never_lies_outside_of_the_levels(levels: list[Level], wanted: float, at: float) -> None:
    found = crest_of(levels, (10, 11), wanted)
    assert found.level == pytest.approx(at, abs=0.4)
    assert 10 <= found.level <= 11
    assert wanted <= found.attainment <= 1
    assert np.isfinite(found.goodput_rps) and np.isfinite(found.slope)


def test_the_level_with_more_misses_tells_more_of_the_line() -> None:
    """A hundred misses know their share better than one does."""
    rare, frequent = level(9.0, 1 / COUNTED), on_power_law(11.0, 10.0, 20.0)
    found = crest_of([rare, on_power_law(10.4, 10.0, 20.0), frequent], (9.0, 11.0), 0.95)
    assert found.level == pytest.approx(10.0 * (0.05 / 0.95 * 99) ** (1 / 20), rel=0.005)


def test_a_level_at_which_nothing_came_is_no_logarithm_of_nothing() -> None:
    nothing = Level(12.0, 0.0, 0, 0.0)
    found = crest_of([level(10, 0.01), nothing], (10, 12), 0.9)
    assert np.isfinite([found.level, found.goodput_rps, found.slope]).all()


def test_one_level_says_nothing_of_a_slope() -> None:
    with pytest.raises(AssertionError, match="one level"):
        crest_of([level(10, 0.01)], (10, 10), 0.99)


def test_the_same_line_says_what_a_lower_level_is_worth() -> None:
    found = crest_of([level(10.0, 0.05), level(11.0, 0.15)], (10.0, 11.0), 0.9)
    lower = found.at(10.0)
    assert 10.0 < found.level < 11.0
    assert (lower.attainment, lower.offered_rps) == (pytest.approx(0.95), pytest.approx(10.0))
