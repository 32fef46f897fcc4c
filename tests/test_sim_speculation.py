import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.sim.speculation import chance_of_each, guesses


@pytest.mark.parametrize(
    "acceptance, tokens_a_step",
    [((1.0, 0.0), 2), ((1.0, 1.0, 0.0), 3), ((0.0, 1.0), 1), ((1.0,), 4), ((1.0, 1.0, 1.0, 0.0), 4)],
)
def test_each_guess_of_a_step_has_the_chance_of_its_place(acceptance, tokens_a_step):
    steps = guesses(chance_of_each(3, acceptance), seed=0, wanted=24).tokens
    assert set(np.diff(steps)) == {tokens_a_step}


@given(st.integers(1, 5), st.floats(0, 1), st.integers(0, 99))
def test_one_chance_is_the_chance_of_every_place(drafts, chance, seed):
    one, each = (chance_of_each(drafts, acceptance) for acceptance in (chance, (chance,) * drafts))
    assert guesses(one, seed, 50) == guesses(each, seed, 50)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.integers(0, 99), st.integers(0, 60))
def test_an_answer_gets_the_tokens_it_asked_for(chances, seed, wanted):
    steps = guesses(tuple(chances), seed, wanted).tokens
    assert (steps[0], steps[-1]) == (0, wanted)
    assert all(1 <= gain <= 1 + len(chances) for gain in np.diff(steps))


def test_the_share_of_accepted_guesses_is_the_product_of_the_chances_up_to_their_place():
    gained = np.diff(guesses(chance_of_each(3, (0.8, 0.5, 0.25)), seed=1, wanted=40_000).tokens)
    shares = [np.mean(gained > place) for place in (1, 2, 3)]
    assert shares == pytest.approx([0.8, 0.4, 0.1], abs=0.02)
