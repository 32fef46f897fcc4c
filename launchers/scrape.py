"""Scrape: an engine's own metrics while it is probed, fetched as text and read into neutral names afterwards."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from types import MappingProxyType

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from launchers.engine import EngineMetrics, Metric
from tuner.engineview import GAUGES, Name, Scrape

# After so many failures in a row the server is left alone for the rest of the probe.
PATIENCE = 3
# Both engines answer from the loop that streams tokens, and no token moves meanwhile (vLLM 0.32: 5 ms, SGLang 0.5.23:
# 8 to 30 ms on a busy CPU). So many times of what a look took pass until the next; but one that took long may only
# have waited for its turn.
RESTS, LONGEST_REST_S = 500, 10.0
# A busy server answers late; the process that waits for it here looks after the probe.
TIMEOUT_S = 2.0
# Packing the text would keep the server busy for longer.
PLAIN = {"accept-encoding": "identity"}
AVERAGED = ("kv_used_frac", "accepted_frac")


@dataclass
class Scraper:
    """Looks at the metrics at `url`. `is_there` is None until asked: whether the server exports any."""

    client: httpx.Client
    url: str
    metrics: EngineMetrics
    is_there: bool | None = None
    _texts: list[tuple[float, str]] = field(default_factory=list)
    _failures: int = 0
    _rest_until_s: float = 0.0

    def begin(self) -> None:
        """Another probe begins: forget what was seen before, and look for the first time."""
        self._texts.clear()
        self._failures = 0
        self._look()

    def pass_by(self) -> None:
        """Look, if the server has been left alone for long enough."""
        if perf_counter() >= self._rest_until_s:
            self._look()

    def end(self) -> None:
        """The probe is over: look for the last time."""
        self._look()

    def _look(self) -> None:
        """That the server does not answer, or exports nothing, costs a look and is no failure of it."""
        if self.is_there is False or self._failures >= PATIENCE:
            return
        at_s = perf_counter()
        try:
            answer = self.client.get(self.url)
        except httpx.TransportError:
            self._failures += 1
            return
        finally:
            now_s = perf_counter()
            self._rest_until_s = now_s + min(RESTS * (now_s - at_s), LONGEST_REST_S)
        self._failures = 0
        self.is_there = self.is_there or answer.is_success
        if answer.is_success:
            self._texts.append((at_s, answer.text))

    def scrapes(self, began_s: float) -> tuple[Scrape, ...]:
        """What was seen since `begin`, of a probe that began at `began_s` on the clock of `perf_counter`."""
        return tuple(read(text, self.metrics, at_s - began_s) for at_s, text in self._texts)


@contextmanager
def scraping(
    url: str, metrics: EngineMetrics, headers: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Scraper]:
    """A scraper for the length of a block, which asks with `headers`. An engine of whose metrics no name is known is
    not asked."""
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False, headers={**PLAIN, **headers}) as client:
        yield Scraper(client, url, metrics, is_there=None if metrics.values else False)


def read(text: str, metrics: EngineMetrics, at_s: float) -> Scrape:
    """One exposition in Prometheus text format, under neutral names."""
    samples = _wanted(text, metrics)
    values: dict[Name, float] = dict.fromkeys(metrics.unsaid_zeros, 0.0) if samples else {}
    for name, sources in metrics.values.items():
        found = next((some for source in sources if (some := list(_of(samples, source)))), [])
        if found:
            total = sum(sample.value for sample in found)
            values[name] = total / len(found) if name in AVERAGED else total
    bounds_s, counts = _queue(samples, metrics.queue_time)
    return Scrape(at_s, _meant(values), bounds_s, counts)


def _wanted(text: str, metrics: EngineMetrics) -> dict[str, list[Sample]]:
    """The samples that are looked at, by name; only their lines are parsed, for an engine exports thousands."""
    names = {source.name for sources in metrics.values.values() for source in sources}
    names.add(f"{metrics.queue_time}_bucket")
    lines = [line for line in text.splitlines() if line.partition("{")[0].partition(" ")[0] in names]
    samples: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families("\n".join([*lines, ""])):
        for sample in family.samples:
            if all(sample.labels.get(rank, "0") == "0" for rank in metrics.ranks):
                samples.setdefault(sample.name, []).append(sample)
    return samples


def _of(samples: Mapping[str, list[Sample]], source: Metric) -> Iterator[Sample]:
    for sample in samples.get(source.name, ()):
        if not source.label or sample.labels.get(source.label) in source.among:
            yield sample


def _queue(samples: Mapping[str, list[Sample]], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Bounds and counts of the histogram of queue times, all its label sets together."""
    counts: dict[float, float] = {}
    for sample in samples.get(f"{name}_bucket", ()):
        bound_s = float(sample.labels["le"])
        counts[bound_s] = counts.get(bound_s, 0.0) + sample.value
    bounds_s = tuple(sorted(counts))
    return bounds_s, tuple(counts[bound_s] for bound_s in bounds_s)


def _meant(values: Mapping[Name, float]) -> dict[Name, float]:
    """An engine may export NaN for a gauge that was never set, and an acceptance of 0 where it does not guess."""
    is_set = {name: value for name, value in values.items() if name not in GAUGES or math.isfinite(value)}
    return {name: value for name, value in is_set.items() if name != "accepted_frac" or value}
