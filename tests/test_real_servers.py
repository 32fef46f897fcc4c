"""What real engines do when they start, are pushed and end, run with `--real-engines`: one server at a time."""

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from launchers.served import ServedTarget
from tests.real_engines import (
    exported,
    exported_by_simulation,
    long_prompts,
    longest_of,
    metrics_of,
    open_real,
    processes_of,
    real_engines,
    some_chats,
)
from tests.test_supervisor import are_gone, end_within_patience
from tuner.config.slo import Limits
from tuner.requestlog import Status
from tuner.score import score
from tuner.target import ClosedLoop, Window

ROOT = Path(__file__).parent.parent
USERS, WINDOWS = 8, 2

pytestmark = pytest.mark.real_engine


@dataclass(frozen=True)
class Seen:
    """What eight users with long prompts see of a server, and how long by its own word they wait for their place.

    Of several windows the best counts: what else the machine does only adds.
    """

    longest_gap_s: float
    ttft_s: float
    queued_s: float


@pytest.fixture(scope="module")
def roomy(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A server with a large token budget, and a place for everybody. It is gone behind this."""
    folder = tmp_path_factory.mktemp(engine)
    with open_real(engine, folder, max_batch_size=USERS, token_budget=2048) as target:
        assert isinstance(target, ServedTarget)
        return seen_of(target)


def seen_of(target: ServedTarget) -> Seen:
    windows = [one_window(target) for _ in range(WINDOWS)]
    return Seen(*(min(values) for values in zip(*windows, strict=True)))


def one_window(target: ServedTarget) -> tuple[float, float, float]:
    target.reset_cache()
    load = ClosedLoop(USERS)
    log = target.replay(long_prompts(200), load, Window(3.0, 6.0, 60.0), lambda _log: None)
    assert (log.status[log.counted] == Status.OK).all(), log.errors
    found = score(log, load, Limits())
    assert found.itl_s and found.ttft_s and log.engine and log.engine.queue_p50_s is not None
    return found.itl_s.p99, found.ttft_s.p50, log.engine.queue_p50_s


@real_engines
def test_the_token_budget_takes_effect(engine, roomy, tmp_path):
    """Small pieces of prompts shorten the longest gaps where a step holds answers too, as vLLM's do. SGLang's do not,
    without mixed chunks: there it changes what users wait for all the same."""
    with open_real(engine, tmp_path, max_batch_size=USERS, token_budget=128) as target:
        assert isinstance(target, ServedTarget)
        small = seen_of(target)
    changes = [small.longest_gap_s / roomy.longest_gap_s, small.ttft_s / roomy.ttft_s]
    if engine == "vllm":
        assert changes[0] < 0.7, (roomy, small)
    else:
        assert any(change >= 2 or change <= 0.5 for change in changes), (roomy, small)


@real_engines
def test_a_small_batch_makes_requests_queue_and_its_server_stops_under_load_without_orphans(engine, roomy, tmp_path):
    with ExitStack() as streams:
        client = streams.enter_context(httpx.Client(timeout=60, trust_env=False))
        with open_real(engine, tmp_path, max_batch_size=2, token_budget=2048) as small:
            assert isinstance(small, ServedTarget)
            queued_s = seen_of(small).queued_s
            pids = processes_of(small)
            url = f"{small.endpoint.base_url}/v1/completions"
            body = {"model": small.endpoint.model, "prompt": [100] * 64, "max_tokens": 3000, "ignore_eos": True}
            for _ in range(2):
                answer = streams.enter_context(client.stream("POST", url, json={**body, "stream": True}))
                assert next(answer.iter_lines())
        assert are_gone(pids)
    assert queued_s > 2 * roomy.queued_s, roomy


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
def test_nothing_of_a_real_engine_outlives_a_tuner_that_is_killed(engine, tmp_path):
    command = [sys.executable, "-m", "tests.fakes.real_tuner", engine, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as tuner:
        assert tuner.stdout
        assert tuner.stdout.readline() == "ready\n"
        pids = [process.pid for process in psutil.Process(tuner.pid).children(recursive=True)]
        assert len(pids) > 2
        tuner.kill()
        assert end_within_patience(pids)
