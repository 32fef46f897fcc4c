"""What the simulated server says of itself at /metrics."""

import signal
from collections.abc import Iterator

import pytest

from tests.simulated import WITHIN_S, Running, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("sim")) as running:
        yield running


def test_it_names_its_model_and_counts_its_work(server):
    before = server.metrics()
    server.events(prompt=list(range(64)), max_tokens=4)
    after = server.metrics()
    assert server.client.get("/v1/models").json()["data"][0]["id"] == "qwen-7b"
    assert after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"] == 4
    assert after["vllm:prompt_tokens_total"] - before["vllm:prompt_tokens_total"] == 64
    assert after["vllm:num_requests_running"] == after["vllm:kv_cache_usage_perc"] == 0


def test_it_says_of_every_step_how_late_it_was(tmp_path):
    with serving(tmp_path) as server:
        server.events(max_tokens=8)
        assert server.metrics()["goodtune:step_lateness_seconds_count"] == 8
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(WITHIN_S) == 0
    assert "INFO 8 steps, behind schedule by" in server.log.read_text(encoding="utf-8")


def test_it_counts_steps_tokens_and_waits_as_the_engine_does(server):
    before = server.metrics()
    server.events(prompt=list(range(9000, 9100)), max_tokens=4)
    risen = {name: value - before[name] for name, value in server.metrics().items()}
    assert risen["vllm:iteration_tokens_total_count"] == 4
    assert risen["vllm:iteration_tokens_total_sum"] == 104
    assert risen["vllm:request_queue_time_seconds_count"] == 1


def test_guesses_and_those_that_were_right_are_counted(tmp_path):
    speculation = '{"method": "ngram", "num_speculative_tokens": 3}'
    with serving(tmp_path, "vllm", "--speculative-config", speculation, "--sim-acceptance", "1.0") as server:
        server.events(max_tokens=9)
        after = server.metrics()
    assert after["vllm:spec_decode_num_draft_tokens_total"] == 6
    assert after["vllm:spec_decode_num_accepted_tokens_total"] == 6


def test_sglang_speaks_its_own_metrics_and_flushes_its_cache(tmp_path):
    with serving(tmp_path, "sglang", "--enable-metrics") as server:
        server.events()
        assert server.metrics()["sglang:generation_tokens_total"] == 8
        assert server.client.post("/flush_cache").status_code == 200
    assert "--enable-metrics" in server.log.read_text(encoding="utf-8")
