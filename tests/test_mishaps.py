"""Mishaps: what a user is told of probes that count although something was not right about them."""

from collections.abc import Iterable
from dataclasses import replace

from tests.builders import a_score
from tests.logs import a_log
from tuner.engineview import Scrape
from tuner.health import Health
from tuner.mishaps import Mishap, mishaps, silence
from tuner.probe import Recorded
from tuner.requestlog import ClientHealth
from tuner.score import Score

CLIENT = ClientHealth(send_lag_p99_s=0.001, run_queue_wait_s=0.2, busy_frac=0.4, workers=2, cpu_frac=0.3)


def a_probe(score: Score | None = None, **of_the_log: object) -> Recorded:
    return Recorded("search", 0, score or a_score(), a_log([(0.0, (0.1,))], **of_the_log), planned_s=10.0, seed=1)


def with_leftovers(frac: float) -> Score:
    return a_score(health=Health(CLIENT, 8, 8, 8, 0.1, 0.1 + frac, frac))


def texts(found: Iterable[Mishap]) -> list[str]:
    return [one.text for one in found]


def test_nothing_is_said_of_probes_that_went_well() -> None:
    assert list(mishaps([a_probe(), a_probe(with_leftovers(0.0))])) == []


def test_failures_are_told_by_kind() -> None:
    probes = [a_probe(errors=("HTTP 400: too long",)), a_probe(errors=("HTTP 400: too long", "reset by peer"))]
    assert texts(mishaps(probes)) == ["some requests failed: HTTP 400: too long; reset by peer"]


def test_a_probe_measured_twice_says_why() -> None:
    voided = a_probe(client=replace(CLIENT, voided="requests left 71 ms late"))
    assert texts(mishaps([a_probe(), voided])) == ["1 of 2 probes measured twice: requests left 71 ms late"]
    assert texts(mishaps([voided])) == ["measured twice: requests left 71 ms late"]


def test_a_client_that_waited_for_a_core_is_told_though_the_probe_counts() -> None:
    """The probes took 10 s, by two workers."""
    late = [a_probe(client=replace(CLIENT, run_queue_wait_s=wait_s)) for wait_s in (0.9, 1.1, 2.4)]
    (said,) = texts(mishaps(late))
    assert said.startswith("in 2 of 3 probes the load generator waited for a core 12% of the time: some of the")
    (of_one,) = texts(mishaps(late[2:]))
    assert of_one.startswith("the load generator waited for a core 12% of the time")
    assert list(mishaps([late[0], a_probe()])) == []


def test_a_cache_that_kept_an_earlier_probes_prompts_is_flagged() -> None:
    (said,) = texts(
        mishaps([a_probe(one) for one in (with_leftovers(0.0), with_leftovers(0.4), with_leftovers(0.2))])
    )
    assert said.startswith("in 2 of 3 probes the prefix cache had up to 40% of the prompt tokens")
    (of_one,) = texts(mishaps([a_probe(with_leftovers(0.4))]))
    assert of_one == (
        "the prefix cache had 40% of the prompt tokens that nothing in the probe had put there: they were left in it "
        "by what was sent before, so it looks too good"
    )


def test_an_engine_that_says_nothing_of_itself_is_told() -> None:
    (said,) = texts(silence("vllm", [a_probe(), a_probe()]))
    assert said.startswith("vllm exports no metrics")
    assert list(silence("vllm", [a_probe(), a_probe(scrapes=(Scrape(0.0, {}),))])) == []
    assert list(silence("vllm", [])) == []
