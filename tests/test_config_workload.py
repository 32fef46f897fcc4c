"""Workloads as data: lengths, arrivals, sharing, and whether they fit a model."""

from typing import Any

import pytest

from tuner.config.strict import parse
from tuner.config.workload import ONLY_TEXTS_END, Workload
from tuner.errors import ConfigError

PLAIN: dict[str, Any] = {"title": "x", "source": "y", "prompt": {"fixed": 100}, "output": {"p50": 5, "p90": 9}}
TRACE: dict[str, Any] = {"title": "x", "source": "y", "trace": "t.csv"}
ONE_SHAPE = "prompt: give either p50 and p90, or mean and sd, or fixed"


@pytest.mark.parametrize(
    "content, message",
    [
        pytest.param({**PLAIN, "prompt": {"p50": 1}}, ONE_SHAPE, id="half a lognormal"),
        pytest.param({**PLAIN, "prompt": {"p50": 1, "p90": 2, "mean": 1}}, ONE_SHAPE, id="a stray key"),
        pytest.param({**PLAIN, "prompt": {"fixed": 1, "mean": 1, "sd": 1}}, ONE_SHAPE, id="two shapes"),
        pytest.param({**PLAIN, "prompt": {"p50": 2, "p90": 1}}, "prompt: p90 (1) is below p50 (2)", id="upside down"),
        pytest.param({**PLAIN, "prompt": {"p50": 1, "p90": 2, "min": 9, "cap": 8}}, "prompt: cap (8) is below min",
                     id="cap below min"),
        pytest.param({**PLAIN, "prompt": {"fixed": 9, "cap": 8}}, "prompt: cap (8) is below fixed", id="cap too low"),
        pytest.param({**PLAIN, "output": None}, "give prompt and output lengths, or a trace", id="no output"),
        pytest.param({**TRACE, "prompt": {"fixed": 9}}, "a trace has its own lengths and turns: leave out prompt, "
                     "output and turns", id="lengths beside a trace"),
        pytest.param({**TRACE, "answer_ends": "soon"}, "answer_ends: should be 'planned' or 'natural', found 'soon'",
                     id="an unknown end"),
        pytest.param({**PLAIN, "answer_ends": "natural"}, f"answer_ends: {ONLY_TEXTS_END}", id="no text to end"),
        pytest.param({**PLAIN, "arrivals": {"kind": "trace"}}, "arrivals of kind trace need a trace", id="no trace"),
        pytest.param({**PLAIN, "arrivals": {"kind": "gamma"}}, "arrivals: gamma arrivals need cv, and only they have "
                     "one", id="no cv"),
        pytest.param({**PLAIN, "arrivals": {"cv": 2}}, "arrivals: gamma arrivals need cv, and only they have one",
                     id="cv without gamma"),
        pytest.param({**PLAIN, "arrivals": {"ramp": {"users": 9}}}, "arrivals: only closed arrivals have a ramp: it "
                     "is one of users", id="a ramp of a rate"),
        pytest.param({**PLAIN, "arrivals": {"speed": 2}}, "arrivals: only arrivals of kind trace have a speed",
                     id="speed without a trace"),
        pytest.param({**PLAIN, "shared": {"documents": 3}}, "shared: documents, document_tokens and "
                     "documents_per_request go together", id="documents without sizes"),
        pytest.param({**PLAIN, "acceptance": {"ngram": 1.1}}, "acceptance.ngram: give a chance from 0 to 1, or a "
                     "list of one for each guess, found 1.1", id="impossible acceptance"),
        pytest.param({**PLAIN, "acceptance": {"draft": [0.8, -1]}}, "acceptance.draft: give a chance from 0 to 1, or "
                     "a list of one for each guess, found [0.8, -1]", id="impossible second guess"),
        pytest.param({**PLAIN, "acceptance": {"draft": []}}, "acceptance.draft: give a chance from 0 to 1, or a list "
                     "of one for each guess, found []", id="no chances"),
    ],
)  # fmt: skip
def test_a_workload_that_cannot_be_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        parse(Workload, content, "w")
    assert str(mistake.value) == f"w: {message}"


@pytest.mark.parametrize("own, context, limit", [(None, 4096, 4096), (2048, 4096, 2048), (8192, 4096, 4096)])
def test_fitting_a_model_takes_the_smaller_limit(own: int | None, context: int, limit: int) -> None:
    workload = parse(Workload, {**PLAIN, "max_model_len": own}, "w")
    assert workload.fitted(context).max_model_len == limit


def test_a_workload_of_which_nothing_fits_the_model_is_refused() -> None:
    workload = parse(Workload, {**PLAIN, "name": "long", "shared": {"system_tokens": 8000}}, "w")
    with pytest.raises(ConfigError) as mistake:
        workload.fitted(8096)
    assert str(mistake.value) == "workload 'long': a request has at least 8,101 tokens, the model takes 8,096"


@pytest.mark.parametrize("choice, chances", [("draft-3", (0.8, 0.5)), ("ngram-2", 0.25), ("off", (0.8, 0.5))])
def test_acceptance_is_one_chance_or_one_for_each_guess(choice: str, chances: float | tuple[float, ...]) -> None:
    workload = parse(Workload, {**PLAIN, "acceptance": {"draft": [0.8, 0.5]}}, "w")
    assert workload.acceptance.of(choice) == chances
