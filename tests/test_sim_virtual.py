import pickle
from dataclasses import fields, replace

import numpy as np
import pytest

from launchers.sim.virtual import VirtualTarget, open_virtual, virtual_target
from tests.builders import a_plan
from tuner.config.catalog import load, load_model
from tuner.config.gpu import Gpu
from tuner.config.slo import Limits
from tuner.config.workload import Lengths, Workload
from tuner.configuration import Configuration
from tuner.errors import ServerFailed
from tuner.latencies import latencies
from tuner.requestlog import RequestLog, Status
from tuner.requests import Requests
from tuner.score import Score, score
from tuner.target import ClosedLoop, Load, OpenLoop, Window
from tuner.workload.build import build

WINDOW = Window(warmup_s=5.0, measure_s=40.0, timeout_s=30.0)


def a_target(engine: str = "vllm", model: str = "qwen-7b", **knobs) -> VirtualTarget:
    return virtual_target(Configuration(engine, knobs), load_model(model), load(Gpu, "h100"), 0.6)


def some_requests(n: int = 1500, prompt: int = 1024, output: int = 128, seed: int = 1) -> Requests:
    workload = Workload(title="t", source="t", prompt=Lengths(fixed=prompt), output=Lengths(fixed=output))
    return build(workload, seed, n)


def never(log: RequestLog) -> None:
    return None


def replayed(target: VirtualTarget, load: Load, requests: Requests | None = None) -> Score:
    log = target.replay(requests or some_requests(), load, WINDOW, never)
    return score(log, load, Limits(ttft_s=1.0))


def test_open_loop_requests_are_due_on_the_schedule_of_the_rate():
    requests = some_requests(300)
    log = a_target().replay(requests, OpenLoop(5.0), WINDOW, never)
    assert log.due_s == pytest.approx((np.cumsum(requests.unit_gaps) / 5.0)[: len(log)])
    assert log.counted.tolist() == ((log.due_s >= 5.0) & (log.due_s < 45.0)).tolist()


def test_the_load_goes_on_until_every_counted_request_has_ended():
    log = a_target().replay(some_requests(), OpenLoop(15.0), WINDOW, never)
    assert set(log.status[log.counted]) == {Status.OK}
    assert log.ended_s > WINDOW.end_s
    assert (log.status[log.due_s >= WINDOW.end_s] == Status.UNFOLLOWED).any()


def test_a_request_of_the_log_has_all_its_tokens_and_times():
    log = a_target().replay(some_requests(output=32), OpenLoop(4.0), WINDOW, never)
    ok = log.status == Status.OK
    assert (log.output_tokens[ok] == 32).all()
    assert (np.diff(log.chunk_start)[ok] == 32).all()
    assert log.ended_at_s[ok] == pytest.approx(log.last_s[ok])
    assert (log.first_s[ok] > log.due_s[ok]).all()


def test_closed_loop_users_ask_again_as_soon_as_they_are_answered():
    log = a_target().replay(some_requests(400), ClosedLoop(8), WINDOW, never)
    assert (log.due_s[:8] == 0).all()
    assert set(log.due_s[8:]) <= set(log.ended_at_s[~np.isnan(log.ended_at_s)])
    running = (log.due_s <= 20.0) & ~(log.ended_at_s <= 20.0)
    assert running.sum() == 8


def test_the_engines_view_is_that_of_its_scheduler():
    log = a_target().replay(some_requests(200, output=32), ClosedLoop(8), Window(0.0, 3.0, 30.0), never)
    view = log.engine
    assert view is not None and view.scrapes == 0
    assert view.preemptions == 0
    assert view.cache_hit_frac is None
    # 8 requests of 1056 tokens hold 66 blocks each at the end.
    assert view.kv_peak_frac == pytest.approx(8 * 66 / a_target().settings.blocks, rel=0.05)
    assert 8 < view.step_tokens < 8192
    assert (view.running, view.waiting, view.queue_p50_s, view.accepted_frac) == (None,) * 4


def test_a_cramped_server_says_how_often_it_preempted():
    roomy = a_target()
    cramped = VirtualTarget(replace(roomy.settings, kv_tokens=150 * 16), roomy.steps)
    view = cramped.replay(some_requests(60, output=256), OpenLoop(20.0), WINDOW, never).engine
    assert view is not None and view.preemptions > 0
    assert view.kv_peak_frac > 0.95


def test_speculation_says_how_often_it_guessed_right():
    target = a_target(speculation="ngram-3")
    view = target.replay(some_requests(400), OpenLoop(5.0), WINDOW, never).engine
    assert view is not None
    # Each of three guesses counts only if those before it did.
    assert view.accepted_frac == pytest.approx((0.6 + 0.36 + 0.216) / 3, abs=0.03)


def test_shared_prefixes_are_hits_in_the_engines_view():
    log = a_target().replay(build(load(Workload, "rag"), 1, 400), OpenLoop(2.0), WINDOW, never)
    assert log.engine is not None and log.engine.cache_hit_frac is not None
    assert 0.2 < log.engine.cache_hit_frac < 0.6


def test_later_turns_of_a_session_are_due_after_the_answer_and_a_pause():
    requests = replace(
        some_requests(6, output=8),
        session=np.array([0, 0, 0, 1, 1, 1]),
        unit_gaps=np.array([1.0, 1.0]),
        think_s=np.array([0.0, 2.0, 3.0, 0.0, 2.0, 3.0]),
    )
    log = a_target().replay(requests, OpenLoop(1.0), WINDOW, never)
    row = {request: i for i, request in enumerate(log.request.tolist())}
    for before, after, pause_s in [(0, 1, 2.0), (1, 2, 3.0), (3, 4, 2.0), (4, 5, 3.0)]:
        assert log.due_s[row[after]] == pytest.approx(log.ended_at_s[row[before]] + pause_s)


def test_requests_that_take_too_long_are_given_up_and_leave_their_place():
    log = a_target(max_batch_size=1).replay(some_requests(), OpenLoop(10.0), WINDOW, never)
    late = log.status == Status.TIMED_OUT
    assert late.sum() > 100
    assert log.ended_at_s[late] == pytest.approx(log.due_s[late] + WINDOW.timeout_s)
    assert not np.isnan(log.ended_at_s[log.counted]).any()
    rows = np.repeat(np.arange(len(log)), np.diff(log.chunk_start))
    assert not (log.chunk_s > log.ended_at_s[rows]).any()


def test_a_request_beyond_the_context_fails_with_the_servers_answer():
    target = virtual_target(Configuration("vllm", {}), load_model("qwen-7b"), load(Gpu, "h100"), 0.6, 1100)
    log = target.replay(some_requests(20), OpenLoop(1.0), WINDOW, never)
    assert set(log.status) == {Status.FAILED}
    assert "HTTP 400" in log.errors[0]


def test_whoever_watches_sees_the_log_grow_and_may_stop_it():
    seen: list[RequestLog] = []

    def watch(log: RequestLog) -> str | None:
        seen.append(log)
        return "enough" if len(seen) == 3 else None

    log = a_target().replay(some_requests(), OpenLoop(5.0), WINDOW, watch)
    assert [round(each.ended_s) for each in seen] == [10, 15, 20]
    assert len(seen[0]) < len(seen[1]) < len(seen[2]) == len(log)
    assert (log.stopped, log.ended_s) == ("enough", seen[2].ended_s)
    running = seen[0].status == Status.UNFOLLOWED
    assert np.isnan(seen[0].ended_at_s[running]).all()


def test_a_replay_that_nobody_watches_is_the_same_and_its_window_may_be_an_instant():
    requests = some_requests(40)
    watched, unwatched = (a_target().replay(requests, OpenLoop(5.0), WINDOW, watch) for watch in (never, None))
    assert unwatched.chunk_s == pytest.approx(watched.chunk_s)
    instant = a_target().replay(requests, ClosedLoop(40), Window(0.0, 5e-324, 30.0), None)
    assert instant.counted.all()
    assert set(instant.status) == {Status.OK}


@pytest.mark.parametrize("engine, knobs", [("vllm", {"speculation": "ngram-3"}), ("sglang", {}), ("vllm", {"dp": 2})])
def test_the_same_replay_gives_the_same_log_also_in_another_process(engine, knobs):
    target = a_target(engine, **knobs)
    copy = pickle.loads(pickle.dumps(target))
    requests = some_requests(300)
    logs = [each.replay(requests, OpenLoop(6.0), WINDOW, never) for each in (target, target, copy)]
    for log in logs[1:]:
        for field in fields(log):
            np.testing.assert_array_equal(getattr(log, field.name), getattr(logs[0], field.name))


def test_the_clock_counts_start_up_and_every_replay():
    target = a_target()
    started_s = target.clock_s()
    assert started_s > 30
    log = target.replay(some_requests(50), OpenLoop(5.0), WINDOW, never)
    target.reset_cache()
    assert target.clock_s() == started_s + log.ended_s


def test_a_server_that_does_not_fit_does_not_open():
    opening = open_virtual(a_plan(model=load_model("llama-70b")), Configuration("vllm", {}))
    with pytest.raises(ServerFailed, match="out of memory"), opening:
        pass


def test_a_small_budget_shortens_the_longest_gaps_and_delays_first_tokens():
    requests = some_requests(600, prompt=6000)
    small = replayed(a_target(token_budget=512, max_batch_size=256), OpenLoop(2.0), requests)
    large = replayed(a_target(token_budget=8192), OpenLoop(2.0), requests)
    assert small.itl_s.p99 < large.itl_s.p99 / 2
    assert small.ttft_s.p50 > 1.2 * large.ttft_s.p50


def test_a_small_batch_makes_requests_queue_and_tokens_come_faster():
    small, large = (replayed(a_target(max_batch_size=size), OpenLoop(10.0)) for size in (8, 256))
    assert small.ttft_s.p50 > 10 * large.ttft_s.p50
    assert small.tpot_s.p50 < large.tpot_s.p50


def test_four_gpus_are_faster_than_one_for_each_user():
    one, four = (replayed(a_target(tp=tp), OpenLoop(5.0)) for tp in (1, 4))
    assert four.ttft_s.p50 < 0.6 * one.ttft_s.p50
    assert four.tpot_s.p50 < 0.6 * one.tpot_s.p50


def test_speculation_helps_when_the_gpu_is_idle_and_hurts_when_it_is_full():
    requests = some_requests(2500, prompt=128)
    gains = {}
    for users in (1, 512):
        tpots = [
            replayed(a_target(speculation=choice), ClosedLoop(users), requests).tpot_s.p50
            for choice in ("off", "ngram-5")
        ]
        gains[users] = tpots[0] / tpots[1]
    assert gains[1] > 1.5
    assert gains[512] < 1.0


def test_shared_documents_are_computed_once():
    rag = build(load(Workload, "rag"), 0, 500)
    on, off = (replayed(a_target(prefix_caching=choice), OpenLoop(6.0), rag) for choice in ("on", "off"))
    assert on.ttft_s.p50 < 0.9 * off.ttft_s.p50


def test_copies_of_a_model_share_the_requests():
    requests = some_requests(600)
    two, one = (a_target(dp=copies).replay(requests, OpenLoop(12.0), WINDOW, never) for copies in (2, 1))
    assert two.request[two.counted].tolist() == one.request[one.counted].tolist()
    assert (np.diff(two.due_s) >= 0).all()
    tpot_s = [np.nanmedian(latencies(log, OpenLoop(12.0)).tpot_s) for log in (two, one)]
    assert tpot_s[0] < 0.9 * tpot_s[1]


def test_a_stream_interval_counts_tokens_not_steps():
    guessing = a_target(speculation="ngram-2", stream_interval=4)
    guessing.settings = replace(guessing.settings, acceptance=1.0)
    log = guessing.replay(some_requests(50, output=15), OpenLoop(4.0), WINDOW, never)
    # One token, then 3 with each step: sent are 1, 7, 13 and the rest.
    assert set(np.diff(log.chunk_start)) == {4}


def test_a_stream_interval_sends_tokens_in_lumps_and_loses_none():
    log = a_target(stream_interval=4).replay(some_requests(50, output=10), OpenLoop(4.0), WINDOW, never)
    assert set(np.diff(log.chunk_start)) == {4}
    assert (log.output_tokens == 10).all()
    assert log.last_s == pytest.approx(log.ended_at_s)
