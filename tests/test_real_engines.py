"""Real engines on this CPU, run with `--real-engines`: vLLM always, SGLang where $GOODTUNE_SGLANG names it.

All of them share one server an engine; those that need their own are in `test_real_servers.py`.
"""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import numpy as np
import pytest

from launchers.engines import ENGINES
from launchers.find import find_executable
from launchers.flags import fitted, installed, unknown_flags
from launchers.served import ServedTarget
from tests.real_engines import (
    OUTPUT_TOKENS,
    exported,
    exported_by_simulation,
    longest_of,
    metrics_of,
    open_real,
    real_engines,
    some_chats,
    some_requests,
)
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.requestlog import Status
from tuner.requests import Segment
from tuner.target import ClosedLoop, Window

BATCH, BUDGET = 8, 2048

pytestmark = pytest.mark.real_engine


@pytest.fixture(scope="module")
def target(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedTarget]:
    """One server for the tests that leave it alive."""
    with open_real(engine, tmp_path_factory.mktemp(engine), token_budget=BUDGET) as target:
        assert isinstance(target, ServedTarget)
        yield target


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
def test_a_real_server_says_what_it_was_started_with(engine, target):
    facts = target.facts()
    assert facts is not None
    assert (facts.knobs["max_batch_size"], facts.knobs["token_budget"]) == (BATCH, BUDGET)
    assert facts.kv_tokens is not None and facts.kv_tokens >= 100_000
    description = ENGINES[engine]
    assert installed(description, find_executable(description)).version.startswith(facts.version) and facts.version
    # No knob is looked for where this version does not say it any more. On a CPU there are no graphs.
    assert set(description.facts.knobs) - set(facts.knobs) <= {"cuda_graph_max_batch"}


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
