"""A replay: what is sent, what is timed, and what becomes of each request."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.fakes import openai_server as fake
from tests.replays import CLOCK_ERROR_S, OUTPUT_TOKENS, PLAIN, a_window, journal, requests_for, run
from tuner.health import health_of
from tuner.latencies import latencies
from tuner.requestlog import RequestLog, Status
from tuner.requests import Message
from tuner.target import ClosedLoop
from tuner.workload.chats import chat_segments

TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def lonely(fake_server: str) -> tuple[RequestLog, list[dict[str, Any]]]:
    """A probe of six requests, one after the other, and what the server saw of it."""
    journal(fake_server)
    log = run(fake_server, requests_for(*[PLAIN] * 6), ClosedLoop(1))
    return log, journal(fake_server)["entries"]


def test_every_request_is_sent_as_it_was_made_and_every_token_is_timed(lonely):
    log, entries = lonely
    assert [len(entry["body"]["prompt"]) for entry in entries] == [PLAIN] * 6
    assert (log.status == Status.OK).all()
    assert log.counted.all()
    assert log.output_tokens.tolist() == [OUTPUT_TOKENS] * 6
    assert np.diff(log.chunk_start).tolist() == [OUTPUT_TOKENS] * 6
    assert log.errors == ()
    assert log.client is not None and log.client.workers == 1
    assert log.cached_tokens is not None and log.cached_tokens.tolist() == [fake.CACHED_TOKENS] * 6


def test_times_are_those_of_the_server_on_one_clock(lonely):
    log, entries = lonely
    written_s = np.concatenate([entry["token_s"] for entry in entries])
    came_s = np.array([entry["came_s"] for entry in entries])
    origin_s = np.median(written_s - log.chunk_s)
    assert np.abs(log.chunk_s + origin_s - written_s).max() < CLOCK_ERROR_S
    assert np.abs(log.sent_s + origin_s - came_s).max() < CLOCK_ERROR_S
    assert (log.due_s <= log.sent_s).all()
    assert (log.sent_s < log.first_s).all()
    assert (log.last_s <= log.ended_at_s).all()
    assert (log.first_s - log.sent_s >= fake.FIRST_TOKEN_S).all()
    assert np.median(np.diff(log.chunk_s[: log.chunk_start[1]])) >= fake.TOKEN_GAP_S / 2


def test_prompts_that_begin_alike_are_known_to_be_reusable(fake_server):
    requests = requests_for(*[PLAIN] * 4)
    alike = (requests.segments[0],) * 2 + requests.segments[2:]
    log = run(fake_server, replace(requests, segments=alike), ClosedLoop(1))
    assert log.reusable_tokens is not None and log.reusable_tokens.tolist() == [0, PLAIN, 0, 0]


def test_real_text_goes_through_chat_completions_and_is_counted_by_the_server(fake_server):
    journal(fake_server)
    chats = (
        (Message("user", "Why?"),),
        (Message("system", "Be brief."), Message("user", "Wie heißt du?")),
        (Message("system", "Be brief."), Message("user", "And now?")),
    )
    segments = chat_segments(chats)
    estimated = tuple(sum(segment.tokens for segment in prompt) for prompt in segments)
    log = run(fake_server, replace(requests_for(*estimated), segments=segments, chats=chats), ClosedLoop(1))
    bodies = [entry["body"] for entry in journal(fake_server)["entries"]]
    assert [body["messages"] for body in bodies] == [
        [{"role": turn.role, "content": turn.content} for turn in chat] for chat in chats
    ]
    assert all(body["max_tokens"] == OUTPUT_TOKENS and body["ignore_eos"] for body in bodies)
    assert not any("return_token_ids" in body for body in bodies), "SGLang refuses it in a streamed chat"
    assert (log.status == Status.OK).all()
    assert np.diff(log.chunk_start).tolist() == [OUTPUT_TOKENS] * 3
    assert log.prompt_tokens.tolist() == [fake.CHAT_TOKENS, 2 * fake.CHAT_TOKENS, 2 * fake.CHAT_TOKENS]
    # Of 6 estimated tokens the third prompt shares 3, which is half of what the server counts.
    assert estimated == (1, 7, 5)
    assert log.reusable_tokens is not None and log.reusable_tokens.tolist() == [0, 0, 36]


@pytest.mark.parametrize(
    ("ends_naturally", "status"),
    [
        pytest.param(True, Status.OK, id="natural"),
        pytest.param(False, Status.TRUNCATED, id="planned"),
    ],
)
def test_an_answer_that_ends_by_itself_is_whole_only_where_it_may(fake_server, ends_naturally, status):
    journal(fake_server)
    chats = ((Message("user", "Why?"),), (Message("user", fake.CURT),))
    requests = replace(requests_for(1, 3), segments=chat_segments(chats), chats=chats, ends_naturally=ends_naturally)
    log = run(fake_server, requests, ClosedLoop(1))
    assert ["ignore_eos" in entry["body"] for entry in journal(fake_server)["entries"]] == [not ends_naturally] * 2
    assert log.status.tolist() == [Status.OK, status]
    assert log.wanted_tokens.tolist() == [OUTPUT_TOKENS] * 2
    assert log.output_tokens.tolist() == [OUTPUT_TOKENS, fake.CURT_TOKENS]
    # The token that ended it had no text, but a time.
    assert np.diff(log.chunk_start).tolist() == [OUTPUT_TOKENS, fake.CURT_TOKENS]
    tpot_s = latencies(log, ClosedLoop(1)).tpot_s[1]
    assert tpot_s == pytest.approx((log.last_s[1] - log.first_s[1]) / (fake.CURT_TOKENS - 1))
    health = health_of(log)
    assert health and (health.wanted_tokens, health.received_tokens) == (2 * OUTPUT_TOKENS, OUTPUT_TOKENS + 3)


@pytest.fixture(scope="module")
def mixed(fake_server: str) -> Callable[[int], tuple[Status, int]]:
    """One probe of everything a server can do wrong: what became of the request with this prompt length."""
    lengths = [length for length, do in fake.BEHAVIOURS.items() if do not in (fake.crowd, fake.death)]
    log = run(fake_server, requests_for(*lengths, fake.HTTP_500), ClosedLoop(20), a_window(timeout_s=TIMEOUT_S))
    found = {
        int(log.prompt_tokens[row]): (Status(log.status[row]), int(log.chunk_start[row + 1] - log.chunk_start[row]))
        for row in range(len(log))
    }
    assert set(log.errors) > {"HTTP 500: out of luck", "the engine has died"}
    return found.__getitem__


@pytest.mark.parametrize(
    "prompt_tokens, status, chunks",
    [
        pytest.param(PLAIN, Status.OK, OUTPUT_TOKENS, id="a good answer"),
        pytest.param(fake.prompt_tokens(fake.clean_abort), Status.TRUNCATED, 2, id="a clean abort"),
        pytest.param(fake.prompt_tokens(fake.early_stop), Status.TRUNCATED, 2, id="stopped early"),
        pytest.param(fake.prompt_tokens(fake.no_done), Status.TRUNCATED, OUTPUT_TOKENS, id="no [DONE]"),
        pytest.param(fake.prompt_tokens(fake.cut_off), Status.FAILED, 2, id="connection cut"),
        pytest.param(fake.prompt_tokens(fake.no_text), Status.EMPTY, 0, id="200 without text"),
        pytest.param(fake.prompt_tokens(fake.no_chunk), Status.EMPTY, 0, id="200 without a chunk"),
        pytest.param(fake.prompt_tokens(fake.error_event), Status.FAILED, 1, id="error in the stream"),
        pytest.param(fake.prompt_tokens(fake.silence), Status.TIMED_OUT, 0, id="no answer in time"),
        pytest.param(fake.HTTP_500, Status.FAILED, 0, id="HTTP 500"),
        pytest.param(fake.prompt_tokens(fake.byte_by_byte), Status.OK, OUTPUT_TOKENS, id="one byte at a time"),
        pytest.param(fake.prompt_tokens(fake.all_in_one_write), Status.OK, OUTPUT_TOKENS, id="all in one write"),
    ],
)
def test_each_way_to_end_is_told_apart(mixed, prompt_tokens, status, chunks):
    assert mixed(prompt_tokens) == (status, chunks)


def test_events_of_one_write_share_a_time_stamp(fake_server):
    log = run(fake_server, requests_for(fake.prompt_tokens(fake.all_in_one_write)), ClosedLoop(1))
    assert len(np.unique(log.chunk_s)) < OUTPUT_TOKENS


def test_a_server_that_never_says_what_it_had_cached_leaves_that_unknown(fake_server):
    log = run(fake_server, requests_for(fake.prompt_tokens(fake.byte_by_byte)), ClosedLoop(1))
    assert log.cached_tokens is None


def test_a_refused_connection_is_a_result_not_an_exception():
    log = run("http://127.0.0.1:1", requests_for(PLAIN, PLAIN), ClosedLoop(2))
    assert log.status.tolist() == [Status.FAILED, Status.FAILED]
    assert np.isnan(log.first_s).all()
    assert "127.0.0.1:1" in log.errors[0]
