"""What one lonely request shows: whether the SLO can be met at all, before any load is offered. Pure."""

import numpy as np

from tuner.config.slo import Limits
from tuner.latencies import latencies, own_itl_s
from tuner.probe import Recorded
from tuner.requestlog import Status
from tuner.score import bad_requests, ttft_limits_s


def missed_when_idle(idle: Recorded, limits: Limits) -> str:
    """Which limits requests missed that were alone on the server, and by how much; empty where none did.

    Medians over those that missed a limit, of their own limits where these differ with the prompt.
    """
    log, load = idle.log, idle.score.load
    bad = bad_requests(log, load, limits) & log.counted
    if not bad.any():
        return ""
    times, ok = latencies(log, load), log.status == Status.OK
    observed = {"ttft_s": times.ttft_s, "itl_s": own_itl_s(log), "tpot_s": times.tpot_s, "e2e_s": times.e2e_s}
    over = []
    for name, bound_s in limits.present().items():
        seen_s = observed.get(name, times.normalized_s)
        bounds_s = ttft_limits_s(log, limits) if name == "ttft_s" else np.full(len(log), bound_s)
        late = ok & log.counted & (seen_s > bounds_s)
        if late.any():
            label = name.removesuffix("_s").upper()
            over.append(f"{label} {_ms(np.median(seen_s[late]))} (limit {_ms(np.median(bounds_s[late]))})")
    failed = int((bad & ~ok).sum())
    what = ", ".join([*over, *([f"{failed} failed"] if failed else [])])
    bad_count, of = int(bad.sum()), f"of {int(log.counted.sum())} requests"
    misses = "misses the SLO though it is alone" if bad_count == 1 else "miss the SLO though they are alone"
    return f"{bad_count} {of} {misses}: {what}"


def _ms(seconds: np.floating) -> str:
    return f"{float(seconds) * 1e3:.3g} ms"
