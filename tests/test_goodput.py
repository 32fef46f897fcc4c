"""The load search, against servers whose truth is a formula."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.builders import a_score
from tuner.goodput import MAX_PROBES, Answer, Question, attainment_upper, find_goodput, level_of, worth
from tuner.score import Score
from tuner.target import Load, OpenLoop

Curve = Callable[[float], float]


def cliff(at: float) -> Curve:
    """Attainment falls from 1 to 0 within a few percent around `at` req/s."""
    return lambda rate: float(1 / (1 + (rate / at) ** 60))


def slope(at: float) -> Curve:
    """Attainment falls slowly: half of the requests are bad at `at` req/s."""
    return lambda rate: float(1 / (1 + (rate / at) ** 3))


def server(curve: Curve, seed: int = 0) -> Callable[[Load, int], Score]:
    """Probes with binomial noise around `curve`."""
    random = np.random.default_rng(seed)

    def probe(load: Load, counted: int) -> Score:
        rate = level_of(load)
        good = int(random.binomial(counted, curve(rate)))
        batches = tuple(random.binomial(counted // 10, curve(rate), 10) / (counted // 10))
        return a_score(rate, load=load, counted=counted, good=good, attainment=good / counted,
                       goodput_rps=rate * good / counted, request_rps=rate, batch_attainment=batches)  # fmt: skip

    return probe


def truth(curve: Curve, attainment: float) -> float:
    """The highest goodput among loads that hold the SLO, by brute force."""
    rates = np.geomspace(0.01, 1000, 20000)
    return max((rate * curve(rate) for rate in rates if curve(rate) >= attainment), default=0.0)


def question(attainment: float = 0.99, start: float = 1.0, **overrides: object) -> Question:
    return Question(attainment, max(500, round(20 / (1 - attainment))), start, 0.1, **overrides)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [0.5, 3.0, 40.0, 400.0])
@pytest.mark.parametrize("attainment", [0.9, 0.99])
@pytest.mark.parametrize("curve", [cliff(20.0), cliff(3.0), slope(30.0)], ids=["cliff at 20", "cliff at 3", "slope"])
def test_the_edge_is_found_wherever_the_search_starts(curve: Curve, attainment: float, start: float) -> None:
    found = find_goodput(question(attainment, start), server(curve))
    assert found.ended == "found"
    assert found.goodput_rps == pytest.approx(truth(curve, attainment), rel=0.06)


def test_without_an_attainment_the_free_peak_is_found_below_the_highest_load() -> None:
    curve = slope(30.0)
    found = find_goodput(Question(0.0, 500, 1.0, 0.1), server(curve))
    assert found.goodput_rps == pytest.approx(truth(curve, 0.0), rel=0.1)


def test_the_best_probe_is_one_that_holds_the_slo() -> None:
    found = find_goodput(question(), server(cliff(20.0)))
    assert found.best and found.best.attainment >= 0.99
    assert found.edge and level_of(found.best.load) == pytest.approx(found.edge, rel=0.1)


def test_a_server_that_holds_the_slo_nowhere_is_given_up_at_the_least_load_worth_having() -> None:
    found = find_goodput(question(start=10.0), server(lambda rate: 0.5))
    assert (found.ended, found.goodput_rps) == ("misses-slo", 0.0)
    assert min(level_of(probe.load) for probe in found.probes) == 0.1


def test_the_least_load_is_reached_however_slowly_attainment_rises() -> None:
    found = find_goodput(question(start=100.0), server(lambda rate: 0.93 - 0.01 * float(np.log10(rate))))
    assert found.ended == "misses-slo"
    assert min(level_of(probe.load) for probe in found.probes) == 0.1


@pytest.mark.parametrize("seed", range(5))
def test_a_near_miss_at_the_least_load_is_measured_as_long_as_what_decides(seed: int) -> None:
    found = find_goodput(question(start=1.0), server(lambda rate: 0.987, seed))
    at_least = [probe for probe in found.probes if level_of(probe.load) == 0.1]
    assert found.ended == "found" or max(probe.counted for probe in at_least) >= 2000


def test_a_server_that_cannot_beat_the_incumbent_costs_two_probes_and_is_known_roughly() -> None:
    found = find_goodput(question(start=30.0, beat_rps=30.0), server(cliff(20.0)))
    assert (found.ended, len(found.probes)) == ("hopeless", 2)
    assert found.goodput_rps == pytest.approx(truth(cliff(20.0), 0.99), rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_a_server_that_is_surely_worse_costs_quick_probes_only_and_is_known_roughly(seed: int) -> None:
    found = find_goodput(question(start=15.0, beat_rps=40.0), server(slope(60.0), seed))
    assert found.ended == "hopeless"
    assert sum(probe.counted for probe in found.probes) < 1000
    assert found.goodput_rps == pytest.approx(truth(slope(60.0), 0.99), rel=0.6)


@pytest.mark.parametrize("seed", range(5))
def test_a_server_that_a_thorough_probe_shows_to_be_worse_is_not_measured_to_the_end(seed: int) -> None:
    found = find_goodput(question(start=15.0, beat_rps=21.0), server(cliff(20.0), seed))
    assert sum(probe.counted >= 2000 for probe in found.probes) <= 2
    assert found.goodput_rps == pytest.approx(truth(cliff(20.0), 0.99), rel=0.15)


def test_an_unlucky_first_probe_does_not_send_the_search_to_the_least_load() -> None:
    usual = server(cliff(20.0))

    def probe(load: Load, counted: int) -> Score:
        first = load == OpenLoop(15.0)
        return (
            a_score(15.0, 0.944, load=load, counted=195, good=184, stopped="bad already")
            if first
            else usual(load, counted)
        )

    found = find_goodput(question(start=15.0, beat_rps=14.0), probe)
    assert min(level_of(one.load) for one in found.probes) > 0.5
    assert found.goodput_rps > 10.0


def test_a_server_that_may_beat_the_incumbent_is_measured_to_the_end() -> None:
    found = find_goodput(question(start=15.0, growth=1.3, beat_rps=15.0), server(cliff(20.0)))
    assert found.ended == "found"
    assert found.goodput_rps == pytest.approx(truth(cliff(20.0), 0.99), rel=0.05)


@pytest.mark.parametrize("curve", [cliff(20.0), slope(30.0), cliff(0.5)])
def test_deciding_levels_count_as_many_requests_as_the_attainment_needs(curve: Curve) -> None:
    found = find_goodput(question(), server(curve))
    assert found.best and found.best.counted >= 2000


@pytest.mark.parametrize("seed", range(20))
def test_the_search_ends_whatever_the_noise(seed: int) -> None:
    random = np.random.default_rng(seed)
    found = find_goodput(question(0.9), server(lambda rate: float(random.random()), seed))
    assert isinstance(found, Answer) and len(found.probes) <= MAX_PROBES


def test_users_are_whole() -> None:
    found = find_goodput(Question(0.9, 100, 1.0, 1.0, quick=100, in_users=True), server(cliff(20.0)))
    assert found.best and level_of(found.best.load).is_integer()
    assert found.goodput_rps == pytest.approx(truth(cliff(20.0), 0.9), rel=0.1)


def test_without_batches_nothing_is_hopeless_unless_it_was_stopped() -> None:
    silent = a_score(1.0, 0.2, batch_attainment=())
    assert attainment_upper(silent) == 1.0
    assert attainment_upper(a_score(1.0, 0.2, batch_attainment=(), stopped="hopeless")) == 0.2
    batches = tuple(0.5 + 0.01 * k for k in range(10))
    # t(0.95, 9) = 1.833, the batches' standard deviation 0.0303.
    assert attainment_upper(a_score(1.0, 0.545, batch_attainment=batches)) == pytest.approx(
        0.545 + 1.833 * 0.00957, 1e-3
    )


def test_an_open_loop_question_is_probed_with_rates() -> None:
    assert all(isinstance(probe.load, OpenLoop) for probe in find_goodput(question(), server(cliff(5.0))).probes)


def test_probes_that_all_held_are_worth_hardly_more_than_the_highest_of_them() -> None:
    probe = server(lambda rate: 1.0)
    found = worth([probe(OpenLoop(rate), 2000) for rate in (5.0, 10.0)], question())
    assert found.edge and found.edge <= 12.0 and found.goodput_rps <= 12.0


@pytest.mark.parametrize("share", [0.93, 0.7], ids=["a few less than asked", "far less than asked"])
@pytest.mark.parametrize(
    "curve", [cliff(20.0), slope(0.19)], ids=["holds up to an edge", "nearly holds at the least load"]
)
def test_a_load_whose_requests_came_slowly_is_not_measured_again_and_again(curve: Curve, share: float) -> None:
    levels: list[float] = []

    def probe(load: Load, counted: int) -> Score:
        levels.append(level_of(load))
        return server(curve)(load, round(share * counted))

    found = find_goodput(question(0.9, 1.0), probe)
    assert max(levels.count(level) for level in levels) <= 3
    assert found.goodput_rps == pytest.approx(truth(curve, 0.9), rel=0.12) or found.ended == "misses-slo"
