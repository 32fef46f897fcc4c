"""Requests from a workload and a seed: fixed by both, and only ever extended."""

import subprocess
import sys
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.config.catalog import load, names
from tuner.config.workload import Arrivals, Lengths, Workload
from tuner.requests import Requests
from tuner.workload.build import build

WORKLOADS = names(Workload)


def _workload(name: str) -> Workload:
    return load(Workload, name)


def _lists(requests: Requests, rows: int) -> dict[str, Any]:
    """The first `rows` of every field of `requests` that has rows, as what compares with `==`."""
    values = {field.name: getattr(requests, field.name) for field in fields(Requests)}
    return {
        name: value[:rows].tolist() if isinstance(value, np.ndarray) else value[:rows]
        for name, value in values.items()
        if name not in {"seed", "unit_gaps", "ends_naturally"} and value is not None
    }


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_seed_says_everything(name: str) -> None:
    workload = _workload(name)
    one, same, other = build(workload, 3, 40), build(workload, 3, 40), build(workload, 4, 40)
    assert _lists(one, 40) == _lists(same, 40)
    assert np.array_equal(one.unit_gaps, same.unit_gaps)
    assert one.segments != other.segments


@pytest.mark.parametrize("name", WORKLOADS)
@settings(deadline=None)
@given(seed=st.integers(0, 2**32), few=st.integers(0, 30), more=st.integers(0, 30))
def test_asking_for_more_keeps_the_beginning(name: str, seed: int, few: int, more: int) -> None:
    short, long = build(_workload(name), seed, few), build(_workload(name), seed, few + more)
    assert len(short) == few
    assert len(long) == few + more
    assert _lists(short, few) == _lists(long, few)
    assert np.array_equal(short.unit_gaps, long.unit_gaps[: short.sessions])


@pytest.mark.parametrize("name", WORKLOADS)
def test_requests_are_what_they_promise_to_be(name: str) -> None:
    workload = _workload(name)
    requests = build(workload, 1, 200)
    assert [sum(segment.tokens for segment in prompt) for prompt in requests.segments] == list(requests.prompt_tokens)
    assert all(segment.tokens > 0 for prompt in requests.segments for segment in prompt)
    assert requests.output_tokens.min() >= 1
    assert requests.session[0] == 0
    assert set(np.diff(requests.session)) <= {0, 1}
    assert requests.sessions == requests.session[-1] + 1
    assert not requests.think_s[np.flatnonzero(np.diff(requests.session, prepend=-1))].any()


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name not in {"rag", "agent"}])
def test_prompts_that_share_nothing_are_all_different(name: str) -> None:
    prompts = build(_workload(name), 0, 500).segments
    assert len({segment.seed for prompt in prompts for segment in prompt}) == 500


def test_lengths_do_not_change_when_arrivals_do() -> None:
    poisson = build(_workload("chat"), 5, 100)
    bursty = build(_workload("chat").model_copy(update={"arrivals": Arrivals(kind="gamma", cv=4)}), 5, 100)
    assert np.array_equal(poisson.prompt_tokens, bursty.prompt_tokens)
    assert np.array_equal(poisson.output_tokens, bursty.output_tokens)
    assert poisson.segments == bursty.segments
    assert not np.array_equal(poisson.unit_gaps, bursty.unit_gaps)


def test_prompts_do_not_change_when_answers_do() -> None:
    short = build(_workload("chat").model_copy(update={"output": Lengths(fixed=1)}), 5, 100)
    long = build(_workload("chat"), 5, 100)
    assert short.segments == long.segments
    assert np.array_equal(short.unit_gaps, long.unit_gaps)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_fitted_workload_never_exceeds_the_context(name: str) -> None:
    requests = build(_workload(name).fitted(9000), 0, 300)
    assert (requests.prompt_tokens + requests.output_tokens).max() <= 9000


def test_building_needs_no_heavy_library() -> None:
    code = (
        "import sys; from tuner.config.catalog import load; from tuner.config.workload import Workload; "
        "from tuner.workload.build import build; from tuner.workload.named import load_workload; "
        "build(load(Workload, 'chat'), 0, 10); "
        "print(sorted({'pandas', 'optuna', 'pyarrow', 'scipy'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("context", [32768, 9000])
def test_the_rate_of_sessions_of_several_turns_counts_all_their_turns(context):
    workload = _workload("agent").model_copy(update={"arrivals": Arrivals(kind="poisson")}).fitted(context)
    requests = build(workload, 0, 20_000)
    assert len(requests) / requests.unit_gaps.sum() == pytest.approx(1.0, rel=0.1)
