import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from tests.fakes import openai_server as fake
from tuner.errors import FailureKind, Fault, MeasurementVoid, ServerFailed
from tuner.load.offer import REFUSAL_PAUSE_S
from tuner.load.replay import Endpoint, Supervision, replay
from tuner.requestlog import RequestLog, Status
from tuner.requests import Message, Requests, Segment
from tuner.target import ClosedLoop, Load, OpenLoop, Window
from tuner.workload.chats import chat_segments

OUTPUT_TOKENS = 5
TIMEOUT_S = 1.0
PATIENCE_S = 30.0
# Wide enough for any machine that runs tests; errors of the clock's origin or unit are far larger.
CLOCK_ERROR_S = 0.5


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with fake.running() as (url, _):
        yield url


def journal(url: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(httpx.get(f"{url}/journal", timeout=30).text)
    return told


def requests_for(*prompt_tokens: int, turns: int = 1, think_s: float = 0.0, gap: float = 0.0) -> Requests:
    n = len(prompt_tokens)
    session = np.arange(n) // turns
    return Requests(
        seed=0,
        prompt_tokens=np.array(prompt_tokens),
        output_tokens=np.full(n, OUTPUT_TOKENS),
        session=session,
        unit_gaps=np.full(int(session[-1]) + 1, gap),
        think_s=np.where(np.arange(n) % turns == 0, 0.0, think_s),
        segments=tuple((Segment(row, tokens),) for row, tokens in enumerate(prompt_tokens)),
    )


PLAIN = fake.prompt_tokens(fake.plain)


def a_window(**overrides: float) -> Window:
    return Window(**{"warmup_s": 0.0, "measure_s": 60.0, "timeout_s": PATIENCE_S} | overrides)


def look_after(**overrides: Any) -> Supervision:
    values = {"watch": lambda log: None, "check_alive": lambda: None, "send_lag_limit_s": PATIENCE_S}
    return Supervision(**values | overrides)


def run(url: str, requests: Requests, load: Load, window: Window | None = None, **supervision: Any) -> RequestLog:
    endpoint = Endpoint(url, "fake", 4096)
    return replay(endpoint, requests, load, window or a_window(), look_after(**supervision))


def workers_left() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "tuner.load.worker" in child.cmdline()]


@pytest.fixture(scope="module")
def lonely(server: str) -> tuple[RequestLog, list[dict[str, Any]]]:
    """A probe of six requests, one after the other, and what the server saw of it."""
    journal(server)
    log = run(server, requests_for(*[PLAIN] * 6), ClosedLoop(1))
    return log, journal(server)["entries"]


def test_every_request_is_sent_as_it_was_made_and_every_token_is_timed(lonely):
    log, entries = lonely
    assert [len(entry["body"]["prompt"]) for entry in entries] == [PLAIN] * 6
    assert (log.status == Status.OK).all()
    assert log.counted.all()
    assert log.output_tokens.tolist() == [OUTPUT_TOKENS] * 6
    assert np.diff(log.chunk_start).tolist() == [OUTPUT_TOKENS] * 6
    assert log.errors == ()
    assert log.client is not None and log.client.workers == 1
    assert log.cached_tokens is not None and log.cached_tokens.tolist() == [fake.CACHED_TOKENS] * 6


def test_times_are_those_of_the_server_on_one_clock(lonely):
    log, entries = lonely
    written_s = np.concatenate([entry["token_s"] for entry in entries])
    came_s = np.array([entry["came_s"] for entry in entries])
    origin_s = np.median(written_s - log.chunk_s)
    assert np.abs(log.chunk_s + origin_s - written_s).max() < CLOCK_ERROR_S
    assert np.abs(log.sent_s + origin_s - came_s).max() < CLOCK_ERROR_S
    assert (log.due_s <= log.sent_s).all()
    assert (log.sent_s < log.first_s).all()
    assert (log.last_s <= log.ended_at_s).all()
    assert (log.first_s - log.sent_s >= fake.FIRST_TOKEN_S).all()
    assert np.median(np.diff(log.chunk_s[: log.chunk_start[1]])) >= fake.TOKEN_GAP_S / 2


def test_prompts_that_begin_alike_are_known_to_be_reusable(server):
    requests = requests_for(*[PLAIN] * 4)
    alike = (requests.segments[0],) * 2 + requests.segments[2:]
    log = run(server, replace(requests, segments=alike), ClosedLoop(1))
    assert log.reusable_tokens is not None and log.reusable_tokens.tolist() == [0, PLAIN, 0, 0]


def test_real_text_goes_through_chat_completions_and_is_counted_by_the_server(server):
    journal(server)
    chats = (
        (Message("user", "Why?"),),
        (Message("system", "Be brief."), Message("user", "Wie heißt du?")),
        (Message("system", "Be brief."), Message("user", "And now?")),
    )
    segments = chat_segments(chats)
    estimated = tuple(sum(segment.tokens for segment in prompt) for prompt in segments)
    log = run(server, replace(requests_for(*estimated), segments=segments, chats=chats), ClosedLoop(1))
    bodies = [entry["body"] for entry in journal(server)["entries"]]
    assert [body["messages"] for body in bodies] == [
        [{"role": turn.role, "content": turn.content} for turn in chat] for chat in chats
    ]
    assert all(body["max_tokens"] == OUTPUT_TOKENS and body["ignore_eos"] for body in bodies)
    assert not any("return_token_ids" in body for body in bodies), "SGLang refuses it in a streamed chat"
    assert (log.status == Status.OK).all()
    assert np.diff(log.chunk_start).tolist() == [OUTPUT_TOKENS] * 3
    assert log.prompt_tokens.tolist() == [fake.CHAT_TOKENS, 2 * fake.CHAT_TOKENS, 2 * fake.CHAT_TOKENS]
    # Of 6 estimated tokens the third prompt shares 3, which is half of what the server counts.
    assert estimated == (1, 7, 5)
    assert log.reusable_tokens is not None and log.reusable_tokens.tolist() == [0, 0, 36]


@pytest.fixture(scope="module")
def mixed(server: str) -> Callable[[int], tuple[Status, int]]:
    """One probe of everything a server can do wrong: what became of the request with this prompt length."""
    lengths = [length for length, do in fake.BEHAVIOURS.items() if do not in (fake.crowd, fake.death)]
    log = run(server, requests_for(*lengths, fake.HTTP_500), ClosedLoop(20), a_window(timeout_s=TIMEOUT_S))
    found = {
        int(log.prompt_tokens[row]): (Status(log.status[row]), int(log.chunk_start[row + 1] - log.chunk_start[row]))
        for row in range(len(log))
    }
    assert set(log.errors) > {"HTTP 500: out of luck", "the engine has died"}
    return found.__getitem__


@pytest.mark.parametrize(
    "prompt_tokens, status, chunks",
    [
        pytest.param(PLAIN, Status.OK, OUTPUT_TOKENS, id="a good answer"),
        pytest.param(fake.prompt_tokens(fake.clean_abort), Status.TRUNCATED, 2, id="a clean abort"),
        pytest.param(fake.prompt_tokens(fake.early_stop), Status.TRUNCATED, 2, id="stopped early"),
        pytest.param(fake.prompt_tokens(fake.no_done), Status.TRUNCATED, OUTPUT_TOKENS, id="no [DONE]"),
        pytest.param(fake.prompt_tokens(fake.cut_off), Status.FAILED, 2, id="connection cut"),
        pytest.param(fake.prompt_tokens(fake.no_text), Status.EMPTY, 0, id="200 without text"),
        pytest.param(fake.prompt_tokens(fake.no_chunk), Status.EMPTY, 0, id="200 without a chunk"),
        pytest.param(fake.prompt_tokens(fake.error_event), Status.FAILED, 1, id="error in the stream"),
        pytest.param(fake.prompt_tokens(fake.silence), Status.TIMED_OUT, 0, id="no answer in time"),
        pytest.param(fake.HTTP_500, Status.FAILED, 0, id="HTTP 500"),
        pytest.param(fake.prompt_tokens(fake.byte_by_byte), Status.OK, OUTPUT_TOKENS, id="one byte at a time"),
        pytest.param(fake.prompt_tokens(fake.all_in_one_write), Status.OK, OUTPUT_TOKENS, id="all in one write"),
    ],
)
def test_each_way_to_end_is_told_apart(mixed, prompt_tokens, status, chunks):
    assert mixed(prompt_tokens) == (status, chunks)


def test_events_of_one_write_share_a_time_stamp(server):
    log = run(server, requests_for(fake.prompt_tokens(fake.all_in_one_write)), ClosedLoop(1))
    assert len(np.unique(log.chunk_s)) < OUTPUT_TOKENS


def test_a_server_that_never_says_what_it_had_cached_leaves_that_unknown(server):
    log = run(server, requests_for(fake.prompt_tokens(fake.byte_by_byte)), ClosedLoop(1))
    assert log.cached_tokens is None


def test_a_refused_connection_is_a_result_not_an_exception():
    log = run("http://127.0.0.1:1", requests_for(PLAIN, PLAIN), ClosedLoop(2))
    assert log.status.tolist() == [Status.FAILED, Status.FAILED]
    assert np.isnan(log.first_s).all()
    assert "127.0.0.1:1" in log.errors[0]


def test_a_user_who_was_turned_away_pauses_before_asking_again():
    log = run("http://127.0.0.1:1", requests_for(PLAIN, PLAIN), ClosedLoop(1))
    assert log.due_s[1] == pytest.approx(log.ended_at_s[0] + REFUSAL_PAUSE_S)


def test_an_open_loop_keeps_its_schedule_and_counts_what_is_due_in_the_window(server):
    window = a_window(warmup_s=0.1, measure_s=0.2)
    log = run(server, requests_for(*[PLAIN] * 200, gap=1.0), OpenLoop(50.0), window)
    assert log.due_s == pytest.approx(np.arange(1, len(log) + 1) / 50)
    assert log.began_s is not None and log.began_s + log.ended_s < time.perf_counter()
    assert (log.counted == ((log.due_s >= 0.1) & (log.due_s < 0.1 + 0.2))).all()
    assert (log.status[log.counted] == Status.OK).all()
    assert log.due_s.max() >= window.end_s, "the load goes on until the last counted request has ended"
    assert (log.warmup_s, log.window_s) == (0.1, 0.2)


def test_what_runs_outside_the_window_at_the_end_is_unfollowed_not_an_error(server):
    silent = fake.prompt_tokens(fake.silence)
    requests = requests_for(silent, *[PLAIN] * 10, *[silent] * 90, gap=1.0)
    log = run(server, requests, OpenLoop(50.0), a_window(warmup_s=0.03, measure_s=0.2))
    assert log.request[log.counted].tolist() == list(range(1, 11))
    assert (log.status[log.counted] == Status.OK).all()
    assert (log.status[~log.counted] == Status.UNFOLLOWED).all()
    assert log.errors == ()
    assert log.ended_s < PATIENCE_S


def test_a_closed_loop_keeps_exactly_its_users_in_flight(server):
    journal(server)
    log = run(server, requests_for(*[PLAIN] * 12), ClosedLoop(3))
    assert journal(server)["most_in_flight"] == 3
    in_flight = [int(((log.sent_s <= at) & (at < log.ended_at_s)).sum()) for at in np.sort(log.sent_s)]
    assert in_flight[:9] == [1, 2] + [3] * 7
    assert log.due_s[3:].tolist() == sorted(log.ended_at_s)[:9]


@pytest.mark.parametrize("workers", [1, 2])
def test_users_of_a_ramp_join_one_by_one(server, workers):
    load, window = ClosedLoop(4, joining_s=0.3), a_window(measure_s=1.2)
    log = run(server, requests_for(*[PLAIN] * 200), load, window, workers=workers)
    for users in range(1, 5):
        at_s = 0.3 * users - 0.05
        assert ((log.due_s <= at_s) & ~(log.ended_at_s <= at_s)).sum() <= users
    assert log.due_s.min() == 0
    assert [round(float(log.due_s[log.due_s >= 0.3 * user].min()), 6) for user in range(1, 4)] == [0.3, 0.6, 0.9]
    assert (log.status[log.counted] == Status.OK).all()


def test_no_request_waits_in_the_client_for_another_to_end(server):
    log = run(server, requests_for(*[fake.prompt_tokens(fake.crowd)] * fake.CROWD), ClosedLoop(fake.CROWD))
    assert (log.status == Status.OK).all()


def test_a_turn_is_due_its_think_time_after_the_turn_before(server):
    log = run(server, requests_for(*[PLAIN] * 6, turns=3, think_s=0.05), ClosedLoop(2))
    by_row = np.argsort(log.request)
    due_s, ended_at_s = log.due_s[by_row], log.ended_at_s[by_row]
    later_turns = np.array([1, 2, 4, 5])
    assert due_s[later_turns] == pytest.approx(ended_at_s[later_turns - 1] + 0.05)
    assert (log.sent_s >= log.due_s).all()


def test_watch_sees_the_probe_so_far_and_may_stop_it(server):
    seen: list[RequestLog] = []

    def watch(log: RequestLog) -> str | None:
        seen.append(log)
        return "seen enough" if len(log) >= 2 else None

    requests = requests_for(PLAIN, fake.prompt_tokens(fake.silence))
    log = run(server, requests, ClosedLoop(2), watch=watch)
    assert log.stopped == "seen enough"
    assert log.status.tolist() == [Status.OK, Status.UNFOLLOWED]
    assert seen[-1].status.tolist() == [Status.OK, Status.UNFOLLOWED]
    assert seen[-1].chunk_s.tolist() == log.chunk_s.tolist()
    assert workers_left() == []


def test_who_asks_is_told_to_the_server_and_written_into_no_file(server, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    written: list[bytes] = []

    def watch(log: RequestLog) -> str | None:
        written.extend(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        return "seen enough"

    endpoint = Endpoint(server, "fake", 4096, authorization="Bearer s3cr3t")
    requests = requests_for(PLAIN, fake.prompt_tokens(fake.silence))
    replay(endpoint, requests, ClosedLoop(2), a_window(), look_after(watch=watch))
    assert [entry["authorization"] for entry in journal(server)["entries"]] == ["Bearer s3cr3t"] * 2
    assert written and not any(b"s3cr3t" in content for content in written)
    assert "s3cr3t" not in repr(endpoint)


class Arrivals:
    """How many requests have come to the server since this was made."""

    def __init__(self, url: str) -> None:
        self.so_far = 0
        self._url = url
        journal(url)

    def wait_for(self, more: int) -> None:
        enough = self._now() + more
        wait_until(lambda: self._now() >= enough)

    def _now(self) -> int:
        self.so_far += len(journal(self._url)["entries"])
        return self.so_far


def test_while_the_supervising_process_stands_still_the_load_goes_on_and_nothing_is_lost_or_stamped_late(server):
    """What the workers have to say meanwhile is several times what the pipe between them holds."""
    arrivals = Arrivals(server)
    still_s: list[float] = []

    def stand_still(_log: RequestLog) -> None:
        if not still_s:
            still_s.append(time.perf_counter())
            arrivals.wait_for(400)
            still_s.append(time.perf_counter())

    requests = requests_for(*[PLAIN] * 4000, gap=1.0)
    log = run(server, requests, OpenLoop(200.0), a_window(measure_s=1.5), watch=stand_still)
    assert log.began_s is not None and len(log) >= arrivals.so_far
    assert (log.status[log.counted] == Status.OK).all()
    stamps_s = log.began_s + log.chunk_s
    assert ((stamps_s > still_s[0]) & (stamps_s < still_s[1])).any()


def test_a_supervisor_that_takes_long_over_every_look_catches_up_between_two(server):
    arrivals = Arrivals(server)
    came: list[int] = []

    def look_long(log: RequestLog) -> str | None:
        if came and len(log) >= came[0]:
            return "caught up"
        arrivals.wait_for(300)
        came.append(arrivals.so_far)
        return None

    log = run(server, requests_for(*[PLAIN] * 4000, gap=1.0), OpenLoop(200.0), watch=look_long)
    assert log.stopped == "caught up"
    assert len(came) < 4


def test_a_server_that_dies_ends_the_probe_and_leaves_no_worker():
    with fake.running() as (url, process):

        def check_alive() -> None:
            if process.poll() is not None:
                raise ServerFailed(Fault(FailureKind.DIED_UNDER_LOAD), "server exited")

        requests = requests_for(fake.prompt_tokens(fake.death), *[PLAIN] * 1000)
        with pytest.raises(ServerFailed, match="server exited"):
            run(url, requests, ClosedLoop(1), check_alive=check_alive)
    assert workers_left() == []


def test_no_descriptor_is_left_open_behind_a_probe_that_fails(server):
    def open_descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def check_alive() -> None:
        raise ServerFailed(Fault(FailureKind.DIED_UNDER_LOAD), "server exited")

    before = open_descriptors()
    with pytest.raises(ServerFailed) as failed:
        run(server, requests_for(*[PLAIN] * 1000), ClosedLoop(1), check_alive=check_alive)
    # What has failed is still there, with all that its traceback holds on to.
    assert failed.value and open_descriptors() == before


def test_a_worker_that_is_killed_makes_the_measurement_void(server):
    def kill(log: RequestLog) -> None:
        for pid in workers_left():
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(MeasurementVoid, match="killed by SIGKILL"):
        run(server, requests_for(fake.prompt_tokens(fake.silence)), ClosedLoop(1), watch=kill)


@pytest.mark.parametrize("load", [ClosedLoop(4), OpenLoop(100.0)])
def test_several_workers_share_a_load_and_a_clock(server, load):
    requests = requests_for(*[PLAIN] * 20, turns=2, gap=1.0)
    log = run(server, requests, load, workers=2)
    assert sorted(log.request.tolist()) == list(range(20))
    assert (log.status == Status.OK).all()
    assert (np.diff(log.due_s) >= 0).all()
    assert log.client is not None and log.client.workers == 2
    assert np.sort(log.due_s)[[0, -1]] == pytest.approx([0, log.ended_s], abs=CLOCK_ERROR_S)


def test_a_client_that_was_late_makes_the_measurement_void(server):
    with pytest.raises(MeasurementVoid, match=r"ms late at p99 .*give the client its own CPU cores"):
        run(server, requests_for(*[PLAIN] * 3, gap=1.0), OpenLoop(100.0), send_lag_limit_s=-1.0)


@pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_tuner(server, request_to_end):
    journal(server)
    with a_tuner(server) as tuner:
        wait_until(lambda: journal(server)["entries"] != [])
        workers = psutil.Process(tuner.pid).children()
        assert len(workers) == 1
        os.kill(tuner.pid, request_to_end)
        wait_until(lambda: not any(map(is_running, workers)))


@contextmanager
def a_tuner(url: str) -> Iterator["subprocess.Popen[bytes]"]:
    script = f"""
        import tests.test_load_replay as t
        requests = t.requests_for(t.fake.prompt_tokens(t.fake.silence))
        t.run({url!r}, requests, t.ClosedLoop(1))
    """
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], env=env, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def is_running(process: psutil.Process) -> bool:
    try:
        # An orphan is buried by the machine's first process, which may take its time.
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
