"""Scrape: each engine's exposition read under neutral names, and a server that is asked no more than it answers."""

from collections.abc import Callable
from time import perf_counter

import httpx
import pytest

from launchers.engines import ENGINES
from launchers.scrape import PATIENCE, RESTS, Scraper, read
from launchers.sglang import SGLANG
from launchers.sim.faults import Fault
from launchers.sim.metrics import exposition
from launchers.sim.realtime import RealTime
from launchers.sim.settings import MODELLED
from launchers.sim.virtual import virtual_target
from launchers.vllm import VLLM
from tuner.config.catalog import load, load_model
from tuner.config.gpu import Gpu
from tuner.configuration import Configuration

VLLM_SAYS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 70.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.4
# TYPE vllm:prefix_cache_hits counter
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 144.0
# TYPE vllm:prefix_cache_hits_created gauge
vllm:prefix_cache_hits_created{engine="0",model_name="m"} 1.7e+09
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 0.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="m"} 4.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 4.0
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 640.0
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{engine="0",le="0.3",model_name="m"} 2.0
vllm:request_queue_time_seconds_bucket{engine="1",le="0.3",model_name="m"} 1.0
vllm:request_queue_time_seconds_bucket{engine="0",le="+Inf",model_name="m"} 6.0
vllm:request_queue_time_seconds_bucket{engine="1",le="+Inf",model_name="m"} 1.0
"""

SGLANG_SAYS = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m",pp_rank="0",tp_rank="0"} 4.0
# TYPE sglang:token_usage gauge
sglang:token_usage{model_name="m",pp_rank="0",tp_rank="0"} NaN
# TYPE sglang:num_retracted_requests_total counter
sglang:num_retracted_requests_total{model_name="m",pp_rank="0",tp_rank="0"} 2.0
sglang:num_retracted_requests_total{model_name="m",pp_rank="0",tp_rank="1"} 2.0
sglang:num_retracted_requests_total{model_name="m",pp_rank="1",tp_rank="0"} 2.0
# TYPE sglang:realtime_tokens_total counter
sglang:realtime_tokens_total{mode="prefill_compute",model_name="m",pp_rank="0",tp_rank="0"} 100.0
sglang:realtime_tokens_total{mode="prefill_cache",model_name="m",pp_rank="0",tp_rank="0"} 60.0
sglang:realtime_tokens_total{mode="decode",model_name="m",pp_rank="0",tp_rank="0"} 50.0
"""

EFFECTIVE = """\
# TYPE sglang:prefill_effective_tokens_total counter
sglang:prefill_effective_tokens_total{mode="input",tp_rank="0"} 90.0
sglang:prefill_effective_tokens_total{mode="device_hit",tp_rank="0"} 30.0
sglang:prefill_effective_tokens_total{mode="host_hit",tp_rank="0"} 20.0
"""


def test_counts_of_all_copies_add_up_and_shares_are_averaged() -> None:
    found = read(VLLM_SAYS, VLLM.metrics, at_s=1.5)
    assert found.at_s == 1.5
    assert found.values == {
        "running": 8, "waiting": 7, "kv_used_frac": pytest.approx(0.3), "hit_tokens": 144, "steps": 4,
        "step_tokens": 640,
    }  # fmt: skip
    assert found.queue_bounds_s == (0.3, float("inf"))
    assert found.queue_counts == (3, 7)


def test_what_every_rank_of_a_server_counts_is_counted_once() -> None:
    found = read(SGLANG_SAYS, SGLANG.metrics, 0.0)
    assert found.values["preemptions"] == 2
    assert found.values["step_tokens"] == 150


def test_a_count_that_the_engine_does_not_mention_before_it_rises_is_zero() -> None:
    never_retracted = "\n".join(line for line in SGLANG_SAYS.splitlines() if "retracted" not in line)
    assert read(never_retracted, SGLANG.metrics, 0.0).values["preemptions"] == 0
    assert read("some_other_server 1\n", SGLANG.metrics, 0.0).values == {}


def test_a_gauge_that_was_never_set_is_not_a_value() -> None:
    assert "kv_used_frac" not in read(SGLANG_SAYS, SGLANG.metrics, 0.0).values


@pytest.mark.parametrize(("said", "meant"), [("0.0", None), ("0.4", 0.4)])
def test_an_acceptance_of_nothing_is_none_where_nothing_is_guessed(said: str, meant: float | None) -> None:
    text = f"sglang:spec_accept_rate {said}\n"
    assert read(text, SGLANG.metrics, 0.0).values.get("accepted_frac") == meant


@pytest.mark.parametrize(
    ("text", "looked_up", "hit"),
    [
        pytest.param(SGLANG_SAYS, 160, 60, id="an older version"),
        pytest.param(SGLANG_SAYS + EFFECTIVE, 140, 50, id="a version that leaves retracted requests out"),
    ],
)
def test_the_first_name_that_a_version_exports_counts(text: str, looked_up: float, hit: float) -> None:
    values = read(text, SGLANG.metrics, 0.0).values
    assert (values["looked_up_tokens"], values["hit_tokens"]) == (looked_up, hit)


@pytest.mark.parametrize("engine", MODELLED)
def test_a_simulated_server_exports_what_is_read_of_the_real_one(engine: str) -> None:
    target = virtual_target(
        Configuration(engine, {"speculation": "ngram-3"}), load_model("qwen-7b"), load(Gpu, "h100"), 0.6
    )
    text = exposition(engine, "m", [RealTime(target.settings, target.steps, Fault())] * 2)
    metrics = ENGINES[engine].metrics
    assert {*read(text, metrics, 0.0).values, "accepted_frac"} == {*metrics.values, "accepted_frac"}
    assert read(text, metrics, 0.0).queue_counts[-1] == 0


def a_scraper(answer: Callable[[httpx.Request], httpx.Response]) -> tuple[Scraper, list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer(request)

    client = httpx.Client(transport=httpx.MockTransport(reply))
    return Scraper(client, "http://server/metrics", VLLM.metrics), asked


def _refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody there", request=request)


def test_a_server_without_metrics_is_asked_once() -> None:
    scraper, asked = a_scraper(lambda _: httpx.Response(404))
    for _ in range(3):
        scraper.begin()
        scraper.end()
    assert (len(asked), scraper.is_there, scraper.scrapes(0.0)) == (1, False, ())


def test_a_server_that_does_not_answer_is_left_alone_until_the_next_probe() -> None:
    scraper, asked = a_scraper(_refuse)
    scraper.begin()
    for _ in range(10):
        scraper.end()
    assert len(asked) == PATIENCE
    scraper.begin()
    assert len(asked) == PATIENCE + 1


def test_a_server_rests_between_two_looks_for_many_times_of_what_one_took() -> None:
    took_s, ended_s = 0.01, []

    def slowly(request: httpx.Request) -> httpx.Response:
        until_s = perf_counter() + took_s
        while perf_counter() < until_s:
            pass
        ended_s.append(perf_counter())
        return httpx.Response(200, text=VLLM_SAYS)

    scraper, asked = a_scraper(slowly)
    scraper.begin()
    while len(asked) < 2:
        scraper.pass_by()
    assert ended_s[1] - ended_s[0] >= RESTS * took_s
    scraper.end()
    assert len(asked) == 3


def test_each_probe_has_its_own_scrapes_on_its_own_clock() -> None:
    scraper, _ = a_scraper(lambda _: httpx.Response(200, text=VLLM_SAYS))
    scraper.begin()
    scraper.end()
    assert len(scraper.scrapes(0.0)) == 2
    scraper.begin()
    (only,) = scraper.scrapes(began_s=1e9)
    assert only.at_s < 0
    assert only.values["running"] == 8
