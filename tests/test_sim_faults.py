"""Simulated servers that do not start, crash, hang or break off."""

import socket
import subprocess

import httpx
import pytest

from launchers.engines import ENGINES
from launchers.faults import classify
from launchers.sim.faults import VARIABLE, Fault, ordered
from tests.simulated import WITHIN_S, a_body, events_of, free_port, is_healthy, serving, started
from tuner.errors import ConfigError, FailureKind


@pytest.mark.parametrize(
    "flags, environment, kind",
    [
        pytest.param((), {"GOODTUNE_SIM_FAULT": "oom-at-start"}, FailureKind.WEIGHTS_OUT_OF_MEMORY, id="weights"),
        pytest.param((), {"GOODTUNE_SIM_FAULT": "oom-at-graphs"}, FailureKind.GRAPHS_OUT_OF_MEMORY, id="graphs"),
        pytest.param((), {"GOODTUNE_SIM_FAULT": "exit-at-start"}, FailureKind.EXITED_AT_START, id="plain exit"),
        pytest.param(("--gpu-memory-utilization", "0.2"), {}, FailureKind.KV_OUT_OF_MEMORY, id="too little memory"),
        pytest.param(("--tensor-parallel-size", "8"), {}, FailureKind.BAD_COMBINATION, id="28 heads on 8 GPUs"),
        pytest.param(("--max-num-batched-tokens", "16"), {}, FailureKind.BAD_COMBINATION, id="budget below batch"),
        pytest.param(("--max-num-seqs", "many"), {}, FailureKind.BAD_FLAG, id="not a number"),
        pytest.param((), {"GOODTUNE_SIM_FAULT": "nonsense"}, FailureKind.EXITED_AT_START, id="unknown fault"),
        pytest.param((), {"GOODTUNE_SIM_FAULT": "slow-start:1s"}, FailureKind.EXITED_AT_START, id="no number"),
    ],
)
def test_a_server_that_cannot_start_says_why_as_the_engine_does(tmp_path, flags, environment, kind):
    log = tmp_path / "server.log"
    process = started(log, "vllm", *flags, **environment)
    assert process.wait(WITHIN_S) in (1, 2)
    patterns = ENGINES["vllm"].symptoms
    assert classify(process.returncode, log.read_text("utf-8"), patterns, FailureKind.EXITED_AT_START).kind is kind


def test_a_busy_port_is_said_to_be_busy(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        log = tmp_path / "server.log"
        process = started(log, "vllm", port=other.getsockname()[1])
        assert process.wait(WITHIN_S) == 1
    fault = classify(1, log.read_text("utf-8"), ENGINES["vllm"].symptoms, FailureKind.EXITED_AT_START)
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


def health_of(client: httpx.Client, process: subprocess.Popen[bytes]) -> int | None:
    """What a living server says of its health; None while it does not listen yet."""
    assert process.poll() is None
    try:
        return client.get("/health").status_code
    except httpx.TransportError:
        return None


def test_a_hang_at_start_is_never_healthy(tmp_path):
    log = tmp_path / "server.log"
    port = free_port()
    process = started(log, "vllm", port=port, GOODTUNE_SIM_FAULT="hang-at-start")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            said = {health_of(client, process)}
            while said == {None}:
                said = {health_of(client, process)}
            # Whoever waits for another page is not told either that it is ready; a test may see what it does.
            assert [client.get(path).status_code for path in ("/v1/models", "/ping", "/metrics")] == [503, 503, 200]
        assert said == {503}
    finally:
        process.kill()
        process.wait(WITHIN_S)


def test_truncation_on_order_halves_every_answer(tmp_path):
    with serving(tmp_path, GOODTUNE_SIM_FAULT="truncate") as server:
        *_, last, usage, _ = server.events(max_tokens=8)
        assert last["choices"][0]["finish_reason"] == "abort"
        assert usage["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("streams", [True, False])
def test_a_cut_on_order_breaks_the_connection_of_every_answer_and_the_server_lives(tmp_path, streams):
    with serving(tmp_path, GOODTUNE_SIM_FAULT="cut") as server:
        for _ in range(2):
            seen: list[object] = []
            with (
                pytest.raises(httpx.RemoteProtocolError),
                server.client.stream(
                    "POST", "/v1/completions", json=a_body(max_tokens=9, stream=streams)
                ) as response,
            ):
                seen.extend(events_of(response))
            assert len(seen) == (4 if streams else 0)
        assert is_healthy(server.client)
        assert server.metrics()["vllm:num_requests_running"] == 0
    assert "Traceback" not in server.log.read_text(encoding="utf-8")


def test_a_slow_start_listens_at_once_and_is_healthy_later(tmp_path):
    port = free_port()
    process = started(tmp_path / "server.log", "vllm", port=port, GOODTUNE_SIM_FAULT="slow-start:0.5")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            said = {health_of(client, process)}
            while 200 not in said:
                said.add(health_of(client, process))
        assert said - {None} == {503, 200}
    finally:
        process.kill()
        process.wait(WITHIN_S)


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", Fault()),
        ("cut", Fault("cut")),
        ("slow-start:2.5", Fault("slow-start", 2.5)),
        ("crash-at-step:7", Fault("crash-at-step", 7)),
    ],
)
def test_a_fault_is_ordered_by_one_variable(text, fault):
    assert ordered({VARIABLE: text}) == fault


@pytest.mark.parametrize(
    "text", ["nonsense", "cut:1", "crash-at-step", "crash-at-step:1.5", "slow-start:-1", "slow-start:nan"]
)
def test_what_is_no_fault_is_refused_with_all_there_are(text):
    with pytest.raises(ConfigError, match="hang-at-step:STEP"):
        ordered({VARIABLE: text})
