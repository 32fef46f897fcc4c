"""What the simulated engine says of itself at `/metrics`: Prometheus text under the real engine's names. Pure.

Besides, `goodtune:step_lateness_seconds`: how far its steps were behind their own schedule.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf

from launchers.sim.families import Family, families
from launchers.sim.lateness import BOUNDS_S
from launchers.sim.realtime import RealTime
from launchers.sim.tally import Histogram

LATENESS = "goodtune:step_lateness_seconds"


def exposition(engine: str, model: str, copies: Sequence[RealTime]) -> str:
    """Gauges, counters and histograms, each of every copy."""
    labels = [_labels(engine, model, number) for number in range(len(copies))]
    lines = (
        line for family in families(engine, copies[0].settings.drafts > 0) for line in _lines(family, labels, copies)
    )
    return "\n".join([*lines, *_lateness(labels, copies)]) + "\n"


def _labels(engine: str, model: str, copy: int) -> str:
    if engine == "vllm":
        return f'engine="{copy}",model_name="{model}"'
    return f'dp_rank="{copy}",engine_type="unified",model_name="{model}",pp_rank="0",tp_rank="0"'


def _lines(family: Family, labels: Sequence[str], copies: Sequence[RealTime]) -> Iterator[str]:
    yield from _head(family.name, family.kind, family.help)
    for own, copy in zip(labels, copies, strict=True):
        said = family.of(copy)
        match said:
            case Histogram():
                counts = zip(said.bounds, accumulate(said.counts), strict=True)
                yield from _histogram(family.name, own, list(counts), said.sum)
            case Mapping():
                for value, number in said.items():
                    yield f'{family.name}{{{own},{family.label}="{value}"}} {number}'
            case _:
                yield f"{family.name}{{{own}}} {said}"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _lateness(labels: Sequence[str], copies: Sequence[RealTime]) -> Iterator[str]:
    yield from _head(LATENESS, "histogram", "How long after its due time a step's tokens were written.")
    for own, copy in zip(labels, copies, strict=True):
        counts = [(bound_s, copy.lateness.within(bound_s)) for bound_s in BOUNDS_S]
        yield from _histogram(LATENESS, own, [*counts, (inf, copy.lateness.steps)], copy.lateness.sum_s)


def _histogram(name: str, labels: str, counts: Sequence[tuple[float, int]], total: float) -> Iterator[str]:
    """`counts` holds each bound and how many were at most that, the last one all."""
    for bound, count in counts:
        yield f'{name}_bucket{{{labels},le="{"+Inf" if bound == inf else float(bound)}"}} {count}'
    yield f"{name}_sum{{{labels}}} {total}"
    yield f"{name}_count{{{labels}}} {counts[-1][1]}"
