"""What a bench will take is said before it begins, and what nobody could wait for or send is refused."""

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import a_workload, an_slo
from tuner.benchorder import LONGEST_S, MOST_REQUESTS, Bench, beyond_client
from tuner.config.workload import Arrivals, Ramp
from tuner.errors import ConfigError
from tuner.target import ClosedLoop, Load, OpenLoop
from tuner.terminal.benched import heading
from tuner.terminal.benching import forecast

RAMP = Arrivals(kind="closed", ramp=Ramp(every_s=3, users=12))
TRACE = {"prompt": None, "output": None, "trace": "t.csv", "trace_rate_rps": 5.0}


def an_order(arrivals: Arrivals | None = None, workload: dict[str, Any] | None = None, **values: Any) -> Bench:
    chosen = a_workload(**(workload or {}), arrivals=arrivals or Arrivals())
    return Bench(chosen, an_slo(), **values)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        pytest.param(an_order(load=OpenLoop(1e6)), r"--rate 1e\+06: 1,000,000 requests a second are more than",
                     id="a rate that no client sends"),
        pytest.param(an_order(load=ClosedLoop(1_000_000)), r"--users 1000000: 1,000,000 users are more than",
                     id="users that no client has"),
        pytest.param(an_order(load=OpenLoop(0.001), requests=50), r"--rate 0.001: its window would take 15.3 hours",
                     id="for hours, at a rate so low"),
        pytest.param(an_order(load=OpenLoop(0.1)), r"--rate 0.1: its window would take 3.1 hours \(limit 2 h\)",
                     id="for hours, as the SLO asks for so many"),
        pytest.param(an_order(load=OpenLoop(600), requests=2_000_000), "2.7 million requests would have to be made",
                     id="millions of requests"),
        pytest.param(an_order(Arrivals(kind="closed", ramp=Ramp(users=10**6))), "workload 'chat': 1,000,000 users",
                     id="the workload's own"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_message_that_names_the_option(order: Bench, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        order.check()


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(an_order(load=OpenLoop(4.0)), id="what README does"),
        pytest.param(an_order(load=ClosedLoop(1000)), id="many users"),
        pytest.param(an_order(load=OpenLoop(0.1), longest_s=4 * 3600.0), id="hours that are asked for"),
        pytest.param(an_order(RAMP), id="a ramp"),
        pytest.param(an_order(), id="a search"),
    ],
)
def test_what_can_be_is_not_refused(order: Bench) -> None:
    order.check()


def test_users_are_refused_when_their_first_answers_show_how_long_it_would_take() -> None:
    order = an_order(load=ClosedLoop(4), requests=10_000)
    order.check()
    order.check_extent(LONGEST_S, idle_e2e_s=10.0)
    with pytest.raises(ConfigError, match=r"--users 4: its window would take .* or --longest to wait for it"):
        order.check_extent(LONGEST_S + 1, idle_e2e_s=10.0)
    many = replace(order, load=ClosedLoop(1000))
    with pytest.raises(ConfigError, match=f"limit {MOST_REQUESTS / 1e6:g} million"):
        many.check_extent(120.0, idle_e2e_s=0.01)


@pytest.mark.parametrize(
    ("load", "cores", "is_beyond"),
    [
        (OpenLoop(4000), 4, False),
        (OpenLoop(4001), 4, True),
        (ClosedLoop(1024), 1, False),
        (ClosedLoop(1025), 1, True),
    ],
)
def test_how_much_a_machine_can_offer_goes_by_its_cores(load: Load, cores: int, is_beyond: bool) -> None:
    assert (beyond_client(load, cores) is not None) == is_beyond


@pytest.mark.parametrize(
    ("order", "said"),
    [
        pytest.param(an_order(load=OpenLoop(4.0)), "about 1,160 requests at 4.00 req/s, in 4m50s", id="a rate"),
        pytest.param(an_order(load=ClosedLoop(1)), "what 1 user asks in 2m15s to 10m15s", id="a user"),
        pytest.param(an_order(load=ClosedLoop(32)), "what 32 users ask in 2m15s to 10m15s", id="users"),
        pytest.param(an_order(load=ClosedLoop(32), requests=500), "about 500 requests of 32 users", id="of users"),
        pytest.param(an_order(RAMP), "one more user every 3.0s up to 12, in 36s", id="a ramp"),
        pytest.param(
            an_order(),
            "at most 12 probes of up to about 2m15s (longer below 8.33 req/s), of 200 requests or more",
            id="a search",
        ),
        pytest.param(
            an_order(Arrivals(kind="closed")),
            "at most 12 probes of 2m15s to 10m15s, each of what its users ask in that time",
            id="a search of users",
        ),
    ],
)
def test_how_long_it_takes_and_how_many_requests_is_said_before(order: Bench, said: str) -> None:
    assert forecast(order) == f"to come: 12 requests one at a time, then {said}"


def test_requests_that_come_at_once_are_all_there_is() -> None:
    assert forecast(an_order(Arrivals(kind="at_once"))) == "to come: 1,000 requests at once"


@pytest.mark.parametrize(
    ("order", "said"),
    [
        pytest.param(an_order(RAMP, load=OpenLoop(3)), "--rate: requests at random times, in place of a ramp of 12",
                     id="a rate for a ramp"),
        pytest.param(an_order(Arrivals(kind="closed"), load=OpenLoop(3)), "--rate: requests at random times",
                     id="a rate for users"),
        pytest.param(an_order(Arrivals(kind="trace", speed=2), TRACE, load=OpenLoop(3)), "in place of 2 times",
                     id="a rate for a speed"),
        pytest.param(an_order(RAMP, load=ClosedLoop(3)), "--users: so many throughout, in place of a ramp up to 12",
                     id="users for a ramp"),
        pytest.param(an_order(Arrivals(kind="gamma", cv=3), load=ClosedLoop(3)), "in place of gamma arrivals",
                     id="users for bursts"),
        pytest.param(an_order(load=OpenLoop(3)), "", id="a rate for a rate"),
        pytest.param(an_order(Arrivals(kind="closed"), load=ClosedLoop(3)), "", id="users for users"),
        pytest.param(an_order(RAMP), "", id="the workload's own"),
    ],
)  # fmt: skip
def test_the_heading_says_what_of_the_workload_is_replaced(order: Bench, said: str) -> None:
    lines = heading("http://127.0.0.1:8000", "m", order).splitlines()[2:]
    assert len(lines) == bool(said) and all(said in line and len(line) <= 80 for line in lines)
