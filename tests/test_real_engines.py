"""Real engines on this CPU, run with `--real-engines`: vLLM always, SGLang where $GOODTUNE_SGLANG names it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from launchers.engines import ENGINES
from launchers.find import find_executable
from launchers.flags import fitted, installed, unknown_flags
from launchers.served import ServedTarget
from tests.real_engines import open_real
from tests.test_supervisor import are_gone, end_within_patience, wait_until_dead
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.errors import FailureKind, ServerFailed
from tuner.requestlog import Status
from tuner.requests import Requests, Segment
from tuner.target import ClosedLoop, Window

ROOT = Path(__file__).parent.parent
OUTPUT_TOKENS = 16
WORKER = {"vllm": "EngineCore", "sglang": "scheduler"}

pytestmark = pytest.mark.real_engine

without_sglang = pytest.mark.skipif("GOODTUNE_SGLANG" not in os.environ, reason="GOODTUNE_SGLANG names no SGLang")
real_engines = pytest.mark.parametrize(
    "engine", ["vllm", pytest.param("sglang", marks=without_sglang)], scope="module"
)


@pytest.fixture(scope="module")
def target(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedTarget]:
    """One server for the tests that leave it alive."""
    with open_real(engine, tmp_path_factory.mktemp(engine)) as target:
        assert isinstance(target, ServedTarget)
        yield target


def processes_of(target: ServedTarget) -> list[int]:
    return [process.pid for process in psutil.Process(target.server.guard.pid).children(recursive=True)]


def some_requests(n: int) -> Requests:
    return Requests(
        seed=0,
        prompt_tokens=np.full(n, 64),
        output_tokens=np.full(n, OUTPUT_TOKENS),
        session=np.arange(n),
        unit_gaps=np.ones(n),
        think_s=np.zeros(n),
        segments=tuple((Segment(i, 64),) for i in range(n)),
    )


@real_engines
def test_the_installed_engine_knows_every_flag_of_its_search_space(engine):
    description = ENGINES[engine]
    here = installed(description, find_executable(description))
    _, notes = fitted(load(EngineSpec, engine), here)
    assert notes == ()
    ours = (*description.cpu_flags, *description.measuring_flags, description.context_flag)
    assert unknown_flags(ours, here.flags) == ()
    assert here.version


@real_engines
def test_a_real_server_answers_every_request_of_a_replay(engine, target):
    log = target.replay(some_requests(200), ClosedLoop(4), Window(0.5, 2.0, 30.0), lambda _log: None)
    counted = log.counted
    assert counted.sum() > 0
    assert (log.status[counted] == Status.OK).all(), log.errors
    assert (log.output_tokens[counted] == OUTPUT_TOKENS).all()
    assert (np.diff(log.chunk_start)[counted] > 0).all()


@real_engines
def test_a_real_server_says_what_its_prefix_cache_had_of_a_prompt(engine, target):
    target.reset_cache()
    requests = some_requests(3)
    # On a CPU vLLM caches blocks of 128 tokens.
    alike = replace(requests, prompt_tokens=np.full(3, 300), segments=((Segment(0, 300),),) * 3)
    log = target.replay(alike, ClosedLoop(1), Window(0.0, 30.0, 30.0), lambda _log: None)
    assert log.reusable_tokens is not None and log.reusable_tokens.tolist() == [0, 300, 300]
    assert log.cached_tokens is not None and log.cached_tokens[0] == 0
    assert (log.cached_tokens[1:] > 0).all() and (log.cached_tokens <= log.reusable_tokens).all()


@real_engines
def test_a_real_server_resets_its_prefix_cache_and_exports_metrics(engine, target):
    target.reset_cache()
    metrics = httpx.get(f"{target.endpoint.base_url}{ENGINES[engine].metrics_path}", timeout=30).text
    assert f"{engine}:num_" in metrics


@real_engines
def test_a_configuration_that_cannot_start_is_told_with_the_engines_own_words(engine, tmp_path):
    impossible = {"vllm": {"max_batch_size": 64, "token_budget": 32}, "sglang": {"token_budget": -7}}[engine]
    with pytest.raises(ServerFailed) as failed, open_real(engine, tmp_path, **impossible):
        pass
    if engine == "vllm":
        assert failed.value.kind is FailureKind.BAD_COMBINATION
        assert "max_num_batched_tokens (32) must be greater than or equal to" in failed.value.evidence


@real_engines
def test_a_real_server_whose_worker_dies_is_noticed_and_leaves_nothing_behind(engine, tmp_path):
    with open_real(engine, tmp_path) as target:
        assert isinstance(target, ServedTarget)
        pids = processes_of(target)
        psutil.Process(next(pid for pid in pids if WORKER[engine] in psutil.Process(pid).name())).kill()
        wait_until_dead(target.server)
        with pytest.raises(ServerFailed) as failed:
            target.server.check_alive()
        assert failed.value.kind is FailureKind.DIED_UNDER_LOAD
    assert are_gone(pids)


@real_engines
def test_nothing_of_a_real_engine_outlives_a_tuner_that_is_killed(engine, tmp_path):
    command = [sys.executable, "-m", "tests.fakes.real_tuner", engine, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as tuner:
        assert tuner.stdout
        assert tuner.stdout.readline() == "ready\n"
        pids = [process.pid for process in psutil.Process(tuner.pid).children(recursive=True)]
        assert len(pids) > 2
        tuner.kill()
        assert end_within_patience(pids)
