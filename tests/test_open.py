import json
import os
import re
import socket
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from launchers.engines import ENGINES
from launchers.open import SIMULATED_SERVER, open_target
from launchers.ports import reserved_port
from launchers.served import Serving, open_served
from launchers.sim.faults import VARIABLE
from launchers.sim.settings import MODELLED
from tests.builders import a_gpu, a_plan, an_slo
from tests.fakes import openai_server as fake
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.plan import Box, Plan
from tuner.config.slo import Limits
from tuner.configuration import Configuration
from tuner.errors import EngineMissing, FailureKind, MeasurementVoid, ServerFailed
from tuner.load.replay import more_workers
from tuner.requestlog import RequestLog, Status
from tuner.requests import Requests, Segment
from tuner.score import score
from tuner.target import ClosedLoop, Window

FAKE_ENGINE = Path(__file__).parent / "fakes" / "fake_engine.py"
DEFAULT = Configuration("vllm", {"max_batch_size": 1024}, is_default=True)
PLAINLY_ANSWERED_TOKENS = 10
SILENTLY_ANSWERED_TOKENS = fake.prompt_tokens(fake.silence)


@pytest.fixture
def vllm(tmp_path, monkeypatch) -> Path:
    """A fake vLLM on PATH. Returns where it writes what it was started with."""
    executable = tmp_path / "bin" / "vllm"
    executable.parent.mkdir()
    executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE_ENGINE}" "$@"\n')
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    journal = tmp_path / "journal.json"
    monkeypatch.setenv("PATH", f"{executable.parent}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_ENGINE_JOURNAL", str(journal))
    for variable in ("GOODTUNE_VLLM", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    return journal


def a_real_plan(*, is_cpu: bool = False, **overrides: Any) -> Plan:
    # So wide a limit tolerates a late client, which a busy machine makes.
    values = {"slo": an_slo(limits=Limits(ttft_s=60.0)), "box": Box(a_gpu(is_cpu=is_cpu), (0, 1, 2, 3), None)}
    return a_plan(**(values | overrides))


def some_requests(n: int) -> Requests:
    return Requests(
        seed=0,
        prompt_tokens=np.full(n, PLAINLY_ANSWERED_TOKENS),
        output_tokens=np.full(n, 5),
        session=np.arange(n),
        unit_gaps=np.ones(n),
        think_s=np.zeros(n),
        segments=tuple((Segment(i, PLAINLY_ANSWERED_TOKENS),) for i in range(n)),
    )


def test_a_real_engine_is_started_with_the_deployable_command_and_an_address_of_this_machine(vllm, tmp_path):
    with open_target(a_real_plan(extra_flags=("--seed", "1")), DEFAULT, (2, 3), tmp_path / "trial") as target:
        assert target.clock_s() > 0
    started = json.loads(vllm.read_text())
    model = "Qwen/Qwen2.5-7B-Instruct"
    *words, host_flag, host, port_flag, _port, name_flag, name = started["argv"]
    assert words == ["serve", model, "--seed", "1", *ENGINES["vllm"].measuring_flags]
    assert [host_flag, host, port_flag, name_flag, name] == [
        "--host",
        "127.0.0.1",
        "--port",
        "--served-model-name",
        "qwen-7b",
    ]
    assert started["env"]["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert started["env"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert started["env"]["VLLM_NO_USAGE_STATS"] == "1"
    assert (tmp_path / "trial" / "server.log").exists()


def test_a_box_without_gpus_gets_a_cpus_environment_but_what_the_user_has_set_stays(vllm, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with open_target(a_real_plan(is_cpu=True), DEFAULT, (0,), tmp_path):
        pass
    started = json.loads(vllm.read_text())
    assert "--enforce-eager" in started["argv"]
    assert started["env"]["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert started["env"]["OMP_NUM_THREADS"] == "7"
    assert "CUDA_VISIBLE_DEVICES" not in started["env"]


def test_what_an_engine_has_compiled_or_downloaded_is_there_for_the_next_trial(vllm, tmp_path, monkeypatch):
    caches = {"HOME": "/home/somebody", "XDG_CACHE_HOME": "/cache", "TMPDIR": str(tmp_path), "HF_HOME": "/models"}
    caches |= {"VLLM_CACHE_ROOT": "/cache/vllm", "TORCHINDUCTOR_CACHE_DIR": "/cache/inductor"}
    for name, folder in caches.items():
        monkeypatch.setenv(name, folder)
    for trial in ("first", "second"):
        with open_target(a_real_plan(), DEFAULT, (0,), tmp_path / trial):
            pass
        started = json.loads(vllm.read_text())["env"]
        assert {name: started[name] for name in caches} == caches


def test_a_target_replays_requests_and_its_clock_goes_on(vllm, tmp_path):
    with open_target(a_real_plan(), DEFAULT, (0,), tmp_path) as target:
        ready_s = target.clock_s()
        log = target.replay(some_requests(60), ClosedLoop(2), Window(0.0, 0.3, 5.0), lambda _log: None)
        assert target.clock_s() > ready_s + 0.3
    assert log.counted.any()
    assert (log.status[log.counted] == Status.OK).all()


def test_a_probe_knows_what_the_engine_says_of_itself(vllm, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_ENGINE_METRICS", "1")
    with open_target(a_real_plan(), DEFAULT, (0,), tmp_path) as target:
        for _ in range(2):
            log = target.replay(some_requests(60), ClosedLoop(2), Window(0.0, 0.3, 5.0), lambda _log: None)
            first, last = log.scrapes[0], log.scrapes[-1]
            assert first.at_s < 0 and last.at_s > 0.3
            assert log.engine is not None
            assert log.engine.scrapes == len(log.scrapes)
            # The second look is the last one before the window begins.
            assert log.engine.running is None or log.engine.running == 2
            assert log.engine.preemptions and log.engine.preemptions > 0
            assert last.values["preemptions"] - first.values["preemptions"] == len(log.scrapes) - 1


def test_a_server_without_metrics_is_asked_for_them_once(vllm, tmp_path):
    with open_target(a_real_plan(), DEFAULT, (0,), tmp_path) as target:
        for _ in range(2):
            log = target.replay(some_requests(60), ClosedLoop(2), Window(0.0, 0.3, 5.0), lambda _log: None)
            assert log.engine is None and log.scrapes == ()
        assert httpx.get(f"{target.endpoint.base_url}/looks", timeout=30).text == "1"


def test_a_cache_is_reset_when_the_engine_says_so_and_not_when_it_refuses(vllm, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_ENGINE_REFUSALS", "2")
    with open_target(a_real_plan(), DEFAULT, (0,), tmp_path) as target:
        target.reset_cache()
        assert httpx.get(f"{target.endpoint.base_url}/resets", timeout=30).text == "3"


def test_an_engine_that_cannot_reset_its_cache_makes_the_measurement_void(vllm, tmp_path):
    engine = replace(ENGINES["vllm"], reset_path="/no-such-path")
    command = ("vllm", "serve", "model")
    serving = Serving(engine, command, "name", vocab=1000, log=tmp_path / "server.log", reset_timeout_s=0.3)
    with open_served(serving) as target, pytest.raises(MeasurementVoid, match="does not offer it"):
        target.reset_cache()


def kill_workers() -> int:
    """The number of load workers killed."""
    workers = [child for child in psutil.Process().children() if "tuner.load.worker" in child.cmdline()]
    for worker in workers:
        worker.kill()
    return len(workers)


def test_a_probe_that_the_client_spoilt_is_measured_once_more_on_the_same_server_with_more_workers(vllm, tmp_path):
    killed: list[int] = []

    def kill_once(_log: RequestLog) -> None:
        if not killed:
            killed.append(kill_workers())

    with open_target(a_real_plan(), DEFAULT, (0,), tmp_path) as target:
        pid = target.server.pid
        log = target.replay(some_requests(400), ClosedLoop(2), Window(0.0, 1.5, 5.0), kill_once)
        assert httpx.get(f"{target.endpoint.base_url}/resets", timeout=30).text == "1", "the cache is reset between"
        assert target.server.pid == pid
    assert (log.status[log.counted] == Status.OK).all()
    assert log.client and "killed by SIGKILL" in (log.client.voided or "")
    assert killed == [1]
    assert log.client.workers == more_workers(1, len(os.sched_getaffinity(0)))


def test_a_probe_that_the_client_spoilt_twice_is_void(vllm, tmp_path):
    killed: list[int] = []
    window = Window(0.0, 30.0, 5.0)
    with (
        open_target(a_real_plan(), DEFAULT, (0,), tmp_path) as target,
        pytest.raises(MeasurementVoid, match="SIGKILL"),
    ):
        target.replay(some_requests(9000), ClosedLoop(2), window, lambda _log: killed.append(kill_workers()))
    assert len(killed) == 2


@pytest.mark.parametrize("engine", MODELLED)
def test_every_engine_can_be_simulated_as_a_server_process(engine, tmp_path):
    plan = a_plan(engines=(load(EngineSpec, engine),), box=Box(load(Gpu, "h100"), (0,), "served"))
    with open_target(plan, Configuration(engine, {"max_batch_size": 64}), (0,), tmp_path) as target:
        target.reset_cache()
        log = target.replay(some_requests(60), ClosedLoop(2), Window(0.0, 0.3, 5.0), lambda _log: None)
    assert (log.status[log.counted] == Status.OK).all()
    assert log.counted.any()


@pytest.mark.parametrize("engine", MODELLED)
def test_a_cache_that_an_earlier_probe_has_filled_is_seen(engine, tmp_path):
    plan = a_plan(engines=(load(EngineSpec, engine),), box=Box(load(Gpu, "h100"), (0,), "served"))
    n, load_, leftovers = 200, ClosedLoop(2), []
    requests = replace(
        some_requests(n), prompt_tokens=np.full(n, 400), segments=tuple((Segment(i, 400),) for i in range(n))
    )
    with open_target(plan, Configuration(engine, {"prefix_caching": "on"}), (0,), tmp_path) as target:
        for reset in (True, False, True):
            if reset:
                target.reset_cache()
            log = target.replay(requests, load_, Window(0.0, 0.4, 5.0), lambda _log: None)
            health = score(log, load_, Limits()).health
            assert health is not None
            leftovers.append(health.leftover_frac)
    clean, spoilt, clean_again = leftovers
    assert clean == clean_again == 0
    assert spoilt > 0.5


@pytest.mark.parametrize("engine", MODELLED)
def test_every_engine_can_be_simulated_in_virtual_time(engine, tmp_path):
    plan = a_plan(engines=(load(EngineSpec, engine),), box=Box(load(Gpu, "h100"), (0,), "virtual"))
    with open_target(plan, Configuration(engine, {"max_batch_size": 64}), (0,), tmp_path) as target:
        ready_s = target.clock_s()
        log = target.replay(some_requests(60), ClosedLoop(2), Window(0.0, 0.3, 5.0), lambda _log: None)
        assert target.clock_s() > ready_s
    assert (log.status[log.counted] == Status.OK).all()


def test_a_missing_engine_is_told_before_anything_starts(vllm, tmp_path):
    with pytest.raises(EngineMissing, match="--engine-bin=/nowhere"):
        open_target(a_real_plan(executables={"vllm": "/nowhere"}), DEFAULT, (0,), tmp_path)


def test_a_busy_port_is_told_before_anything_starts(vllm, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with (
            pytest.raises(ServerFailed, match=f"port {port} of 127.0.0.1 cannot be used .*by .*pid {os.getpid()}"),
            open_target(a_real_plan(port=port), DEFAULT, (0,), tmp_path),
        ):
            pass
    assert not vllm.exists()
    assert not psutil.Process().children()


def test_the_port_the_user_wants_is_used(vllm, tmp_path):
    with reserved_port() as port:
        pass
    with open_target(a_real_plan(port=port), DEFAULT, (0,), tmp_path) as target:
        assert target.endpoint.base_url == f"http://127.0.0.1:{port}"


def test_a_server_that_hangs_is_told_from_one_that_has_too_much_to_do(tmp_path):
    command = (*SIMULATED_SERVER, "vllm", "serve", "Qwen/Qwen2.5-7B-Instruct", "--sim-model", "qwen-7b")
    serving = Serving(
        ENGINES["vllm"], command, "qwen-7b", 1000, tmp_path / "server.log", {VARIABLE: "hang-at-step:3"},
        reset_timeout_s=0.5, silence_limit_s=0.5,
    )  # fmt: skip
    with open_served(serving) as target, pytest.raises(ServerFailed) as failed:
        target.replay(some_requests(5), ClosedLoop(1), Window(0.0, 60.0, 60.0), lambda _log: None)
    assert failed.value.kind is FailureKind.HUNG_UNDER_LOAD
    said = failed.value.message
    assert re.match(r"no token came for \d+ s though there were requests; then the server did not become idle", said)
    assert said.endswith("asked for its health, it answers")


def test_a_server_that_becomes_idle_again_only_had_too_much_to_do(vllm, tmp_path):
    with open_target(a_real_plan(), DEFAULT, (0,), tmp_path) as target:
        silent = tuple((Segment(i, SILENTLY_ANSWERED_TOKENS),) for i in range(5))
        slow = replace(some_requests(5), prompt_tokens=np.full(5, SILENTLY_ANSWERED_TOKENS), segments=silent)
        log = target.replay(slow, ClosedLoop(1), Window(0.0, 0.5, 0.5), lambda _log: None)
    assert (log.status == Status.TIMED_OUT).any()
