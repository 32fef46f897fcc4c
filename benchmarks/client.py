"""The load generator against a server whose every write is known, beside other clients.

    python benchmarks/client.py [--quick] [--alone] [--only steady,waves] [--rounds 3] [--cores 0,1,2] [--realtime]
        [--vllm PATH/vllm] [--guidellm PATH/guidellm] [--tokenizer DIR] [--out benchmarks/client.md]

The server (`schedule_server.c`, compiled with `cc`) has the first of the cores for itself, all clients the others.
The load generator is measured as the product uses it: `tuner.load.replay` offers requests and gives a RequestLog,
whose times are compared with the server's journal. A round in which the server was late is void. Of `--rounds` rounds
the half in which the processes waited least for a core is kept, and medians of that are shown; exits 1 where a bar is
missed. The whole takes about 20 minutes and wants a machine with nothing else to do.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import peers
from client_table import Row, table
from comparison import Seen, compared, errors
from known_schedule import MODEL, Journal, KnownServer, Schedule, compiled, key_of, serving

from tuner.config.slo import Limits
from tuner.load.prompts import Bodies
from tuner.load.replay import Endpoint, Supervision, replay
from tuner.load.validity import Tolerance
from tuner.requestlog import RequestLog
from tuner.requests import Requests, Segment
from tuner.score import score
from tuner.target import ClosedLoop, Load, OpenLoop, Window

VOCAB = 32_000
PROMPT_TOKENS = 256
WARMUP_S = 2.0
TIMEOUT_S = 60.0
# A write takes about 10 µs, so the last chunk of a burst is written so much later than the first.
SERVER_LATE_S = 0.003
SERVER_WRITE_S = 12e-6
STEP_S = 0.0128


@dataclass(frozen=True)
class Scenario:
    """A load, and what the load generator has to manage. `bars`: figure → largest value allowed.

    `still_s`: the process that holds the study stands still for so long every time it is shown the probe.
    """

    name: str
    schedule: Schedule
    load: Load
    tokens: tuple[int, int]
    seconds: float
    bars: dict[str, float]
    workers: int = 1
    peers: tuple[str, ...] = ()
    still_s: float = 0.0

    @property
    def server_late_s(self) -> float:
        """Lateness of the server at p99 that makes a round void."""
        streams = self.load.users if isinstance(self.load, ClosedLoop) and self.schedule.mode == "burst" else 0
        return SERVER_LATE_S + streams * SERVER_WRITE_S

    def in_words(self) -> str:
        """What is asked of the load generator."""
        bars = ", ".join(f"{figure} < {bar:g}" for figure, bar in self.bars.items())
        return f"{self.name}: {bars} ({self.workers} worker{'s' if self.workers > 1 else ''})"


LAG_BARS = {"lag_p99_ms": 5.0, "cpu_cores": 0.8}
SCENARIOS = [
    Scenario("steady, 256 streams, 20k chunks/s", Schedule("steady", 0.05, STEP_S), ClosedLoop(256), (200, 600), 20.0,
             LAG_BARS, 1, ("httpx",)),
    Scenario("bursts of 256, 20k chunks/s", Schedule("burst", 0.05, STEP_S), ClosedLoop(256), (200, 600), 20.0,
             LAG_BARS, 1, ("httpx",)),
    Scenario("steady, 512 streams, 40k chunks/s", Schedule("steady", 0.05, STEP_S), ClosedLoop(512), (200, 600), 20.0,
             {"lag_p99_ms": 5.0}, 2),
    Scenario("bursts of 512, 40k chunks/s", Schedule("burst", 0.05, STEP_S), ClosedLoop(512), (200, 600), 20.0,
             {"lag_p99_ms": 5.0}, 2),
    Scenario("20k chunks/s, supervisor still 3 s in 4", Schedule("steady", 0.05, STEP_S), ClosedLoop(256), (200, 600),
             20.0, LAG_BARS, still_s=3.0),
    Scenario("waves of 256 equal requests", Schedule("burst", 0.1, 2 * STEP_S), ClosedLoop(256), (100, 101), 16.0,
             {"ttft_p50_error_ms": 5.0, "itl_p99_error_ms": 3.0}, 1, ("httpx", "vllm", "guidellm")),
    Scenario("open loop, 200 requests/s", Schedule("steady", 0.05, 0.01), OpenLoop(200.0), (16, 17), 60.0,
             {"send_lag_p50_ms": 1.0, "drift_ms": 1.0}, 1, ("httpx",)),
]  # fmt: skip


@dataclass(frozen=True)
class Round:
    """One client in one scenario, once: figures by name, and how long anybody waited for a core."""

    figures: dict[str, float]
    wait_s: float
    server_late_s: float


@dataclass(frozen=True)
class Bench:
    """What every round needs."""

    program: Path
    folder: Path
    cores: tuple[int, ...]
    options: argparse.Namespace
    scale: float
    void: list[str] = field(default_factory=list)


def main() -> None:
    """Measure, print, and write the table."""
    options = _options()
    wanted = [one for one in SCENARIOS if any(part in one.name for part in options.only.split(","))]
    cores = tuple(int(core) for core in options.cores.split(","))
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(Path(folder))
        bench = Bench(program, Path(folder), cores, options, 0.3 if options.quick else 1.0)
        os.sched_setaffinity(0, cores[1:])
        if options.realtime:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        rows = [row for one in wanted for row in measured(bench, one)]
    typed = "".join(f" --{name}" for name in ("quick", "alone", "realtime") if getattr(options, name))
    how = f"`python benchmarks/client.py{typed}`; {options.rounds} rounds, the calmer half kept, medians"
    if options.realtime:
        how += (
            ".\nOthers computed on the same cores: server and clients ran under SCHED_RR, so that nobody held them up"
        )
    text = table(rows, how, [one.in_words() for one in SCENARIOS], bench.void)
    print(text)
    options.out.write_text(text, encoding="utf-8")
    sys.exit(0 if all(row.passed is not False for row in rows) else 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="rounds of a third of the length")
    parser.add_argument("--alone", action="store_true", help="without other clients")
    parser.add_argument("--only", default="", help="words in the names of scenarios, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--realtime", action="store_true", help="run all under SCHED_RR: where others compute too")
    parser.add_argument("--cores", default="0,1,2", help="the server's, then the clients'")
    parser.add_argument("--vllm", help="vLLM's executable")
    parser.add_argument("--guidellm", help="guidellm's executable")
    parser.add_argument("--tokenizer", help="a folder with a tokenizer, for those two")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    return parser.parse_args()


def measured(bench: Bench, scenario: Scenario) -> list[Row]:
    """The load generator's row, then its peers'."""
    clients = {"goodtune": goodtune, "httpx": stock_httpx, "vllm": vllm, "guidellm": guidellm}
    rows = []
    for name in ("goodtune", *scenario.peers):
        if name != "goodtune" and (bench.options.alone or not getattr(bench.options, name, True)):
            continue
        rounds = [one for _ in range(bench.options.rounds) if (one := tried(bench, scenario, name, clients[name]))]
        if not rounds:
            rows.append(Row(scenario.name, name, {}, 0.0, False if name == "goodtune" else None))
            continue
        calm = sorted(rounds, key=lambda one: one.wait_s)[: (len(rounds) + 1) // 2]
        figures = {key: float(np.median([one.figures[key] for one in calm])) for key in calm[0].figures}
        passed = all(abs(figures[key]) < bar for key, bar in scenario.bars.items()) if name == "goodtune" else None
        wait_s = float(np.median([one.wait_s for one in calm]))
        rows.append(Row(scenario.name, name, figures, wait_s, passed))
    return rows


Client = Callable[[Bench, Scenario, KnownServer], tuple[dict[str, float], float, Journal]]
"""Offers the scenario; gives its figures, how long its processes waited for a core, and the server's journal."""


def tried(bench: Bench, scenario: Scenario, name: str, client: Client) -> Round | None:
    """One round; None where the server was late."""
    with serving(bench.program, scenario.schedule, bench.cores[0]) as server:
        before_s = server.run_queue_wait_s()
        figures, wait_s, journal = client(bench, scenario, server)
        wait_s += server.run_queue_wait_s() - before_s
    late_s = journal.lateness_p99_s
    figures["server_late_p99_ms"] = late_s * 1e3
    said = "  ".join(f"{key} {value:.3g}" for key, value in figures.items())
    print(f"{scenario.name} | {name} | waited {wait_s:.2f} s | {said}", file=sys.stderr, flush=True)
    if late_s > scenario.server_late_s:
        bench.void.append(f"{scenario.name}, {name}: the server was {late_s * 1e3:.1f} ms late at p99")
        return None
    return Round(figures, wait_s, late_s)


def goodtune(bench: Bench, scenario: Scenario, server: KnownServer) -> tuple[dict[str, float], float, Journal]:
    """The load generator as the product uses it, watched as the product watches it."""
    seconds = scenario.seconds * bench.scale
    requests = some_requests(scenario, seconds)
    endpoint = Endpoint(server.url, MODEL, VOCAB)

    def watch(log: RequestLog) -> None:
        score(log, scenario.load, Limits(ttft_s=1.0, itl_s=0.1))
        time.sleep(scenario.still_s)

    supervision = Supervision(watch, lambda: None, tolerance=Tolerance(lag_s=TIMEOUT_S), workers=scenario.workers)
    window = Window(WARMUP_S, seconds, TIMEOUT_S)
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    log = replay(endpoint, requests, scenario.load, window, supervision)
    supervisor = (time.process_time() - cpu_s) / (time.perf_counter() - wall_s)
    assert log.client
    assert log.began_s is not None
    bodies = Bodies(MODEL, VOCAB, requests, log.request.tolist())
    seen = [
        Seen(
            key_of(bodies.body(row)),
            log.began_s + log.due_s[i],
            log.began_s + log.sent_s[i],
            log.began_s + log.chunk_s[log.chunk_start[i] : log.chunk_start[i + 1]],
        )
        for i, row in enumerate(log.request.tolist())
        if log.counted[i]
    ]
    journal = server.journal()
    figures = compared(seen, journal, scenario.load)
    figures |= {"cpu_cores": log.client.cpu_frac, "supervisor_cores": supervisor}
    return figures, log.client.run_queue_wait_s, journal


def stock_httpx(bench: Bench, scenario: Scenario, server: KnownServer) -> tuple[dict[str, float], float, Journal]:
    """A loop on httpx.AsyncClient with json.loads, as one would write it."""
    seconds = scenario.seconds * bench.scale
    requests = some_requests(scenario, seconds)
    bodies = Bodies(MODEL, VOCAB, requests, range(len(requests)))
    job = {
        "url": f"{server.url}/v1/completions",
        "bodies": [bodies.body(row) for row in range(len(requests))],
        "seconds": WARMUP_S + seconds,
    }
    match scenario.load:
        case OpenLoop(rate_rps):
            arrivals_s = np.cumsum(requests.unit_gaps) / rate_rps
            job |= {"arrivals_s": arrivals_s[arrivals_s < WARMUP_S + seconds].tolist()}
        case ClosedLoop(users):
            job |= {"users": users}
    started = os.times()
    wall_s = time.perf_counter()
    found, waited_s = peers.offered_by_httpx(job, ",".join(map(str, bench.cores[1:])), bench.folder)
    ended = os.times()
    cpu_s = ended.children_user + ended.children_system - started.children_user - started.children_system
    first_s = found[0][1] if found else 0.0
    due_s = (first_s + np.array(job["arrivals_s"])).tolist() if "arrivals_s" in job else [one[1] for one in found]
    seen = [
        Seen(key_of(body), due, sent_s, np.array(token_s))
        for (body, sent_s, token_s), due in zip(found, due_s, strict=False)
        if sent_s - first_s >= WARMUP_S
    ]
    cpu_cores = cpu_s / (time.perf_counter() - wall_s)
    journal = server.journal()
    return compared(seen, journal, scenario.load) | {"cpu_cores": cpu_cores}, waited_s, journal


def vllm(bench: Bench, scenario: Scenario, server: KnownServer) -> tuple[dict[str, float], float, Journal]:
    """`vllm bench serve`, by the figures it reports."""
    return reported(peers.offered_by_vllm, bench.options.vllm, (bench, scenario, server))


def guidellm(bench: Bench, scenario: Scenario, server: KnownServer) -> tuple[dict[str, float], float, Journal]:
    """`guidellm benchmark`, by the figures it reports."""
    return reported(peers.offered_by_guidellm, bench.options.guidellm, (bench, scenario, server))


def reported(
    offer: Callable[..., peers.Reported], program: str, place: tuple[Bench, Scenario, KnownServer]
) -> tuple[dict[str, float], float, Journal]:
    """TTFT and ITL as a tool reports them, against what the server did."""
    bench, scenario, server = place
    assert isinstance(scenario.load, ClosedLoop)
    users = scenario.load.users
    shape = ((6 if bench.scale == 1.0 else 2) * users, scenario.tokens[0], users)
    found, waited_s = offer(program, bench.options.tokenizer, server.url, shape, bench.folder)
    journal = server.journal()
    return errors(found, journal), waited_s, journal


def some_requests(scenario: Scenario, seconds: float) -> Requests:
    """Enough for the scenario, with answers of a length between `scenario.tokens`."""
    shortest_s = scenario.schedule.ttft_s + scenario.tokens[0] * scenario.schedule.gap_s
    horizon_s = WARMUP_S + seconds + 10
    per_s = scenario.load.rate_rps if isinstance(scenario.load, OpenLoop) else scenario.load.users / shortest_s
    count = int(per_s * horizon_s * 1.2) + 600
    random = np.random.default_rng(20261121)
    return Requests(
        seed=0,
        prompt_tokens=np.full(count, PROMPT_TOKENS),
        output_tokens=random.integers(*scenario.tokens, count),
        session=np.arange(count),
        unit_gaps=random.exponential(1.0, count),
        think_s=np.zeros(count),
        segments=tuple((Segment(row, PROMPT_TOKENS),) for row in range(count)),
    )


if __name__ == "__main__":
    main()
