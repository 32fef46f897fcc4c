"""Mishaps: what was not right about probes that count all the same, in words. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tuner.probe import Recorded
from tuner.requestlog import RequestLog
from tuner.score import Score

# Of a probe's wall time. A client that waits more for a core may have spoilt it, though not so much that it is void.
WAITING_FRAC = 0.05
KINDS_OF_ERRORS = 3


Concern = Literal["other-traffic", "silent", "errors", "twice", "waited", "leftovers"]


@dataclass(frozen=True)
class Mishap:
    """What a reader of probes' figures should know: which concern it is, and a sentence."""

    concern: Concern
    text: str


def mishaps(probes: Sequence[Recorded]) -> Iterator[Mishap]:
    """Why requests failed, the first few kinds; which probes were measured twice; what may be the client's own doing;
    a cache not empty."""
    errors = sorted({error for one in probes for error in one.log.errors})
    if errors:
        yield Mishap("errors", f"some requests failed: {'; '.join(errors[:KINDS_OF_ERRORS])}")
    voided = [one.log.client.voided for one in probes if one.log.client and one.log.client.voided]
    if voided:
        several = f"{len(voided)} of {len(probes)} probes " if len(probes) > 1 else ""
        yield Mishap("twice", f"{several}measured twice: {voided[0]}")
    yield from _waiting(probes)
    yield from _leftovers([one.score for one in probes])


def _waiting(probes: Sequence[Recorded]) -> Iterator[Mishap]:
    """That workers were kept from a core for more than WAITING_FRAC of a probe, which looks like a slow server."""
    shares = [_waiting_frac(one.log) for one in probes]
    found = [frac for frac in shares if frac > WAITING_FRAC]
    if found:
        yield Mishap(
            "waited",
            f"{_in_some(len(found), len(shares))}the load generator waited for a core {max(found):.0%} of the time: "
            "some of the latency may be its own, not the server's; give the client its own CPU cores",
        )


def _waiting_frac(log: RequestLog) -> float:
    """The mean of its workers."""
    client = log.client
    return client.run_queue_wait_s / (client.workers * log.ended_s) if client and log.ended_s > 0 else 0.0


def _leftovers(scores: Sequence[Score]) -> Iterator[Mishap]:
    """That the prefix cache had prompts of before the probe, which makes a server look better than it is."""
    found = [frac for score in scores if score.health and (frac := score.health.leftover_frac)]
    if found:
        most, looks = ("up to ", "they look") if len(scores) > 1 else ("", "it looks")
        yield Mishap(
            "leftovers",
            f"{_in_some(len(found), len(scores))}the prefix cache had {most}{max(found):.0%} of the prompt tokens "
            "that nothing in the probe had put there: they were left in it by what was sent before, so "
            f"{looks} too good",
        )


def _in_some(found: int, probes: int) -> str:
    return f"in {found} of {probes} probes " if probes > 1 else ""


def silence(engine: str, probes: Sequence[Recorded]) -> Iterator[Mishap]:
    """That an engine says nothing of itself, and what follows from it."""
    if probes and not any(one.log.scrapes for one in probes):
        unseen = "its queue, cache and batches are not seen, and TTFT stands for queueing"
        yield Mishap("silent", f"{engine} exports no metrics: {unseen}")
