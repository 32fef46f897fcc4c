"""Finished: a finished probe of a bench, as it is told, kept and concluded from. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.latencies import Percentiles, own_itl_s, percentiles
from tuner.mishaps import Concern, Mishap, mishaps, silence
from tuner.probe import ProbeStage, Recorded
from tuner.requestlog import RequestLog, Status
from tuner.requests import BoolArray
from tuner.score import Score

# More requests on the server than were ever ours at one time, by this factor and one more, are somebody else's.
CLEARLY_MORE = 1.1


@dataclass(frozen=True)
class Finished:
    """A probe that has ended. `own_itl_s`: percentiles over its healthy counted answers of the P99 of each answer's
    own gaps, which is what a limit on ITL is about; None where none has a gap, or nobody kept them."""

    stage: ProbeStage
    score: Score
    own_itl_s: Percentiles | None = None
    caveats: tuple[Mishap, ...] = ()


def finished(probe: Recorded) -> Finished:
    """What is told and kept of a probe."""
    return Finished(probe.stage, probe.score, own_gaps(probe.log, probe.log.counted), tuple(caveats(probe)))


def own_gaps(log: RequestLog, rows: BoolArray) -> Percentiles | None:
    """The P99 gap of each healthy answer of `rows` (n,), in percentiles over these."""
    return percentiles(own_itl_s(log)[rows & (log.status == Status.OK)])


def caveats(probe: Recorded) -> Iterator[Mishap]:
    """What was not right about a probe that counts all the same, on a server that may serve others, too."""
    others = _idle_traffic(probe.log) if probe.stage == "idle" else _traffic(probe.log)
    if others:
        yield Mishap("other-traffic", f"{others}: somebody else uses the server, and what is measured is of both")
    if probe.stage == "idle":
        yield from silence("the server", [probe])
    yield from mishaps([probe])


def watch_lines(probes: Sequence[Finished]) -> tuple[str, ...]:
    """All their caveats, each concern once: in the words of the last probe that has it, for loads come last."""
    told: dict[Concern, list[str]] = {}
    for probe in probes:
        for caveat in probe.caveats:
            told.setdefault(caveat.concern, []).append(caveat.text)
    return tuple(
        text[-1] if len(text) == 1 or concern == "silent" else f"in {len(text)} of {len(probes)} probes: {text[-1]}"
        for concern, text in told.items()
    )


def _idle_traffic(log: RequestLog) -> str:
    """Before the first of our requests nothing may run, and beside them, one at a time, nothing else."""
    seen = [
        (scrape.at_s, _there(scrape.values.get("running"), scrape.values.get("waiting"))) for scrape in log.scrapes
    ]
    before = max((count for at_s, count in seen if at_s <= 0), default=0.0)
    beside = max((count - 1 for at_s, count in seen if at_s > 0), default=0.0)
    if max(before, beside) < 1:
        return ""
    when = "before ours began" if before >= beside else "beside ours, which were one at a time"
    count = int(max(before, beside))
    return f"the server had {count} other request{'s' if count > 1 else ''} {when}"


def _traffic(log: RequestLog) -> str:
    """The median of what it says it had in the window, where it is clearly more than were ever ours together."""
    if log.engine is None:
        return ""
    usual, ours = _there(log.engine.running, log.engine.waiting), most_open(log)
    if usual <= CLEARLY_MORE * ours + 1:
        return ""
    return f"the server had {usual:.0f} requests at a time, of which at most {ours} were ours"


def _there(running: float | None, waiting: float | None) -> float:
    return (running or 0.0) + (waiting or 0.0)


def most_open(log: RequestLog) -> int:
    """How many of its requests were under way together at most."""
    sent = log.sent_s[~np.isnan(log.sent_s)]
    ended = np.where(np.isnan(log.ended_at_s), np.inf, log.ended_at_s)[~np.isnan(log.sent_s)]
    changes = np.concatenate([np.ones(len(sent)), -np.ones(len(ended))])
    order = np.lexsort((changes, np.concatenate([sent, ended])))
    return int(np.cumsum(changes[order]).max(initial=0))
