"""The simulated server's life: who leaves it, its cache, and how it stops."""

import signal
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.simulated import WITHIN_S, Running, a_body, events_of, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("sim")) as running:
        yield running


def test_a_repeated_prompt_hits_the_prefix_cache_until_that_is_reset(server):
    prompt = list(range(5000, 5160))
    hits, said = [server.metrics()["vllm:prefix_cache_hits_total"]], []
    for _ in range(2):
        assert server.client.post("/reset_prefix_cache").json() == {"success": True}
        for _ in range(2):
            *_, usage, _ = server.events(prompt=prompt)
            said.append(usage["usage"]["prompt_tokens_details"]["cached_tokens"])
            hits.append(server.metrics()["vllm:prefix_cache_hits_total"])
    assert [after - before for before, after in pairwise(hits)] == said == [0, 144, 0, 144]


def test_a_client_that_leaves_frees_its_place(tmp_path):
    with serving(tmp_path) as server:
        with server.client.stream("POST", "/v1/completions", json=a_body(max_tokens=3900)) as response:
            events = events_of(response)
            next(events)
            assert server.metrics()["vllm:num_requests_running"] == 1
            assert server.client.post("/reset_prefix_cache").json() == {"success": False}
        while server.metrics()["vllm:num_requests_running"]:
            pass
        assert server.metrics()["vllm:kv_cache_usage_perc"] == 0


def test_vllm_told_to_stop_ends_its_answers_cleanly_and_early(tmp_path):
    with (
        serving(tmp_path) as server,
        server.client.stream("POST", "/v1/completions", json=a_body(max_tokens=3900)) as response,
    ):
        events = events_of(response)
        next(events)
        server.process.send_signal(signal.SIGTERM)
        *_, last, usage, done = events
        assert last["choices"][0]["finish_reason"] == "abort"
        assert usage["usage"]["completion_tokens"] < 3900
        assert done == "[DONE]"
        assert server.process.wait(WITHIN_S) == 0


def test_sglang_told_to_stop_drains(tmp_path):
    with (
        serving(tmp_path, "sglang") as server,
        server.client.stream("POST", "/v1/completions", json=a_body(max_tokens=40)) as response,
    ):
        events = events_of(response)
        next(events)
        server.process.send_signal(signal.SIGTERM)
        *_, usage, _ = events
        assert usage["usage"]["completion_tokens"] == 40
        assert server.process.wait(WITHIN_S) == 0
