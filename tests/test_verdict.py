"""Verdict: the printed rules."""

from dataclasses import replace

import pytest

from tests.builders import a_configuration, a_crash, a_miss, a_score, an_outcome
from tuner.finalvalue import Value
from tuner.outcome import Outcome
from tuner.target import ClosedLoop
from tuner.verdict import decide


def a_value(trial: int, values: list[float], *, holds: bool = True) -> Value:
    return Value(trial, holds, 10.0, 0.992 if holds else 0.9, dict(enumerate(values)))


DEFAULT = a_value(0, [10.0, 10.2, 9.9, 10.1, 9.8])
# Value's level is 10 req/s, or users, of the whole server.
A_BIG_MISS = a_miss(0, a_configuration(is_default=True, tp=4))
USERS_MISS = an_outcome(0, best=a_score(load=ClosedLoop(10)))


@pytest.mark.parametrize(
    ("challenger", "word", "sure", "best"),
    [
        pytest.param([12.0, 12.3, 11.9, 12.1, 11.8], "deploy", "high", 7, id="clearly better on every seed"),
        pytest.param([10.8, 10.2, 10.5, 10.3, 10.4], "deploy", "medium", 7, id="better, but hardly"),
        pytest.param([12.0, 9.0, 13.0, 8.5, 12.0], "inconclusive", "low", 7, id="the interval includes no gain"),
        pytest.param([10.0, 10.2, 9.9, 10.1, 9.8], "keep-default", "high", 0, id="the same"),
        pytest.param([8.0, 8.2, 7.9, 8.1, 7.8], "keep-default", "high", 0, id="worse"),
    ],
)
def test_default_and_challenger_are_compared_by_their_paired_interval(
    challenger: list[float], word: str, sure: str, best: int
) -> None:
    found = decide([an_outcome(0), an_outcome(7)], DEFAULT, a_value(7, challenger))
    assert (found.word, found.how_sure, found.best) == (word, sure, best)
    assert found.gain is not None


@pytest.mark.parametrize(
    ("values", "sure"),
    [
        pytest.param([10.0, 10.5, 9.5, 10.2, 9.8], "high", id="seeds that agree"),
        pytest.param([10.0, 40.0, 5.0, 20.0, 3.0], "medium", id="an interval that reaches below half of the mean"),
    ],
)
def test_where_there_is_no_default_to_beat_the_seeds_have_to_agree(values: list[float], sure: str) -> None:
    default = a_value(0, [0.0] * 5, holds=False)
    assert (
        decide([a_miss(0, a_configuration(is_default=True)), an_outcome(7)], default, a_value(7, values)).how_sure
        == sure
    )


def test_two_seeds_never_make_it_sure() -> None:
    found = decide([], a_value(0, [10.0, 10.1]), a_value(7, [20.0, 20.1]))
    assert found.how_sure != "high"


@pytest.mark.parametrize(
    ("seeds", "word"),
    [
        pytest.param((2, 3), "inconclusive", id="none"),
        pytest.param((1, 2), "inconclusive", id="one, whose interval would be a point"),
        pytest.param((0, 1), "deploy", id="two"),
    ],
)
def test_a_gain_takes_two_seeds_that_saw_both(seeds: tuple[int, int], word: str) -> None:
    default, challenger = a_value(0, [10.0, 10.1]), replace(a_value(7, []), per_seed=dict.fromkeys(seeds, 20.0))
    found = decide([an_outcome(0), an_outcome(7)], default, challenger)
    assert (found.word, found.best, found.gain is not None) == (word, 7, word == "deploy")
    assert word == "deploy" or "of the fresh seeds saw both" in found.why


def test_a_default_that_holds_the_slo_nowhere_leaves_no_gain_to_state() -> None:
    found = decide([a_miss(0), an_outcome(7)], None, a_value(7, [12.0] * 5))
    assert (found.word, found.best, found.gain) == ("deploy", 7, None)
    assert found.how_sure == "medium", "only one seed has seen the default miss"
    assert "the default held the SLO at no load when it was searched" in found.why


def test_a_default_that_fresh_seeds_saw_miss_the_slo_makes_it_sure() -> None:
    missed = a_value(0, [0.0] * 5, holds=False)
    found = decide([a_miss(0), an_outcome(7)], missed, a_value(7, [12.0] * 5))
    assert (found.word, found.how_sure, found.best) == ("deploy", "high", 7)
    assert "missed the SLO on fresh seeds" in found.why


@pytest.mark.parametrize(("challenger", "sure"), [(60.0, "high"), (12.0, "medium")])
def test_a_default_that_missed_by_chance_perhaps_is_not_said_to_have_missed(challenger: float, sure: str) -> None:
    doubtful = replace(a_value(0, [0.0] * 5, holds=False), may_hold=True)
    found = decide([a_miss(0), an_outcome(7)], doubtful, a_value(7, [challenger] * 5))
    assert (found.word, found.how_sure) == ("deploy", sure)
    assert "fresh seeds cannot tell whether the default holds the SLO" in found.why


@pytest.mark.parametrize(
    ("missed", "challenger", "sure", "says"),
    [
        pytest.param(A_BIG_MISS, 6.0, "high", "at 2.5 req/s per GPU, where it did best,", id="far more per GPU"),
        pytest.param(A_BIG_MISS, 4.0, "medium", "this configuration serves 4 req/s per GPU", id="not so far"),
        pytest.param(
            USERS_MISS, 60.0, "medium", "at 10 users per GPU, where it did best,", id="users are no requests/s"
        ),
    ],
)
def test_a_default_that_may_hold_its_lowest_load_is_compared_per_gpu(
    missed: Outcome, challenger: float, sure: str, says: str
) -> None:
    doubtful = replace(a_value(0, [0.0] * 5, holds=False), may_hold=True)
    found = decide([missed, an_outcome(7)], doubtful, a_value(7, [challenger] * 5))
    assert (found.word, found.how_sure) == ("deploy", sure)
    assert says in found.why


@pytest.mark.parametrize(
    ("outcomes", "word", "says"),
    [
        pytest.param([a_crash(0, a_configuration(is_default=True))], "deploy", "does not run here", id="crashed"),
        pytest.param(
            [an_outcome(0, state="failed")], "inconclusive", "could not be measured", id="spoilt by the box"
        ),
        pytest.param([], "inconclusive", "could not be measured", id="never tried"),
    ],
)
def test_a_default_that_was_not_measured_is_not_called_one_that_holds_nothing(
    outcomes: list[Outcome], word: str, says: str
) -> None:
    found = decide([*outcomes, an_outcome(7)], None, a_value(7, [12.0] * 5))
    assert found.word == word and says in found.why


def test_a_challenger_that_does_not_hold_again_is_not_deployed() -> None:
    kept = decide([], DEFAULT, a_value(7, [0.0] * 5, holds=False))
    assert (kept.word, kept.how_sure) == ("keep-default", "medium"), (
        "one rival was refuted, the others not tried again"
    )
    assert decide([], None, a_value(7, [0.0] * 5, holds=False)).word == "inconclusive"


def test_a_default_without_a_rival_is_kept_on_the_word_of_one_run_each() -> None:
    kept = decide([an_outcome(0), a_miss(3)], DEFAULT, None)
    assert (kept.word, kept.how_sure) == ("keep-default", "low")


def test_where_nothing_holds_the_closest_is_named_with_what_breaks() -> None:
    found = decide([a_miss(3)], None, None)
    assert (found.word, found.best) == ("nothing-meets-slo", None)
    assert "t3" in found.why and "TTFT" in found.why
