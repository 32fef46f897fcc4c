"""What `tune bench` says while it measures: what is to come, and a line for each probe. Pure text."""

from tuner.benchorder import Bench, window_s
from tuner.goodput import MAX_PROBES
from tuner.horizon import MOST_WINDOWS
from tuner.probe import IDLE_REQUESTS, Recorded
from tuner.score import Score
from tuner.target import ClosedLoop, OpenLoop
from tuner.trial import OFFLINE_REQUESTS, question_of
from tuner.wording.naming import METRICS
from tuner.wording.numbers import duration, latency, load_text, number, share, users_text


def forecast(order: Bench) -> str:
    """How long it will take and how many requests, as far as that is known before the first answer."""
    if order.is_at_once:
        return f"to come: {OFFLINE_REQUESTS:,} requests at once"
    return f"to come: {IDLE_REQUESTS} requests one at a time, then {_loaded(order)}"


def _loaded(order: Bench) -> str:
    warmup_s = order.slo.warmup_s
    match order.given:
        case OpenLoop(rate_rps) as load:
            probe_s = warmup_s + window_s(order, load, rate_rps)
            return f"about {rate_rps * probe_s:,.0f} requests at {load_text(load)}, in {duration(probe_s)}"
        case ClosedLoop(users, joining_s) if joining_s > 0:
            return f"one more user every {duration(joining_s)} up to {users:,}, in {duration(users * joining_s)}"
        case ClosedLoop() as load if order.requests is None:
            asks = "asks" if load.users == 1 else "ask"
            return f"what {load_text(load)} {asks} in {_of_users(order)}"
        case ClosedLoop() as load:
            return f"about {order.requests:,} requests of {load_text(load)}"
    return f"at most {MAX_PROBES} probes {_probes(order)}"


def _probes(order: Bench) -> str:
    """The longest that a search is likely to make."""
    slo, question = order.slo, question_of(order.slo, order.workload, order.gpus)
    if question.in_users:
        return f"of {_of_users(order)}, each of what its users ask in that time"
    whole = duration(slo.warmup_s + slo.window_s)
    enough_rps = slo.deciding_requests / slo.window_s
    longer = f" (longer below {number(enough_rps)} req/s)" if enough_rps > question.least else ""
    return f"of up to about {whole}{longer}, of {question.quick:,} requests or more"


def _of_users(order: Bench) -> str:
    """How long a probe of users takes: the fewer requests they bring, the longer."""
    shortest_s, longest_s = (order.slo.warmup_s + many * order.slo.window_s for many in (1.0, MOST_WINDOWS))
    return f"{duration(shortest_s)} to {duration(longest_s)}"


def replaced(order: Bench) -> str:
    """What --rate or --users took the place of in the workload; empty where they did of nothing."""
    arrivals = order.workload.arrivals
    match order.load:
        case OpenLoop() if arrivals.ramp:
            users = f"a ramp of {users_text(arrivals.ramp.users)}"
            return f"--rate: requests at random times, in place of {users}"
        case OpenLoop() if arrivals.kind == "closed":
            return "--rate: requests at random times, in place of users who wait their turn"
        case OpenLoop() if arrivals.speed:
            return f"--rate: the trace at that rate, in place of {arrivals.speed:g} times its own speed"
        case ClosedLoop() if arrivals.ramp:
            return f"--users: so many throughout, in place of a ramp up to {arrivals.ramp.users:,}"
        case ClosedLoop() if arrivals.kind != "closed":
            return f"--users: each waits for its turn, in place of {arrivals.kind} arrivals"
    return ""


def probe_line(probe: Recorded) -> str:
    """`8 req/s: 98.61 % in SLO of 1,020 requests · TTFT p99 212 ms · …`, for a finished probe."""
    found = probe.score
    named = {"ttft_s": found.ttft_s, "tpot_s": found.tpot_s}
    tails = [f"{METRICS[name]} p99 {latency(seen.p99)}" for name, seen in named.items() if seen]
    where = "one at a time" if probe.stage == "idle" else load_text(found.load)
    stopped = ["stopped early"] if found.stopped else []
    return " · ".join([f"{where}: {share(found.attainment)} in SLO of {found.counted:,} requests", *tails, *stopped])


def progress_line(score: Score, done_frac: float) -> str:
    """A probe at a load under way."""
    seen = f", {share(score.attainment)} of {score.counted:,} in SLO so far" if score.counted else ""
    return f"{load_text(score.load)}: {100 * done_frac:.0f} % of the window{seen}"


def idle_line(score: Score) -> str:
    """The idle probe under way: it ends with its last request, long before its window."""
    seen = f", {share(score.attainment)} in SLO so far" if score.counted else ""
    return f"one at a time: {score.counted} of {IDLE_REQUESTS} requests{seen}"
