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
from tests.real_engines import exported, exported_by_simulation, open_real
from tests.test_supervisor import are_gone, end_within_patience, wait_until_dead
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.errors import FailureKind, ServerFailed
from tuner.requestlog import Status
from tuner.requests import Message, Requests, Segment
from tuner.target import ClosedLoop, Window
from tuner.workload.chats import chat_segments, prompt_lengths

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
def test_a_real_server_says_of_itself_what_its_clients_saw(engine, target):
    target.reset_cache()
    log = target.replay(some_requests(2000), ClosedLoop(4), Window(0.5, 12.0, 30.0), lambda _log: None)
    view, description = log.engine, ENGINES[engine]
    assert view is not None and view.scrapes >= 3
    text = httpx.get(f"{target.endpoint.base_url}{description.metrics_path}", timeout=30).text
    exported = {line.partition("{")[0] for line in text.splitlines()}
    speculation = {"guessed_tokens", "accepted_tokens"}
    for name, sources in description.metrics.values.items():
        is_there = any(source.name in exported for source in sources)
        assert is_there or name in speculation or name in description.metrics.unsaid_zeros, name
    assert f"{description.metrics.queue_time}_bucket" in exported
    # SGLang renews its gauges with each prompt and 40th step, and rounds the cache's use to percents.
    least = 1 if engine == "vllm" else 0
    assert view.running is not None and least <= view.running <= 4
    assert view.waiting == 0 and view.preemptions == 0
    assert view.kv_peak_frac is not None and 0 <= view.kv_peak_frac < 1
    assert view.accepted_frac is None
    assert view.step_tokens is not None and 1 < view.step_tokens < 512
    assert view.queue_p50_s is not None and view.queue_p50_s < 1
    assert view.generated_tokens is not None
    assert view.generated_tokens >= log.output_tokens[log.counted].sum()
    assert view.cache_hit_frac is not None and view.cache_hit_frac < 0.01


def metrics_of(target: ServedTarget) -> str:
    return httpx.get(f"{target.endpoint.base_url}/metrics", timeout=30).text


def longest_of(target: ServedTarget) -> int:
    models = httpx.get(f"{target.endpoint.base_url}/v1/models", timeout=30).json()
    return int(models["data"][0]["max_model_len"])


@real_engines
def test_a_simulated_server_exports_nothing_that_the_real_one_does_not(engine, target):
    target.replay(some_requests(20), ClosedLoop(4), Window(0.0, 5.0, 30.0), lambda _log: None)
    theirs, ours = exported(metrics_of(target)), exported_by_simulation(engine, longest_of(target))
    if engine == "vllm":
        assert ours - theirs == set()
    else:
        # It says nothing of what has not happened yet, and labels by more than copies.
        unsaid = {"sglang:num_retracted_requests_total", "sglang:num_aborted_requests_total"}
        assert {name for name, _ in ours} - {name for name, _ in theirs} - unsaid == set()


def some_chats(n: int) -> Requests:
    """Conversations that a model can copy from, of about 100 tokens; the first half of each is the same."""
    rules = "You are a helpful assistant. Answer in short sentences, one after the other. " * 4
    chats = tuple(
        (Message("system", rules), Message("user", f"Count from {row} on: 1 2 3 4 1 2 3 4 1 2 3 4"))
        for row in range(n)
    )
    requests = some_requests(n)
    return replace(requests, prompt_tokens=prompt_lengths(chats), segments=chat_segments(chats), chats=chats)


@real_engines
def test_a_real_server_answers_chats_of_real_text(engine, target):
    target.reset_cache()
    requests = some_chats(200)
    log = target.replay(requests, ClosedLoop(4), Window(0.5, 2.0, 30.0), lambda _log: None)
    counted = log.counted
    assert counted.sum() > 0
    assert (log.status[counted] == Status.OK).all(), log.errors
    assert (log.output_tokens[counted] == OUTPUT_TOKENS).all()
    assert (np.diff(log.chunk_start)[counted] > 0).all()
    # Counted by the server: not what was estimated, but of that size.
    ratio = log.prompt_tokens[counted] / requests.prompt_tokens[log.request][counted]
    assert (ratio > 0.3).all() and (ratio < 10).all() and (ratio != 1).any()
    assert log.reusable_tokens is not None and (log.reusable_tokens[1:] > 0).all()


def test_speculation_on_real_text_says_how_many_guesses_were_right(tmp_path):
    with open_real("vllm", tmp_path, speculation="ngram-3") as target:
        assert isinstance(target, ServedTarget)
        # The first guesses wait for their code to be compiled.
        for measure_s in (15.0, 3.0):
            log = target.replay(some_chats(300), ClosedLoop(2), Window(0.0, measure_s, 60.0), lambda _log: None)
        theirs, ours = exported(metrics_of(target)), exported_by_simulation("vllm", longest_of(target), drafts=3)
    assert ours - theirs == set()
    assert (log.status[log.counted] == Status.OK).all(), log.errors
    assert log.engine is not None and log.engine.accepted_frac is not None
    assert 0 <= log.engine.accepted_frac <= 1


@real_engines
def test_a_configuration_that_cannot_start_is_told_with_the_engines_own_words(engine, tmp_path):
    impossible = {"vllm": {"max_batch_size": 64, "token_budget": 32}, "sglang": {"token_budget": -7}}[engine]
    with pytest.raises(ServerFailed) as failed, open_real(engine, tmp_path, **impossible):
        pass
    if engine == "vllm":
        assert failed.value.kind is FailureKind.BAD_COMBINATION
        assert "max_num_batched_tokens (32) must be greater than or equal to" in failed.value.fault.evidence


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
