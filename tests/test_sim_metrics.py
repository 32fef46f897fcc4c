"""What the simulated server says of itself at /metrics."""

import signal
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from launchers.sim.faults import Fault
from launchers.sim.metrics import exposition
from launchers.sim.realtime import RealTime
from tests.simulated import WITHIN_S, Running, serving
from tests.test_sim_properties import EvenSteps
from tests.test_sim_scheduler import small


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


def test_every_phase_of_a_request_is_in_its_histogram_when_it_ends(server):
    before = server.metrics()
    server.events(prompt=list(range(20000, 20100)), max_tokens=4)
    risen = {name: value - before[name] for name, value in server.metrics().items()}
    once = ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
            "request_prefill_time_seconds", "request_decode_time_seconds", "request_inference_time_seconds",
            "request_time_per_output_token_seconds", "request_prompt_tokens",
            "request_generation_tokens")  # fmt: skip
    assert {risen[f"vllm:{name}_count"] for name in once} == {1}
    assert risen["vllm:inter_token_latency_seconds_count"] == 3
    seconds = {name: risen[f"vllm:{name}_seconds_sum"] for name in (
        "e2e_request_latency", "request_queue_time", "request_inference_time", "request_prefill_time",
        "request_decode_time", "time_to_first_token", "inter_token_latency",
    )}  # fmt: skip
    assert seconds["inter_token_latency"] == pytest.approx(seconds["request_decode_time"])
    assert seconds["request_inference_time"] == pytest.approx(
        seconds["request_prefill_time"] + seconds["request_decode_time"]
    )
    assert seconds["e2e_request_latency"] == pytest.approx(
        seconds["request_queue_time"] + seconds["request_inference_time"]
    )
    assert risen['vllm:request_success_total{finished_reason="length"}'] == 1


def test_every_family_has_its_type_and_help_and_every_sample_its_engine_and_model(server):
    answer = server.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation and family.type != "unknown" for family in families)
    labels = {(sample.labels["engine"], sample.labels["model_name"]) for f in families for sample in f.samples}
    assert labels == {("0", "qwen-7b")}


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_large_counts_keep_their_last_digit_and_each_copy_its_own(engine):
    copies = [RealTime(small(policy=engine), EvenSteps(), Fault()) for _ in range(2)]
    for copy, tokens in zip(copies, (12_345_678_901_234, 7), strict=True):
        copy.tally.generated_tokens = tokens
    lines = exposition(engine, "m", copies).splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(f"{engine}:generation_tokens_total{{")] == [
        "12345678901234",
        "7",
    ]


def test_guesses_and_those_that_were_right_are_counted(tmp_path):
    speculation = '{"method": "ngram", "num_speculative_tokens": 3}'
    with serving(tmp_path, "vllm", "--speculative-config", speculation, "--sim-acceptance", "1.0") as server:
        server.events(max_tokens=9)
        after = server.metrics()
    assert after["vllm:spec_decode_num_draft_tokens_total"] == 6
    assert after["vllm:spec_decode_num_accepted_tokens_total"] == 6
    assert after["vllm:spec_decode_num_drafts_total"] == 2
    for place in range(3):
        assert after[f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{position="{place}"}}'] == 2


def test_sglang_speaks_its_own_metrics_and_flushes_its_cache(tmp_path):
    with serving(tmp_path, "sglang", "--enable-metrics") as server:
        server.events()
        assert server.metrics()["sglang:generation_tokens_total"] == 8
        assert server.client.post("/flush_cache").status_code == 200
    assert "--enable-metrics" in server.log.read_text(encoding="utf-8")
