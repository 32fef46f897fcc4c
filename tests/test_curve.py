"""The curve fitted to probes: what it promises, and how sure it is."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import a_score
from tuner.curve import USUAL_DISPERSION, Curve, dispersion, fit, level_of
from tuner.score import Score
from tuner.target import ClosedLoop

ANYWHERE = 1e6


def a_probe(level: float, attainment: float, counted: int = 1000) -> Score:
    good = round(attainment * counted)
    return a_score(level, good / counted, counted=counted, good=good, batch_attainment=())


def on_a_power_law(
    levels: list[float], edge: float, power: float, bad: float = 0.1, counted: int = 5000
) -> list[Score]:
    """Probes without noise of a server whose share of bad requests is `bad` at `edge`."""
    odds = [bad / (1 - bad) * (level / edge) ** power for level in levels]
    return [a_probe(level, 1 / (1 + one), counted) for level, one in zip(levels, odds, strict=True)]


def highest(edge: float, power: float, wanted: float, bad: float = 0.1) -> tuple[float, float]:
    """The best level of such a server and its goodput there, by brute force."""
    levels = np.geomspace(edge / 10, edge * 10, 40_001)
    good = 1 / (1 + bad / (1 - bad) * (levels / edge) ** power)
    goodput = np.where(good >= wanted - 1e-9, levels * good, 0.0)
    return float(levels[goodput.argmax()]), float(goodput.max())


@pytest.mark.parametrize("wanted", [0.0, 0.9, 0.97])
@pytest.mark.parametrize("power", [3.0, 8.0, 40.0])
@pytest.mark.parametrize("edge", [0.6, 9.0, 120.0])
def test_the_edge_or_the_peak_below_it_is_found_whatever_its_steepness(
    edge: float, power: float, wanted: float
) -> None:
    level, goodput_rps = highest(edge, power, wanted)
    curve = fit(on_a_power_law([0.9 * level, 0.97 * level, 1.05 * level], edge, power), wanted)
    assert curve.best_level == pytest.approx(level, rel=0.05)
    assert curve.goodput_rps_within(ANYWHERE) == pytest.approx(goodput_rps, rel=0.02)


def test_an_attainment_that_costs_nothing_gives_the_peak_below_the_edge() -> None:
    probes = on_a_power_law([6.0, 8.0, 10.0, 12.0], 8.0, 5.0)
    assert fit(probes, 0.2).best_level == pytest.approx(fit(probes, 0.0).best_level, rel=0.05)


def test_more_requests_make_it_surer() -> None:
    few, many = (fit(on_a_power_law([9.0, 10.0, 11.0], 10.0, 8.0, counted=n), 0.9).error for n in (200, 5000))
    assert many < few / 2


def test_probes_that_all_held_say_only_that_the_edge_is_further_up() -> None:
    curve = fit([a_probe(1.0, 1.0), a_probe(2.0, 1.0)], 0.99)
    assert curve.best_level > 4.0 and curve.error > 1.0
    assert curve.chance_above(2.0) > 0.9


def test_a_probe_far_away_does_not_move_the_edge() -> None:
    near = on_a_power_law([9.0, 10.0, 11.0], 10.0, 8.0)
    far = a_probe(2.0, 0.97, counted=50_000)
    assert fit([*near, far], 0.9).best_level == pytest.approx(fit(near, 0.9).best_level, rel=0.02)


def test_a_lucky_probe_is_outvoted() -> None:
    probes = [*on_a_power_law([9.0, 10.0, 10.5], 10.0, 8.0), a_probe(11.0, 0.95)]
    assert fit(probes, 0.9).best_level == pytest.approx(10.0, rel=0.05)


def test_requests_that_fail_together_tell_less() -> None:
    clumped = a_score(1.0, 0.9, counted=1000, good=900, batch_attainment=(0.0, *[1.0] * 9))
    spread = a_score(1.0, 0.9, counted=1000, good=900, batch_attainment=(0.89, 0.91) * 5)
    assert dispersion([spread]) < USUAL_DISPERSION < dispersion([clumped])


def test_a_probe_without_a_single_miss_does_not_vouch_for_itself() -> None:
    perfect = a_score(1.0, 1.0, counted=1000, good=1000, batch_attainment=(1.0,) * 10)
    assert dispersion([perfect]) == pytest.approx(USUAL_DISPERSION)


def test_more_users_than_keep_a_server_full_bring_no_more_requests_so_fewer_are_better() -> None:
    probes = [
        a_score(users, share, load=ClosedLoop(users), counted=2000, good=round(2000 * share), request_rps=10.0,
                batch_attainment=())
        for users, share in [(8, 0.99), (16, 0.95), (32, 0.8)]
    ]  # fmt: skip
    curve = fit(probes, 0.9)
    assert curve.best_level < 16
    assert curve.goodput_rps_within(ANYWHERE) == pytest.approx(9.9, rel=0.05)


@given(
    st.lists(st.tuples(st.floats(0.01, 1e3), st.floats(0, 1), st.integers(1, 5000)), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999]),
)
def test_whatever_was_measured_there_is_a_curve_and_more_load_is_never_better(
    probes: list[tuple[float, float, int]], wanted: float
) -> None:
    curve: Curve = fit([a_probe(*probe) for probe in probes], wanted)
    assert np.isfinite([curve.best_level, curve.goodput_rps_within(ANYWHERE), curve.error]).all()
    assert 0 < curve.goodput_rps_within(ANYWHERE) <= curve.best_level * 1.01
    seen = [curve.attainment_at(level) for level in np.geomspace(0.005, 2e3, 20)]
    assert all(low >= high for low, high in pairwise(seen))


def test_how_many_requests_users_bring_is_learnt_from_all_probes_of_the_nearest_number() -> None:
    """Three users bring 0.3 requests a second: 27 in 120 s, 190 in 600 s, which count as long as they lasted."""
    few = a_score(3, 0.9, load=ClosedLoop(3), counted=27, good=24, request_rps=27 / 120)
    many = a_score(3, 0.9, load=ClosedLoop(3), counted=189, good=170, request_rps=189 / 600)
    curve = fit([few, many], 0.9)
    assert curve.unit_rps * 3**curve.growth == pytest.approx(216 / 720)


def test_the_level_of_a_load_is_its_rate_or_its_users() -> None:
    assert (level_of(a_probe(3.5, 1.0).load), level_of(ClosedLoop(7))) == (3.5, 7.0)


def test_the_level_to_recommend_leaves_room_below_a_cliff_for_what_is_not_known() -> None:
    def advised(counted: int, power: float) -> float:
        curve = fit(on_a_power_law([9.5, 10.0], 10.0, power, bad=0.01, counted=counted), 0.99)
        level, goodput_rps = curve.advice(0.99, curve.best_level * np.geomspace(0.85, 1.0, 41))
        assert 0.93 * level <= goodput_rps <= level
        return level / curve.best_level

    assert 0.85 <= advised(500, 20.0) < advised(20_000, 20.0) <= 1.0
    assert advised(20_000, 3.0) > 0.99, "on a slope an error of the level costs little either way"


def test_a_probe_that_was_stopped_says_only_that_it_was_at_least_so_bad() -> None:
    steep = on_a_power_law([9.0, 9.5], 10.0, 40.0)
    stopped = replace(a_probe(12.0, 0.85), stopped="150 of 1000 are bad already")
    assert fit([*steep, stopped], 0.9).best_level == pytest.approx(10.0, rel=0.03)


def test_no_goodput_is_promised_beyond_the_reach_of_the_probes() -> None:
    curve = fit([a_probe(1.0, 1.0), a_probe(2.0, 1.0)], 0.99)
    level, goodput_rps = curve.advice(0.99, np.array([2.1, 2.2, 2.3]))
    assert level <= 2.3 and goodput_rps <= 2.3 < curve.goodput_rps_within(ANYWHERE)
    assert curve.goodput_rps_within(2.3) == pytest.approx(2.3, rel=0.02)
