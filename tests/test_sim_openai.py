"""The simulated server's answers over HTTP, and what it refuses."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.simulated import Running, a_body, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("sim")) as running:
        yield running


def test_a_completion_streams_every_token_then_its_usage(server):
    for wanted in (8, 1):
        *tokens, usage, done = server.events(max_tokens=wanted)
        assert [event["choices"][0]["text"] for event in tokens] == [" a"] * wanted
        assert [event["choices"][0]["finish_reason"] for event in tokens] == [None] * (wanted - 1) + ["length"]
        assert usage["choices"] == []
        counts = {key: value for key, value in usage["usage"].items() if key != "prompt_tokens_details"}
        assert counts == {"prompt_tokens": 100, "completion_tokens": wanted, "total_tokens": 100 + wanted}
        assert done == "[DONE]"


def test_a_chat_begins_with_its_role(server):
    messages = [{"role": "user", "content": "x" * 400}]
    role, *tokens, usage, _ = server.events("/v1/chat/completions", messages=messages)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {event["object"] for event in (role, *tokens, usage)} == {"chat.completion.chunk"}
    assert role["id"].startswith("chatcmpl-")
    assert "".join(event["choices"][0]["delta"]["content"] for event in tokens) == " a" * 8
    assert usage["usage"]["prompt_tokens"] == 100


def test_a_stream_interval_sends_the_first_token_then_lumps_and_what_is_left(tmp_path):
    with serving(tmp_path, "vllm", "--stream-interval", "3") as server:
        *tokens, usage, _ = server.events(max_tokens=9)
    assert [event["choices"][0]["text"] for event in tokens] == [" a", " a a a", " a a a", " a a"]
    assert usage["usage"]["completion_tokens"] == 9


def test_an_answer_can_come_in_one_piece(server):
    answer = server.client.post("/v1/completions", json=a_body(stream=False, max_tokens=3)).json()
    assert answer["choices"] == [{"index": 0, "text": " a a a", "logprobs": None, "finish_reason": "length"}]
    assert answer["usage"]["completion_tokens"] == 3


def test_a_chat_in_one_piece_is_a_message(server):
    asked = {"messages": [{"role": "user", "content": "x"}], "stream": False, "max_tokens": 2}
    answer = server.client.post("/v1/chat/completions", json=a_body(**asked)).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": " a a"}


@pytest.mark.parametrize("prompt, tokens", [("x" * 41, 11), (["x" * 41], 11), ([1, 2, 3], 3), ([[1, 2, 3]], 3)])
def test_a_prompt_is_text_or_token_ids_alone_or_as_a_list_of_one(server, prompt, tokens):
    *_, usage, _ = server.events(prompt=prompt, max_tokens=1)
    assert usage["usage"]["prompt_tokens"] == tokens


def test_many_answers_at_once_each_get_their_own_tokens(server):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: server.events(max_tokens=n), range(1, 33)))
    for wanted, (*_, usage, done) in enumerate(answers, start=1):
        assert (usage["usage"]["completion_tokens"], done) == (wanted, "[DONE]")


@pytest.mark.parametrize(
    "overrides, status, message",
    [
        ({"model": "other"}, 404, "does not exist"),
        ({"prompt": []}, 400, "prompt must be"),
        ({"prompt": ["one", "two"]}, 400, "one prompt at a time"),
        ({"n": 2}, 400, "one answer at a time"),
        ({"max_tokens": 0}, 400, "max_tokens must be at least 1"),
        ({"max_tokens": True}, 400, "Expected `int | null`, got `bool` - at `$.max_tokens`"),
        ({"prompt": [3, -1]}, 400, "Expected `int` >= 0 - at `$.prompt[1]`"),
        ({"prompt": [3, "a"]}, 400, "prompt must be"),
        ({"stream_options": "yes"}, 400, "got `str` - at `$.stream_options`"),
        ({"stream": "yes"}, 400, "got `str` - at `$.stream`"),
        ({"max_tokens": 4000}, 400, "maximum context length is 4096 tokens"),
    ],
)
def test_what_the_engine_would_refuse_is_refused(server, overrides, status, message):
    answer = server.client.post("/v1/completions", json=a_body(**overrides))
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (status, True)


@pytest.mark.parametrize(
    "body, message", [(b"{", "not JSON"), (b"[]", "got `array`"), (b'{"messages": "hello"}', "at `$.messages`")]
)
def test_a_body_that_is_no_request_is_refused_with_the_place_that_is_wrong(server, body, message):
    answer = server.client.post("/v1/chat/completions", content=body)
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (400, True)
