"""The search of users: whole numbers, each measured thoroughly twice at most."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.builders import a_score, a_workload, an_slo
from tuner.config.workload import Arrivals
from tuner.curve import fit
from tuner.goodput import MAX_PROBES, Answer, Question, find_goodput, level_of
from tuner.score import Score
from tuner.target import ClosedLoop, Load
from tuner.trial import question_of
from tuner.users import candidates

TURN_S = 13.0


def question(attainment: float = 0.9) -> Question:
    closed = a_workload(arrivals=Arrivals(kind="closed"))
    return question_of(an_slo(attainment=attainment), closed, 1)


class Server:
    """One that holds the SLO for fewer users than its edge; each turn takes 13 s. Windows are as a prober makes them.

    `thorough` are the numbers of users of long windows.
    """

    def __init__(self, edge: float, power: float, attainment: float, seed: int) -> None:
        self.edge, self.power, self.allowed = edge, power, (1 - attainment) / attainment
        self.random = np.random.default_rng(seed)
        self.asked = question(attainment)
        self.thorough: list[int] = []

    def attainment(self, users: float) -> float:
        return float(1 / (1 + self.allowed * (users / self.edge) ** self.power))

    def probe(self, load: Load, counted: int) -> Score:
        users, asked = level_of(load), self.asked
        rate_rps = users / TURN_S
        longest_s = min(max(asked.whole_s, asked.deciding / rate_rps), asked.longest_s)
        window_s = min(max(asked.whole_s, 1.1 * counted / rate_rps), longest_s)
        came = round(rate_rps * window_s)
        good = int(self.random.binomial(came, self.attainment(users)))
        if counted:
            self.thorough.append(round(users))
        return a_score(users, load=load, counted=came, good=good, attainment=good / came,
                       goodput_rps=good / window_s, request_rps=came / window_s, batch_attainment=())  # fmt: skip


def searched(edge: float, power: float, attainment: float, seed: int) -> tuple[Server, Answer]:
    server = Server(edge, power, attainment, seed)
    return server, find_goodput(server.asked, server.probe)


@pytest.mark.parametrize(("attainment", "most"), [(0.9, 11), (0.99, 12)])
@pytest.mark.parametrize("power", [5.0, 40.0], ids=["slope", "cliff"])
@pytest.mark.parametrize("best", [1, 2, 3, 5, 20, 200])
def test_the_best_number_of_users_is_found_with_no_more_probes_than_it_takes(
    best: int, power: float, attainment: float, most: int
) -> None:
    for seed in range(5):
        server, found = searched(best + 0.5, power, attainment, seed)
        assert found.ended == "found" and found.edge and found.edge.is_integer()
        assert abs(found.edge - best) <= max(0.1 * best, best > 1 and attainment > 0.9)
        good_rps = found.edge / TURN_S * server.attainment(found.edge)
        assert found.goodput_rps == pytest.approx(good_rps, rel=0.08)
        assert max(Counter(server.thorough).values()) <= 2
        assert len(found.probes) <= (most if best < 200 else MAX_PROBES)


@pytest.mark.parametrize("best", [1, 2, 3, 5])
def test_it_ends_when_the_best_number_and_the_next_are_known(best: int) -> None:
    for seed in range(5):
        server, found = searched(best + 0.5, 40.0, 0.9, seed)
        assert found.edge == best
        assert {best, best + 1} <= set(server.thorough)
        assert found.best and found.best.load == ClosedLoop(best), "the probe that stands for it held"


def test_a_server_that_one_user_is_too_much_for_is_given_up_when_that_is_sure() -> None:
    for seed in range(5):
        server, found = searched(0.5, 5.0, 0.9, seed)
        assert (found.ended, found.goodput_rps) == ("misses-slo", 0.0)
        assert Counter(server.thorough)[1] in {1, 2} and len(found.probes) <= 5


def test_windows_that_turn_out_short_do_not_make_it_go_on_and_on() -> None:
    """A server that brings far fewer requests than its earlier probes promised."""
    server = Server(4.5, 5.0, 0.9, seed=1)

    def slow(load: Load, counted: int) -> Score:
        found = server.probe(load, counted)
        return replace(found, counted=10, good=round(10 * found.attainment), request_rps=10 / 120)

    found = find_goodput(server.asked, slow)
    assert max(Counter(level_of(one.load) for one in found.probes).values()) <= 3


def test_a_recommended_number_of_users_is_whole_and_holds() -> None:
    server = Server(2.9, 5.0, 0.9, seed=0)
    probes = [
        a_score(users, load=ClosedLoop(users), counted=50_000, attainment=server.attainment(users))
        for users in (1, 2, 3, 4)
    ]
    assert candidates(fit(probes, 0.9), 2.9, 0.9).tolist() == [2.0]
    assert candidates(fit(probes, 0.5), 2.9, 0.5).tolist() == [2.0, 3.0]
