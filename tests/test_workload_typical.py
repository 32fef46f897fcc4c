"""The draw that a search's window is made of holds what its load promises, and is random otherwise."""

import numpy as np
import pytest

from tuner.config.catalog import load
from tuner.config.workload import Workload
from tuner.workload.build import build, draw
from tuner.workload.typical import typical_seed

RATE_RPS, UNTIL_S = 10.0, 60.0
SEEDS = range(100, 132)


def chat() -> Workload:
    return load(Workload, "chat")


def off(seed: int) -> float:
    """How far requests, prompt tokens or output tokens in the window are from what is to be expected, at most."""
    drawn, many = draw(chat(), seed, 2000), draw(chat(), 1, 200_000)
    due = np.cumsum(drawn.unit_gaps) < RATE_RPS * UNTIL_S
    came = np.array([due.sum(), drawn.prompt_tokens[due].sum(), drawn.output_tokens[due].sum()])
    per_request = np.array([1.0, many.prompt_tokens.mean(), many.output_tokens.mean()])
    return float(np.max(np.abs(came / (RATE_RPS * UNTIL_S * per_request) - 1)))


def _tokens_due(workload: Workload, seed: int, kind: str) -> int:
    drawn = draw(workload, seed, 2000)
    tokens = drawn.prompt_tokens if kind == "prompt" else drawn.output_tokens
    return int(tokens[np.cumsum(drawn.unit_gaps) < RATE_RPS * UNTIL_S].sum())


def test_a_typical_window_holds_the_requests_and_tokens_that_its_load_promises() -> None:
    chosen = [typical_seed(chat(), range(k, k + 32), RATE_RPS, UNTIL_S) for k in (0, 100, 200)]
    assert max(off(seed) for seed in chosen) < 0.04
    assert np.median([off(seed) for seed in SEEDS]) > 0.045, "as windows come they are off by more"


@pytest.mark.parametrize("spreads", ["prompt", "output"])
def test_tokens_of_either_kind_count(spreads: str) -> None:
    """Where only one of the two lengths spreads, so that requests alone would say little of the tokens."""
    lengths = {"prompt": {"fixed": 100}, "output": {"fixed": 100}, spreads: {"p50": 100, "p90": 1500, "cap": 8000}}
    workload = Workload(title="uneven", **lengths)
    many = draw(workload, 1, 200_000)
    expected = RATE_RPS * UNTIL_S * (many.prompt_tokens if spreads == "prompt" else many.output_tokens).mean()
    chosen = [typical_seed(workload, range(k, k + 32), RATE_RPS, UNTIL_S) for k in range(0, 320, 32)]
    usual, typical = (
        np.median([abs(_tokens_due(workload, seed, spreads) / expected - 1) for seed in seeds])
        for seeds in (range(320), chosen)
    )
    assert typical < usual / 2


def test_its_arrivals_are_as_bursty_as_any() -> None:
    """Of a Poisson process the number of arrivals in each second varies as much as it is."""
    seeds = [typical_seed(chat(), range(k, k + 32), RATE_RPS, UNTIL_S) for k in range(0, 320, 32)]
    in_a_second = [
        np.bincount((np.cumsum(draw(chat(), seed, 500).unit_gaps) / RATE_RPS).astype(int)) for seed in seeds
    ]
    counts = np.concatenate([counts[:45] for counts in in_a_second])
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.2)


def test_the_same_load_has_the_same_draw_whoever_serves_it() -> None:
    assert typical_seed(chat(), SEEDS, RATE_RPS, UNTIL_S) == typical_seed(chat(), SEEDS, RATE_RPS, UNTIL_S)


def test_what_is_weighed_is_what_is_sent() -> None:
    drawn, built = draw(chat(), 7, 50), build(chat(), 7, 50)
    assert drawn.output_tokens.tolist() == built.output_tokens.tolist()
    assert drawn.unit_gaps.tolist() == built.unit_gaps.tolist()


@pytest.mark.parametrize("name", ["agent"])
def test_sessions_are_taken_as_they_come(name: str) -> None:
    assert typical_seed(load(Workload, name), SEEDS, RATE_RPS, UNTIL_S) == SEEDS[0]
