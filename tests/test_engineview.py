"""EngineView: what follows from looks at an engine's metrics, counters being differences and gauges moments."""

from collections.abc import Mapping
from typing import Any

import pytest

from tuner.engineview import EngineView, Scrape, together, view_of

BOUNDS_S = (0.5, 1.0, 2.0, float("inf"))


def a_scrape(at_s: float, counts: tuple[float, ...] = (), **values: float) -> Scrape:
    return Scrape(at_s, values, BOUNDS_S if counts else (), counts)  # type: ignore[arg-type]


def view(*scrapes: Scrape, warmup_s: float = 2.0, end_s: float = 10.0) -> EngineView:
    found = view_of(scrapes, warmup_s, end_s)
    assert found
    return found


def test_without_a_look_there_is_no_view() -> None:
    assert view_of((), 2.0, 10.0) is None


def test_gauges_are_those_of_the_window() -> None:
    moments = [(0.0, 90.0), (2.0, 3.0), (5.0, 5.0), (9.0, 4.0), (11.0, 80.0)]
    found = view(*(a_scrape(at_s, running=n, waiting=n / 10, kv_used_frac=n / 100) for at_s, n in moments))
    assert (found.running, found.waiting, found.kv_peak_frac) == (4.0, 0.4, 0.05)
    assert found.scrapes == 5


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        pytest.param({"preemptions": 2}, {"preemptions": 7}, {"preemptions": 5}, id="a count rises"),
        pytest.param({}, {"preemptions": 7}, {"preemptions": 7}, id="a count that was not there began at 0"),
        pytest.param({"preemptions": 2}, {}, {"preemptions": None}, id="a count that is gone says nothing"),
        pytest.param(
            {"steps": 10, "step_tokens": 100}, {"steps": 14, "step_tokens": 900}, {"step_tokens": 200},
            id="tokens per step",
        ),
        pytest.param(
            {"steps": 10, "step_tokens": 100}, {"steps": 10, "step_tokens": 100}, {"step_tokens": None}, id="no step"
        ),
        pytest.param(
            {"guessed_tokens": 0, "accepted_tokens": 0, "accepted_frac": 0.9},
            {"guessed_tokens": 40, "accepted_tokens": 10, "accepted_frac": 0.9},
            {"accepted_frac": 0.25},
            id="acceptance counted goes before acceptance claimed",
        ),
    ],
)  # fmt: skip
def test_counters_count_from_the_windows_beginning(
    first: dict[str, float], last: dict[str, float], expected: Mapping[str, Any]
) -> None:
    in_warm_up = dict.fromkeys(first, 0.0)
    found = view(a_scrape(-0.1, **in_warm_up), a_scrape(1.9, **first), a_scrape(12.0, **last))
    assert {name: getattr(found, name) for name in expected} == expected


def test_acceptance_is_the_mean_of_what_the_engine_claims_where_it_does_not_count() -> None:
    found = view(a_scrape(0.0, accepted_frac=0.9), a_scrape(3.0, accepted_frac=0.4), a_scrape(4.0, accepted_frac=0.6))
    assert found.accepted_frac == pytest.approx(0.5)


def test_cache_hits_are_those_of_the_whole_probe_for_leftovers_show_at_its_beginning() -> None:
    looks = ((0.0, 100, 80), (2.0, 1100, 880), (12.0, 2100, 880))
    found = view(*(a_scrape(at_s, looked_up_tokens=n, hit_tokens=hit) for at_s, n, hit in looks))
    assert found.cache_hit_frac == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("counts", "p50_s"),
    [
        pytest.param((10, 10, 10, 10), 0.5, id="all in the first bucket: it was under that"),
        pytest.param((0, 10, 10, 10), 0.75, id="all in the second"),
        pytest.param((2, 4, 8, 8), 1.0, id="half below a bound"),
        pytest.param((0, 2, 2, 10), 2.0, id="beyond the last bound only that bound is known"),
        pytest.param((0, 0, 0, 0), None, id="nobody was admitted"),
    ],
)
def test_the_median_wait_is_read_off_the_histograms_rise(counts: tuple[float, ...], p50_s: float | None) -> None:
    before = (5.0, 7.0, 9.0, 11.0)
    after = tuple(count + risen for count, risen in zip(before, counts, strict=True))
    found = view(a_scrape(1.0, before), a_scrape(12.0, after))
    assert found.queue_p50_s == (None if p50_s is None else pytest.approx(p50_s))
    assert found.queue_is_bound == (counts[0] > 5)


def test_one_look_tells_moments_but_no_differences() -> None:
    found = view(a_scrape(5.0, (1, 2, 3, 4), running=3, preemptions=9, steps=3, step_tokens=8))
    assert found == EngineView(scrapes=1, running=3)


def test_copies_are_one_server() -> None:
    one = EngineView(preemptions=1, kv_peak_frac=0.2, step_tokens=100)
    assert together([one]) is one
    both = together([one, EngineView(preemptions=2, kv_peak_frac=0.4, cache_hit_frac=0.5)])
    assert both == EngineView(preemptions=3, kv_peak_frac=pytest.approx(0.3), step_tokens=100, cache_hit_frac=0.5)
