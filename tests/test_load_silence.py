"""For how long a server has said nothing to those who wait for it."""

from array import array

from tests.test_open import some_requests
from tuner.load.log import Transcript
from tuner.load.wire import Batch, Ended, Ending, Sent
from tuner.target import Window


def a_batch(
    sent: dict[int, float] | None = None, read: dict[int, float] | None = None, ended: list[Ended] | None = None
) -> Batch:
    """Requests sent, and a byte read of others, each by row and time."""
    read = read or {}
    return Batch(
        array("d", read.values()), array("q", read), array("q", [1] * len(read)), b"d" * len(read),
        [Sent(row, at_s, at_s) for row, at_s in (sent or {}).items()], ended or [],
    )  # fmt: skip


def silent_after(*batches: Batch, now_s: float) -> float:
    transcript = Transcript(some_requests(10), Window(0.0, 100.0, 100.0))
    for batch in batches:
        transcript.take(batch)
    return transcript.silent_s(now_s)


def test_nobody_waits_for_a_server_without_requests() -> None:
    assert silent_after(now_s=50.0) == 0
    answered = [Ended(0, 2.0, Ending.BODY_ENDED, 200)]
    assert silent_after(a_batch({0: 1.0}), a_batch(ended=answered), now_s=50.0) == 0


def test_silence_counts_from_the_first_request_or_the_last_byte() -> None:
    assert silent_after(a_batch({0: 1.0}), a_batch({1: 5.0}), now_s=10.0) == 9.0
    assert silent_after(a_batch({0: 1.0, 1: 1.0}), a_batch(read={0: 4.0}), now_s=10.0) == 6.0


def test_a_request_that_times_out_does_not_end_the_silence_but_a_refusal_does() -> None:
    late = [Ended(0, 4.0, Ending.TIMED_OUT, 0)]
    assert silent_after(a_batch({0: 1.0}), a_batch(ended=late), a_batch({1: 5.0}), now_s=10.0) == 9.0
    refused = [Ended(0, 4.0, Ending.BROKE, 0)]
    assert silent_after(a_batch({0: 1.0, 1: 1.0}), a_batch(ended=refused), now_s=10.0) == 6.0
