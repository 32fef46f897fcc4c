"""Truth by brute force: the value of a simulated server as docs/measurement.md defines it.

Attainment in windows of 120 s of arrivals after 15 s of warm-up (longer where the attainment needs more requests), in
the mean over independent traces, on a grid of loads. Windows are kept in a file per case: the next run is quick.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from goodput_cases import Case, open_case, plan_of

from tuner.config.slo import Slo
from tuner.probe import Prober
from tuner.score import Score
from tuner.target import OpenLoop

STEP = 1.02
"""Loads of the grid are powers of STEP, req/s."""

POWER_NEAR = 0.06
FIRST_SEED = 7_000_000
COARSE_TRACES, COARSE_STRIDE = 3, 4
TRACES, SURE = (24, 48, 96), 0.01
"""So many traces, the first number of them that makes the value's standard error small enough."""

REACH = 2

SIMULATED_BY = ("launchers/sim", "search_spaces", "tuner/workload")
"""All that a simulated window depends on: another simulation has another truth."""


@dataclass(frozen=True)
class Truth:
    """`value_rps` is the server's highest mean goodput among loads that hold the SLO, `level` the load where it is.

    `rates` ascending (n,), `attainment` (n,) in the mean over traces, `spread` (n,) its deviation between them.
    `least_bad` is the share of bad requests below which so many traces tell nothing.
    """

    value_rps: float
    level: float
    rates: tuple[float, ...]
    attainment: tuple[float, ...]
    spread: tuple[float, ...]
    wanted: float
    traces: int
    least_bad: float

    def attainment_at(self, rate_rps: float) -> float:
        """Mean attainment between the loads of the grid; beyond the grid its ends'."""
        return float(_between(np.array(self.rates), np.array(self.attainment), self.least_bad, np.array(rate_rps)))

    @property
    def power(self) -> float:
        """The odds of a bad request grow as the load to this power, near `level`."""
        seen = [(rate, share) for rate, share in zip(self.rates, self.attainment, strict=True) if 0 < share < 1]
        rates, shares = np.array(seen).T
        near = np.exp(-0.5 * (np.log(rates / self.level) / POWER_NEAR) ** 2)
        return float(np.polyfit(np.log(rates), np.log((1 - shares) / shares), 1, w=near)[0])

    @property
    def slope(self) -> float:
        """What attainment loses per unit of log load at `level`."""
        share = self.attainment_at(self.level)
        return float(self.power * share * (1 - share))

    @property
    def value_error(self) -> float:
        """Standard error of the value, relative to it: of the edge's load, or of the peak's attainment."""
        error = self._spread_at_level() / self.traces**0.5
        return float(error / (self.slope if self.wanted > 0 else self.attainment_at(self.level)))

    def dispersion(self, slo: Slo) -> float:
        """Variance of a window's attainment over that of as many independent requests, at `level`."""
        share, counted = self.attainment_at(self.level), max(slo.window_s * self.level, slo.deciding_requests)
        return self._spread_at_level() ** 2 / (share * (1 - share) / counted)

    def _spread_at_level(self) -> float:
        return float(np.interp(np.log(self.level), np.log(self.rates), self.spread))


class Windows:
    """Attainment of whole windows by load and trace: measured on demand, kept in `path`."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self._path = folder / f"{case.key}.json"
        self._known: dict[str, dict[str, float]] = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._target = open_case(case)

    def attainment(self, rate_rps: float, traces: int) -> np.ndarray:
        """Attainment of the first `traces` windows at a rate, (traces,)."""
        known = self._known.setdefault(f"{rate_rps:.6g}", {})
        for trace in range(traces):
            if str(trace) not in known:
                known[str(trace)] = self._measure(rate_rps, trace).attainment
        self.save()
        return np.array([known[str(trace)] for trace in range(traces)])

    def save(self) -> None:
        """Write what is known."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._known))

    def _measure(self, rate_rps: float, trace: int) -> Score:
        plan = plan_of(self.case)
        prober = Prober(self._target, plan.workload, plan.slo, FIRST_SEED + trace, stage="confirm")
        return prober.measure_for(OpenLoop(rate_rps), max(plan.slo.window_s, plan.slo.deciding_requests / rate_rps))


def truth_of(windows: Windows, traces: Sequence[int] = TRACES, sure: float = SURE) -> Truth:
    """Brute force over more and more traces, until the value's standard error, relative to it, is at most `sure`."""
    for count in traces:
        found = _over(windows, count)
        if found.value_error <= sure:
            break
    return found


def _over(windows: Windows, traces: int) -> Truth:
    """Brute force around the best load of a coarse look; the last word is the mean over `traces`."""
    if windows.case.attainment > 0:
        low = _edge_power(windows)
        grid = set(range(low - REACH, low + COARSE_STRIDE + REACH + 1, 2))
        while (means := _means(windows, grid, traces)) and min(means.values()) >= windows.case.attainment:
            grid |= {max(grid) + 2, max(grid) + 4}
        while max(means.values()) < windows.case.attainment:
            grid |= {min(grid) - 2, min(grid) - 4}
            means = _means(windows, grid, traces)
        grid |= {max(power for power, mean in means.items() if mean >= windows.case.attainment) + 1}
    else:
        top = _peak_power(windows)
        grid = set(range(top - 4, top + 5, 2))
        while (best := _best(_means(windows, grid, traces))) in {min(grid), max(grid)}:
            grid |= {best - 2, best + 2}
        grid |= {best - 1, best + 1}
    return _truth(windows, sorted(grid), traces)


def _truth(windows: Windows, grid: list[int], traces: int) -> Truth:
    wanted = windows.case.attainment
    samples = [windows.attainment(STEP**power, traces) for power in grid]
    rates = np.array([STEP**power for power in grid])
    means = np.array([sample.mean() for sample in samples])
    spreads = tuple(float(sample.std(ddof=1)) for sample in samples)
    slo = plan_of(windows.case).slo
    least_bad = 0.5 / (traces * max(slo.window_s * rates[0], slo.deciding_requests))
    fine = np.union1d(np.geomspace(rates[0], rates[-1], 2001), rates)
    attainment = _between(rates, means, least_bad, fine)
    goodput = np.where(attainment >= wanted, fine * attainment, 0.0)
    best = int(goodput.argmax())
    found = (tuple(rates.tolist()), tuple(means.tolist()), spreads)
    return Truth(float(goodput[best]), float(fine[best]), *found, wanted, traces, least_bad)


def _between(rates: np.ndarray, means: np.ndarray, least_bad: float, at: np.ndarray) -> np.ndarray:
    """Attainment `at` loads between `rates`: log odds on a straight line over log load.

    On a straight line of attainment itself an edge at a cliff comes out by as much as 2 % too low.
    """
    bad = np.clip(1 - means, least_bad, 1 - least_bad)
    odds = np.exp(np.interp(np.log(at), np.log(rates), np.log(bad / (1 - bad))))
    return np.asarray(1 / (1 + odds))


def fingerprint(*parts: str) -> str:
    """Of these files and folders of the project."""
    root, digest = Path(__file__).parent.parent, sha256()
    for part in map(root.joinpath, parts):
        for path in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _means(windows: Windows, grid: Iterable[int], traces: int) -> dict[int, float]:
    return {power: float(windows.attainment(STEP**power, traces).mean()) for power in grid}


def _best(means: dict[int, float]) -> int:
    return max(means, key=lambda power: means[power] * STEP**power)


def _edge_power(windows: Windows) -> int:
    """A multiple of COARSE_STRIDE that holds the SLO, where the next one does not, on a few traces."""

    def holds(steps: int) -> bool:
        mean = windows.attainment(STEP ** (steps * COARSE_STRIDE), COARSE_TRACES).mean()
        return bool(mean >= windows.case.attainment)

    low, high = 0, 0
    while holds(high):
        low, high = high, high + 8
    while not holds(low):
        low, high = low - 8, low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low * COARSE_STRIDE


def _peak_power(windows: Windows) -> int:
    """The multiple of COARSE_STRIDE with the highest goodput on a few traces: up until goodput has halved."""
    powers, goodput = [0], {0: 0.0}
    while goodput[powers[-1]] >= 0.5 * max(goodput.values()):
        power = powers[-1] + COARSE_STRIDE
        powers.append(power)
        goodput[power] = STEP**power * float(windows.attainment(STEP**power, COARSE_TRACES).mean())
    return max(goodput, key=lambda power: goodput[power])
