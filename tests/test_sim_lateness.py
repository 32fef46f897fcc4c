import pytest

from launchers.sim.lateness import Lateness


def noted(*late_s: float) -> Lateness:
    lateness = Lateness()
    for one_s in late_s:
        lateness.note(one_s)
    return lateness


def test_a_percentile_is_rounded_up_to_a_tenth_of_a_millisecond():
    lateness = noted(*[0.00101] * 99, 0.2)
    assert lateness.percentile_s(99) == pytest.approx(0.0011)
    assert lateness.percentile_s(100) == pytest.approx(0.2)
    assert (lateness.within(0.001), lateness.within(0.002), lateness.steps) == (0, 99, 100)


def test_an_early_step_is_not_late():
    assert noted(-0.0004).percentile_s(100) == noted().percentile_s(50) == 0
    assert noted(-0.0004).sum_s == 0
