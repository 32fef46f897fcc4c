"""What engines tell of themselves, read from answers of the shape that vLLM 0.32 and SGLang 0.5.23 give."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from launchers.engines import ENGINES
from launchers.facts import facts_of, read_facts
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec

VLLM: dict[str, Any] = {
    "vllm_config": {
        "model_config": {"enforce_eager": True},
        "cache_config": {
            "gpu_memory_utilization": 0.92,
            "enable_prefix_caching": True,
            "kv_cache_size_tokens": 524288,
        },
        "parallel_config": {"tensor_parallel_size": 1},
        "scheduler_config": {
            **{"max_num_seqs": 128, "max_num_batched_tokens": 2048, "long_prefill_token_threshold": 0},
            **{"enable_chunked_prefill": True, "policy": "fcfs", "async_scheduling": False},
        },
    }
}
SGLANG: dict[str, Any] = {
    **{"version": "0.5.23", "chunked_prefill_size": 4096, "disable_radix_cache": False, "tp_size": 1},
    **{"mem_fraction_static": 0.716, "enable_mixed_chunk": False, "max_total_num_tokens": 131072},
    "internal_states": [{"effective_max_running_requests_per_dp": 4096}],
}


def test_vllm_tells_what_it_took_under_neutral_names() -> None:
    log = "(EngineCore pid=1) INFO 11-21 11:03:12 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: x"
    facts = read_facts(ENGINES["vllm"].facts, VLLM, log)
    assert (facts.version, facts.kv_tokens) == ("0.32.0", 524288)
    assert facts.knobs == {
        **{"max_batch_size": 128, "token_budget": 2048, "tp": 1, "chunked_prefill": "on"},
        **{"long_prefill_token_threshold": "off", "prefix_caching": "on", "gpu_memory_utilization": 0.92},
        **{"schedule_policy": "fcfs", "async_scheduling": "off", "cuda_graphs": "off"},
    }


def test_sglang_tells_what_it_took_under_neutral_names() -> None:
    facts = read_facts(ENGINES["sglang"].facts, SGLANG)
    assert (facts.version, facts.kv_tokens) == ("0.5.23", 131072)
    assert facts.knobs == {
        **{"max_batch_size": 4096, "token_budget": 4096, "tp": 1, "mixed_chunk": "off", "prefix_caching": "on"},
        "gpu_memory_utilization": 0.716,
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_facts_are_about_knobs_of_the_engine(engine: str) -> None:
    assert set(ENGINES[engine].facts.knobs) <= set(load(EngineSpec, engine).knobs)


@pytest.fixture
def url() -> Iterator[str]:
    """A server that tells what vLLM does at one path, and no JSON at another."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.startswith("/server_info") else 404)
            self.end_headers()
            self.wfile.write(json.dumps(VLLM).encode() if self.path.endswith("json") else b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_server_is_asked_where_its_engine_says_and_may_have_no_answer(url: str) -> None:
    told = facts_of(ENGINES["vllm"].facts, url, "")
    assert told is not None and told.kv_tokens == 524288
    assert facts_of(ENGINES["sglang"].facts, url, "") is None, "no JSON"
    assert facts_of(ENGINES["vllm"].facts, f"{url}/elsewhere", "") is None, "404"
    assert facts_of(ENGINES["vllm"].facts, "http://127.0.0.1:1", "") is None, "nobody there"
