import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from launchers.engines import ENGINES
from launchers.faults import classify
from tuner.errors import FailureKind

WITHIN_S = 30.0
COMMANDS = {
    "vllm": ("vllm", "serve", "Qwen/Qwen2.5-7B-Instruct", "--max-model-len", "4096"),
    "sglang": ("sglang", "serve", "--model-path", "Qwen/Qwen2.5-7B-Instruct", "--context-length", "4096"),
}


class Running:
    """A simulated server that is ready."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.log = process, log
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN_S, trust_env=False)

    def events(self, path: str = "/v1/completions", **overrides) -> list[dict | str]:
        """What a streamed answer says."""
        with self.client.stream("POST", path, json=a_body(**overrides)) as response:
            assert response.status_code == 200
            return list(events_of(response))

    def metrics(self) -> dict[str, float]:
        lines = self.client.get("/metrics").text.splitlines()
        return {line.split("{")[0]: float(line.split()[-1]) for line in lines if not line.startswith("#")}


def a_body(**overrides) -> dict:
    values = {
        "model": "qwen-7b", "prompt": list(range(100)), "max_tokens": 8, "stream": True,
        "stream_options": {"include_usage": True}, "ignore_eos": True,
    }  # fmt: skip
    return values | overrides


def events_of(response: httpx.Response) -> Iterator[dict | str]:
    for line in response.iter_lines():
        if line:
            text = line.removeprefix("data: ")
            yield text if text == "[DONE]" else json.loads(text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(log: Path, engine: str, *flags: str, port: int = 0, **environment: str) -> subprocess.Popen[bytes]:
    identity = ("--served-model-name", "qwen-7b", "--sim-model", "qwen-7b", "--port", str(port or free_port()))
    with log.open("wb") as file:
        return subprocess.Popen(
            (sys.executable, "-m", "launchers.sim.server", *COMMANDS[engine], *identity, *flags),
            stdout=file,
            stderr=file,
            env={**os.environ, "GOODTUNE_SIM_START_S": "0", **environment},
        )


@contextmanager
def serving(folder: Path, engine: str = "vllm", *flags: str, **environment: str) -> Iterator[Running]:
    port = free_port()
    process = started(folder / "server.log", engine, *flags, port=port, **environment)
    running = Running(process, port, folder / "server.log")
    try:
        while process.poll() is None and not is_healthy(running.client):
            pass
        yield running
    finally:
        running.client.close()
        process.kill()
        process.wait(WITHIN_S)


def is_healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


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
        ({"max_tokens": 4000}, 400, "maximum context length is 4096 tokens"),
    ],
)
def test_what_the_engine_would_refuse_is_refused(server, overrides, status, message):
    answer = server.client.post("/v1/completions", json=a_body(**overrides))
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (status, True)


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


def test_sglang_speaks_its_own_metrics_and_flushes_its_cache(tmp_path):
    with serving(tmp_path, "sglang", "--enable-metrics") as server:
        server.events()
        assert server.metrics()["sglang:generation_tokens_total"] == 8
        assert server.client.post("/flush_cache").status_code == 200
    assert "--enable-metrics" in server.log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "flags, environment, kind",
    [
        pytest.param((), {"GOODTUNE_SIM_FAULT": "oom-at-start"}, FailureKind.OUT_OF_MEMORY, id="ordered"),
        pytest.param((), {"GOODTUNE_SIM_FAULT": "exit-at-start"}, FailureKind.EXITED_AT_START, id="plain exit"),
        pytest.param(("--gpu-memory-utilization", "0.2"), {}, FailureKind.OUT_OF_MEMORY, id="too little memory"),
        pytest.param(("--tensor-parallel-size", "8"), {}, FailureKind.BAD_COMBINATION, id="28 heads on 8 GPUs"),
        pytest.param(("--max-num-batched-tokens", "16"), {}, FailureKind.BAD_COMBINATION, id="budget below batch"),
        pytest.param(("--max-num-seqs", "many"), {}, FailureKind.BAD_FLAG, id="not a number"),
        pytest.param((), {"GOODTUNE_SIM_FAULT": "nonsense"}, FailureKind.EXITED_AT_START, id="unknown fault"),
    ],
)
def test_a_server_that_cannot_start_says_why_as_the_engine_does(tmp_path, flags, environment, kind):
    log = tmp_path / "server.log"
    process = started(log, "vllm", *flags, **environment)
    assert process.wait(WITHIN_S) in (1, 2)
    patterns = ENGINES["vllm"].patterns
    assert classify(process.returncode, log.read_text("utf-8"), patterns, FailureKind.EXITED_AT_START).kind is kind


def test_a_busy_port_is_said_to_be_busy(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        log = tmp_path / "server.log"
        process = started(log, "vllm", port=other.getsockname()[1])
        assert process.wait(WITHIN_S) == 1
    fault = classify(1, log.read_text("utf-8"), ENGINES["vllm"].patterns, FailureKind.EXITED_AT_START)
    assert fault.kind is FailureKind.PORT_IN_USE


def test_a_crash_on_order_breaks_the_stream_and_leaves_the_reason(tmp_path):
    with serving(tmp_path, GOODTUNE_SIM_FAULT="crash-at-step:5") as server:
        with pytest.raises(httpx.RemoteProtocolError):
            server.events(max_tokens=20)
        assert server.process.wait(WITHIN_S) == 1
    assert "illegal memory access" in server.log.read_text(encoding="utf-8")


def test_a_hang_on_order_stops_the_tokens_but_not_the_health(tmp_path):
    with serving(tmp_path, GOODTUNE_SIM_FAULT="hang-at-step:3") as server:
        seen = []
        with (
            pytest.raises(httpx.ReadTimeout),
            server.client.stream("POST", "/v1/completions", json=a_body(), timeout=0.5) as response,
        ):
            seen.extend(events_of(response))
        assert is_healthy(server.client)


def test_a_hang_at_start_is_never_healthy(tmp_path):
    log = tmp_path / "server.log"
    port = free_port()
    process = started(log, "vllm", port=port, GOODTUNE_SIM_FAULT="hang-at-start")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            status = None
            while status is None:
                try:
                    status = client.get("/health").status_code
                except httpx.TransportError:
                    assert process.poll() is None
        assert status == 503
    finally:
        process.kill()
        process.wait(WITHIN_S)


def test_truncation_on_order_halves_every_answer(tmp_path):
    with serving(tmp_path, GOODTUNE_SIM_FAULT="truncate") as server:
        *_, last, usage, _ = server.events(max_tokens=8)
        assert last["choices"][0]["finish_reason"] == "abort"
        assert usage["usage"]["completion_tokens"] == 4
