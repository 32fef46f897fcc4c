"""Rescore a bench: the raw timings of a server that was measured, under another SLO, without the server.

Probes are judged anew by the rules of `score`, and the server by those of `bench`. As for a study, a probe that was
stopped early counts only where the new SLO would have stopped it by then too, and no load is invented.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.benched import Benched, cannot_hold, concluded
from tuner.benchfolder import StoredBench, StoredProbe, read_bench, timings
from tuner.benchorder import Bench
from tuner.config.slo import Slo
from tuner.errors import ConfigError
from tuner.goodput import MAX_PROBES, Search, next_level
from tuner.latencies import percentiles
from tuner.rescore import is_usable, stored_probes
from tuner.score import scored_again
from tuner.trial import question_of


@dataclass(frozen=True)
class RescoredBench:
    """A bench as its raw timings would have it under another SLO, which `bench` has; `was` is its own.

    `unusable` probes were stopped before they showed what the new SLO asks. `is_open_ended`: a search under it would
    go on, to loads that were not offered, so that the server may be worth more.
    """

    bench: StoredBench
    found: Benched
    was: Slo
    unusable: int
    is_open_ended: bool


def rescore_bench(folder: Path, slo: Slo) -> RescoredBench:
    """The bench in `folder` under `slo`; reads only. Raises ConfigError where its files do not suffice."""
    before = read_bench(folder)
    order = replace(before.order, slo=slo)
    if order.is_ramp:
        raise ConfigError(f"{folder}: its users joined one by one, and such a ramp cannot be scored again")
    judged = [_judged(folder, probe, slo) for probe in before.probes]
    usable = [probe for probe in judged if probe is not None]
    found = replace(concluded(order, before.described.engine, usable), cut=before.cut)
    return RescoredBench(
        bench=replace(before, order=order, probes=tuple(usable)),
        found=found,
        was=before.order.slo,
        unusable=len(judged) - len(usable),
        is_open_ended=_is_open_ended(order, usable),
    )


def _judged(folder: Path, probe: StoredProbe, slo: Slo) -> StoredProbe | None:
    """The probe under `slo`; None where it was stopped before it could say."""
    path = timings(folder, probe.number)
    raw = next(iter(stored_probes(path)), None)
    if raw is None or raw.load != probe.score.load:
        raise ConfigError(f"{path}: it does not hold the probe that probes.jsonl speaks of")
    if not is_usable(raw, slo):
        return None
    own_itl_s = percentiles(raw.itl_p99_s[raw.counted & raw.ended_well])
    return replace(probe, score=scored_again(probe.score, raw.answers, slo.limits), own_itl_s=own_itl_s)


def _is_open_ended(order: Bench, probes: Sequence[StoredProbe]) -> bool:
    """Whether a search would go on from these probes."""
    idle = [probe.score for probe in probes if probe.stage == "idle"]
    if not order.is_search or any(cannot_hold(order, score) for score in idle):
        return False
    scores = [probe.score for probe in probes if probe.stage != "idle"]
    if not scores:
        return True
    search = Search(question_of(order.slo, order.workload, order.gpus), scores)
    return len(scores) < MAX_PROBES and next_level(search) is not None
