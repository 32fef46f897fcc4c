import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.load.answer import Answer, judge
from tuner.load.wire import Ended, Ending
from tuner.requestlog import Status

WANTED = 3
PLANNED, NATURAL = range(WANTED, WANTED + 1), range(1, WANTED + 1)


def a_chunk(text: str = "x", **overrides: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": None} | overrides]}


def a_delta(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def a_delta_end(finish_reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": finish_reason}]}


def an_end(finish_reason: str = "length", usage: int | None = WANTED) -> list[Any]:
    record = [] if usage is None else [{"choices": [], "usage": {"completion_tokens": usage}}]
    return [a_chunk("", finish_reason=finish_reason, token_ids=[]), *record, "[DONE]"]


def as_sse(*events: Any) -> bytes:
    texts = [event if isinstance(event, str) else json.dumps(event, ensure_ascii=False) for event in events]
    return b"".join(f"data: {text}\n\n".encode() for text in texts)


def an_answer(*events: Any) -> Answer:
    """An answer whose event i came at i seconds."""
    answer = Answer()
    for at_s, event in enumerate(events):
        answer.read(float(at_s), as_sse(event))
    return answer


def an_ended(how: Ending = Ending.BODY_ENDED, http_status: int = 200, reason: str = "") -> Ended:
    return Ended(row=0, at_s=9.0, how=how, http_status=http_status, reason=reason)


TOKENS = [a_chunk()] * WANTED


@pytest.mark.parametrize(
    "events, status, text",
    [
        pytest.param([*TOKENS, *an_end()], Status.OK, "", id="all tokens, length"),
        pytest.param([*TOKENS, *an_end("stop")], Status.OK, "", id="all tokens, stop"),
        pytest.param([a_chunk("xyz"), *an_end()], Status.OK, "", id="all tokens in one chunk"),
        pytest.param(
            [*TOKENS[:2], *an_end("abort", 2)],
            Status.TRUNCATED,
            "finish_reason 'abort' with a wrong number of tokens",
            id="a clean abort",
        ),
        pytest.param(
            [*TOKENS, *an_end("abort")], Status.TRUNCATED, "finish_reason 'abort'", id="abort, yet all tokens"
        ),
        pytest.param(
            [*TOKENS[:2], *an_end("stop", 2)],
            Status.TRUNCATED,
            "finish_reason 'stop' with a wrong number of tokens",
            id="fewer tokens than wanted",
        ),
        pytest.param([*TOKENS, *an_end()[:-1]], Status.TRUNCATED, "the stream ended without [DONE]", id="no [DONE]"),
        pytest.param(
            [*TOKENS, *an_end(usage=None)],
            Status.TRUNCATED,
            "the stream ended without a usage record",
            id="no usage",
        ),
        pytest.param([*an_end(usage=0)], Status.EMPTY, "an answer without a token", id="no chunk"),
        pytest.param([a_chunk("")] * WANTED + an_end(), Status.EMPTY, "an answer without a token", id="no text"),
        pytest.param(
            [a_delta(role="assistant"), *an_end()], Status.EMPTY, "an answer without a token", id="a role only"
        ),
        pytest.param(
            [*TOKENS, {"error": {"message": "engine died"}}, "[DONE]"],
            Status.FAILED,
            "engine died",
            id="an error event",
        ),
        pytest.param(
            [*TOKENS, "{oops", *an_end()],
            Status.FAILED,
            "a chunk is not JSON: b'{oops'",
            id="a chunk that is not JSON",
        ),
        pytest.param(
            [*TOKENS, {"choices": "none"}, *an_end()],
            Status.FAILED,
            "a chunk is not a completion: Expected `array | null`, got `str` - at `$.choices`",
            id="a chunk of another shape",
        ),
    ],
)
def test_an_answer_is_ok_only_if_it_ended_well_with_every_token(events, status, text):
    assert judge(an_answer(*events), an_ended(), PLANNED) == (status, text)


@pytest.mark.parametrize(
    "events, status, text",
    [
        pytest.param([*TOKENS[:2], *an_end("stop", 2)], Status.OK, "", id="at its own end"),
        pytest.param(
            [*TOKENS[:2], *an_end("length", 2)],
            Status.TRUNCATED,
            "finish_reason 'length' with a wrong number of tokens",
            id="cut by the server at a limit of its own",
        ),
        pytest.param([*TOKENS, *an_end()], Status.OK, "", id="with every token"),
        pytest.param([a_delta(content="x"), a_delta_end(), *an_end("stop", 2)[1:]], Status.OK, "", id="of a chat"),
        pytest.param(
            [*TOKENS, a_chunk(), *an_end("stop", 4)],
            Status.TRUNCATED,
            "finish_reason 'stop' with a wrong number of tokens",
            id="more tokens than wanted",
        ),
        pytest.param(
            [*TOKENS[:2], *an_end("abort", 2)], Status.TRUNCATED, "finish_reason 'abort'", id="told to stop"
        ),
        pytest.param(
            [*TOKENS[:2], *an_end("stop", None)],
            Status.TRUNCATED,
            "the stream ended without a usage record",
            id="no usage",
        ),
        pytest.param(
            [*TOKENS[:2], *an_end("stop", 2)[:-1]],
            Status.TRUNCATED,
            "the stream ended without [DONE]",
            id="no [DONE]",
        ),
        pytest.param([*an_end("stop", 0)], Status.EMPTY, "an answer without a token", id="no token"),
        pytest.param(
            [a_delta_end(), *an_end("stop", 1)[1:]],
            Status.EMPTY,
            "an answer without a token",
            id="nothing but its end",
        ),
    ],
)
def test_an_answer_that_may_end_naturally_is_ok_with_any_tokens_up_to_those_wanted(events, status, text):
    assert judge(an_answer(*events), an_ended(), NATURAL) == (status, text)


@pytest.mark.parametrize(
    "body, ended, status, text",
    [
        pytest.param(
            b'{"error": {"message": "no"}}', an_ended(http_status=400), Status.FAILED, "HTTP 400: no", id="400"
        ),
        pytest.param(b"gone\n", an_ended(http_status=503), Status.FAILED, "HTTP 503: gone", id="plain text"),
        pytest.param(b"", an_ended(http_status=500), Status.FAILED, "HTTP 500", id="no body"),
        pytest.param(b'{"detail": "?"}', an_ended(http_status=422), Status.FAILED, "HTTP 422: ?", id="detail"),
        pytest.param(b"", an_ended(Ending.BROKE, 0, "refused"), Status.FAILED, "refused", id="no connection"),
        pytest.param(b"", an_ended(Ending.TIMED_OUT, 200), Status.TIMED_OUT, "", id="timed out"),
        pytest.param(b"", an_ended(Ending.CANCELLED, 200), Status.UNFOLLOWED, "", id="cancelled by us"),
        pytest.param(b"", None, Status.UNFOLLOWED, "", id="still running"),
        pytest.param(
            as_sse(*TOKENS, *an_end()),
            an_ended(Ending.BROKE, 200, "reset"),
            Status.OK,
            "",
            id="complete, then broken",
        ),
        pytest.param(
            as_sse(*TOKENS), an_ended(Ending.BROKE, 200, "reset"), Status.FAILED, "reset", id="broken in the middle"
        ),
    ],
)
def test_what_the_connection_did_decides_where_the_answer_is_not_complete(body, ended, status, text):
    answer = Answer()
    answer.read(0.0, body)
    assert judge(answer, ended, PLANNED) == (status, text)


@pytest.mark.parametrize(
    "events, token_s",
    [
        pytest.param([a_chunk(), a_chunk(), *an_end(usage=2)], [0, 1], id="text is a token"),
        pytest.param([a_chunk(token_ids=[5]), a_chunk("", token_ids=[6])], [0, 1], id="token ids without text"),
        pytest.param([a_chunk("", token_ids=[]), a_chunk(token_ids=[5])], [1], id="neither text nor token ids"),
        pytest.param([a_chunk(""), a_chunk(), a_chunk(), *an_end(usage=3)], [0, 1, 2], id="empty, usage has it"),
        pytest.param([a_chunk(""), a_chunk(), a_chunk(), *an_end(usage=2)], [1, 2], id="empty, usage has it not"),
        pytest.param(
            [a_chunk(), a_chunk(""), a_chunk(""), *an_end(usage=2)], [0, 1], id="the earlier empty one first"
        ),
        pytest.param([a_chunk(""), a_chunk("")], [], id="empty and no usage yet"),
        pytest.param(
            [a_delta(role="assistant"), a_delta(content=""), a_delta(content="x")], [2], id="chat: role, empty"
        ),
        pytest.param([a_delta(reasoning_content="x"), a_delta(reasoning="x")], [0, 1], id="reasoning is tokens"),
        pytest.param([a_chunk(), {"choices": [], "usage": {"completion_tokens": 1}}], [0], id="usage is no token"),
        pytest.param([a_delta(content="x"), a_delta_end(), *an_end(usage=2)[1:]], [0, 1], id="its end is a token"),
        pytest.param([a_delta(content="x"), a_delta_end(), *an_end(usage=1)[1:]], [0], id="its end is not counted"),
        pytest.param([a_delta(content="x"), a_delta_end("length"), *an_end(usage=2)[1:]], [0], id="a limit is none"),
    ],
)
def test_only_chunks_that_bear_tokens_have_times(events, token_s):
    assert an_answer(*events).token_s().tolist() == token_s


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        pytest.param({"completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 64}}, 64, id="said"),
        pytest.param({"completion_tokens": 3, "prompt_tokens_details": None}, None, id="nothing to say"),
        pytest.param({"completion_tokens": 3}, None, id="not known to the server"),
    ],
)
def test_prompt_tokens_that_the_server_had_cached_are_kept_where_it_says_so(usage, cached):
    answer = an_answer(a_chunk(), {"choices": [], "usage": usage})
    assert (answer.usage, answer.cached) == (3, cached)


def test_events_of_one_read_share_its_time():
    answer = Answer()
    answer.read(0.5, as_sse(a_chunk(), a_chunk()))
    answer.read(0.7, as_sse(a_chunk()))
    assert answer.token_s().tolist() == [0.5, 0.5, 0.7]


def test_comments_and_windows_line_ends_are_understood():
    answer = Answer()
    answer.read(0.0, b": keep-alive\r\n\r\n" + as_sse(*TOKENS, *an_end()).replace(b"\n", b"\r\n"))
    assert judge(answer, an_ended(), PLANNED) == (Status.OK, "")


@given(st.lists(st.integers(1, 30), min_size=1))
def test_however_the_bytes_are_split_an_answer_reads_the_same(sizes):
    data = as_sse(a_chunk("é"), a_chunk("🙂\n"), a_chunk("data: [DONE]"), *an_end())
    answer, at, reads = Answer(), 0, 0
    while at < len(data):
        size = sizes[reads % len(sizes)]
        answer.read(float(at), data[at : at + size])
        at, reads = at + size, reads + 1
    assert judge(answer, an_ended(), PLANNED) == (Status.OK, "")
    assert len(answer.token_s()) == WANTED
