"""What is told and kept of a bench's finished probe, besides its score."""

import numpy as np
import pytest

from tests.builders import a_score
from tests.logs import a_log
from tuner.engineview import EngineView, Scrape
from tuner.finished import Finished, caveats, finished, most_open, watch_lines
from tuner.latencies import percentiles
from tuner.mishaps import Mishap
from tuner.probe import ProbeStage, Recorded
from tuner.requestlog import ClientHealth, RequestLog, Status

ANSWERED = [(0.0, (0.1, 0.2, 0.9)), (0.5, (0.6, 0.7)), (2.0, (2.1, 2.5))]


def a_probe(log: RequestLog, stage: ProbeStage = "search") -> Recorded:
    return Recorded(stage, 0, a_score(), log, planned_s=10.0, seed=1)


def texts(log: RequestLog, stage: ProbeStage = "search") -> list[str]:
    return [caveat.text for caveat in caveats(a_probe(log, stage))]


def looks(*counts: tuple[float, int, int]) -> tuple[Scrape, ...]:
    """At so many seconds so many requests running and waiting."""
    return tuple(Scrape(at_s, {"running": running, "waiting": waiting}) for at_s, running, waiting in counts)


def test_what_a_limit_on_gaps_judges_are_the_long_gaps_of_each_healthy_answer() -> None:
    log = a_log(ANSWERED, status=np.array([Status.OK, Status.OK, Status.FAILED]))
    assert finished(a_probe(log)).own_itl_s == percentiles(np.array([0.7, 0.1]))
    assert finished(a_probe(a_log([(0.0, (0.1,))]))).own_itl_s is None


def test_requests_that_are_under_way_together_are_counted() -> None:
    assert most_open(a_log(ANSWERED)) == 2
    never = a_log(ANSWERED, ended_at_s=np.array([np.nan, 0.7, 2.5]), sent_s=np.array([0.0, 0.5, np.nan]))
    assert most_open(never) == 2


@pytest.mark.parametrize(
    ("scrapes", "said"),
    [
        pytest.param(looks((-0.1, 0, 0), (0.5, 1, 0), (1.0, 0, 0)), "", id="nobody else"),
        pytest.param(looks((-0.1, 6, 2), (0.5, 3, 0)), "8 other requests before ours began", id="before"),
        pytest.param(looks((-0.1, 0, 0), (0.5, 1, 0), (0.7, 2, 0)), "1 other request beside ours", id="beside"),
    ],
)
def test_requests_of_others_are_noticed_before_ours_begin_and_beside_one_at_a_time(
    scrapes: tuple[Scrape, ...], said: str
) -> None:
    told = [text for text in texts(a_log(ANSWERED, scrapes=scrapes), "idle") if "other request" in text]
    assert (said in told[0] and "somebody else uses the server" in told[0]) if said else not told


@pytest.mark.parametrize(
    ("running", "waiting", "is_told"),
    [
        pytest.param(2.0, 1.0, False, id="about as many as ours"),
        pytest.param(20.0, 3.0, True, id="clearly more"),
        pytest.param(None, None, False, id="it does not say"),
    ],
)
def test_at_a_load_more_requests_than_were_ever_ours_together_are_of_somebody_else(
    running: float | None, waiting: float | None, is_told: bool
) -> None:
    told = texts(a_log(ANSWERED, engine=EngineView(3, running=running, waiting=waiting)))
    assert [
        text.startswith("the server had 23 requests at a time, of which at most 2 were ours") for text in told
    ] == ([True] if is_told else [])


def test_what_the_client_did_and_what_failed_is_told() -> None:
    client = ClientHealth(0.001, run_queue_wait_s=2.0, busy_frac=0.5, workers=1, voided="requests left late")
    log = a_log(ANSWERED, client=client, errors=("a", "b", "c", "d"))
    errors, twice, waited = texts(log)
    assert twice == "measured twice: requests left late"
    assert waited.startswith("the load generator waited for a core 20% of the time")
    assert errors == "some requests failed: a; b; c"


def test_that_a_server_exports_no_metrics_is_told_once_of_the_first_probe() -> None:
    assert texts(a_log(ANSWERED)) == []
    (silent,) = texts(a_log(ANSWERED), "idle")
    assert silent.startswith("the server exports no metrics")


def test_each_concern_is_summarised_once_with_how_many_probes_it_is_of() -> None:
    first, last = Mishap("waited", "it waited 7%"), Mishap("waited", "it waited 14%")
    silent = Mishap("silent", "no metrics")
    probes = [Finished("search", a_score(), caveats=one) for one in ((silent,), (first,), (), (last,))]
    assert watch_lines(probes) == ("no metrics", "in 2 of 4 probes: it waited 14%")
    assert watch_lines([]) == ()
