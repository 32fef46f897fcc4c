import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.load.prompts import Bodies, drawn_ids, questions, token_ids
from tuner.requests import Message, Requests, Segment


def requests_of(*prompts: tuple[Segment, ...], output_tokens: int = 7) -> Requests:
    n = len(prompts)
    return Requests(
        seed=0,
        prompt_tokens=np.array([sum(segment.tokens for segment in prompt) for prompt in prompts]),
        output_tokens=np.full(n, output_tokens),
        session=np.arange(n),
        unit_gaps=np.ones(n),
        think_s=np.zeros(n),
        segments=prompts,
    )


@given(st.integers(8, 20_000), st.lists(st.builds(Segment, st.integers(0, 99), st.integers(1, 50)), min_size=1))
def test_a_body_holds_the_ids_of_its_segments_and_as_many_as_asked_for(vocab, segments):
    body = json.loads(Bodies("m", vocab, requests_of(tuple(segments)), [0]).body(0))
    assert body["prompt"] == [int(one) for segment in segments for one in token_ids(segment, vocab)]
    assert len(body["prompt"]) == sum(segment.tokens for segment in segments)


def test_a_body_asks_for_an_exact_number_of_tokens_and_for_proof_of_each():
    body = json.loads(Bodies('a "model"', 100, requests_of((Segment(1, 2),), output_tokens=5), [0]).body(0))
    del body["prompt"]
    assert body == {
        "model": 'a "model"',
        "max_tokens": 5,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }


@pytest.mark.parametrize("ends_naturally", [False, True])
def test_a_chat_is_asked_to_go_on_behind_its_own_end_only_where_its_length_is_planned(ends_naturally):
    chats = ((Message("user", "Why?"),),)
    requests = replace(requests_of((Segment(1, 2),)), chats=chats, ends_naturally=ends_naturally)
    asked = questions("m", 100, requests, [0])
    body = json.loads(asked.body(0))
    assert asked.path == "/v1/chat/completions"
    assert ("ignore_eos" in body, body["max_tokens"]) == (not ends_naturally, 7)
    assert requests.answer_lengths(0) == range(1 if ends_naturally else 7, 8)


def test_equal_segments_are_equal_text_and_others_are_not():
    bodies = Bodies("m", 50_000, requests_of((Segment(1, 9), Segment(2, 9)), (Segment(1, 9), Segment(3, 9))), [0, 1])
    one, other = (json.loads(bodies.body(row))["prompt"] for row in (0, 1))
    assert one[:9] == other[:9]
    assert one[9:] != other[9:]


@pytest.mark.parametrize(
    "vocab, low, high",
    [
        pytest.param(151_936, 1000, 150_936, id="special tokens at the end"),
        pytest.param(4096, 512, 3584, id="a tiny vocabulary"),
    ],
)
def test_special_tokens_are_never_drawn(vocab, low, high):
    assert drawn_ids(vocab) == (low, high)
    ids = token_ids(Segment(0, 10_000), vocab)
    assert low <= ids.min() and ids.max() < high
