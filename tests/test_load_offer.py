"""When requests are sent: open and closed loops, ramps, turns, and several workers that share a load."""

import time

import numpy as np
import pytest

from tests.fakes import openai_server as fake
from tests.replays import CLOCK_ERROR_S, PATIENCE_S, PLAIN, a_window, journal, requests_for, run
from tuner.load.offer import REFUSAL_PAUSE_S
from tuner.requestlog import Status
from tuner.target import ClosedLoop, OpenLoop


def test_a_user_who_was_turned_away_pauses_before_asking_again():
    log = run("http://127.0.0.1:1", requests_for(PLAIN, PLAIN), ClosedLoop(1))
    assert log.due_s[1] == pytest.approx(log.ended_at_s[0] + REFUSAL_PAUSE_S)


def test_an_open_loop_keeps_its_schedule_and_counts_what_is_due_in_the_window(fake_server):
    window = a_window(warmup_s=0.1, measure_s=0.2)
    log = run(fake_server, requests_for(*[PLAIN] * 200, gap=1.0), OpenLoop(50.0), window)
    assert log.due_s == pytest.approx(np.arange(1, len(log) + 1) / 50)
    assert log.began_s is not None and log.began_s + log.ended_s < time.perf_counter()
    assert (log.counted == ((log.due_s >= 0.1) & (log.due_s < 0.1 + 0.2))).all()
    assert (log.status[log.counted] == Status.OK).all()
    assert log.due_s.max() >= window.end_s, "the load goes on until the last counted request has ended"
    assert (log.warmup_s, log.window_s) == (0.1, 0.2)


def test_what_runs_outside_the_window_at_the_end_is_unfollowed_not_an_error(fake_server):
    silent = fake.prompt_tokens(fake.silence)
    requests = requests_for(silent, *[PLAIN] * 10, *[silent] * 90, gap=1.0)
    log = run(fake_server, requests, OpenLoop(50.0), a_window(warmup_s=0.03, measure_s=0.2))
    assert log.request[log.counted].tolist() == list(range(1, 11))
    assert (log.status[log.counted] == Status.OK).all()
    assert (log.status[~log.counted] == Status.UNFOLLOWED).all()
    assert log.errors == ()
    assert log.ended_s < PATIENCE_S


def test_a_closed_loop_keeps_exactly_its_users_in_flight(fake_server):
    journal(fake_server)
    log = run(fake_server, requests_for(*[PLAIN] * 12), ClosedLoop(3))
    assert journal(fake_server)["most_in_flight"] == 3
    in_flight = [int(((log.sent_s <= at) & (at < log.ended_at_s)).sum()) for at in np.sort(log.sent_s)]
    assert in_flight[:9] == [1, 2] + [3] * 7
    assert log.due_s[3:].tolist() == sorted(log.ended_at_s)[:9]


@pytest.mark.parametrize("workers", [1, 2])
def test_users_of_a_ramp_join_one_by_one(fake_server, workers):
    load, window = ClosedLoop(4, joining_s=0.3), a_window(measure_s=1.2)
    log = run(fake_server, requests_for(*[PLAIN] * 200), load, window, workers=workers)
    for users in range(1, 5):
        at_s = 0.3 * users - 0.05
        assert ((log.due_s <= at_s) & ~(log.ended_at_s <= at_s)).sum() <= users
    assert log.due_s.min() == 0
    assert [round(float(log.due_s[log.due_s >= 0.3 * user].min()), 6) for user in range(1, 4)] == [0.3, 0.6, 0.9]
    assert (log.status[log.counted] == Status.OK).all()


def test_no_request_waits_in_the_client_for_another_to_end(fake_server):
    log = run(fake_server, requests_for(*[fake.prompt_tokens(fake.crowd)] * fake.CROWD), ClosedLoop(fake.CROWD))
    assert (log.status == Status.OK).all()


def test_a_turn_is_due_its_think_time_after_the_turn_before(fake_server):
    log = run(fake_server, requests_for(*[PLAIN] * 6, turns=3, think_s=0.05), ClosedLoop(2))
    by_row = np.argsort(log.request)
    due_s, ended_at_s = log.due_s[by_row], log.ended_at_s[by_row]
    later_turns = np.array([1, 2, 4, 5])
    assert due_s[later_turns] == pytest.approx(ended_at_s[later_turns - 1] + 0.05)
    assert (log.sent_s >= log.due_s).all()


@pytest.mark.parametrize("load", [ClosedLoop(4), OpenLoop(100.0)])
def test_several_workers_share_a_load_and_a_clock(fake_server, load):
    requests = requests_for(*[PLAIN] * 20, turns=2, gap=1.0)
    log = run(fake_server, requests, load, workers=2)
    assert sorted(log.request.tolist()) == list(range(20))
    assert (log.status == Status.OK).all()
    assert (np.diff(log.due_s) >= 0).all()
    assert log.client is not None and log.client.workers == 2
    assert np.sort(log.due_s)[[0, -1]] == pytest.approx([0, log.ended_s], abs=CLOCK_ERROR_S)
