"""Horizon: how long the window of a probe is, by what it has to show. Pure.

A finalist's window is the SLO's, or as long as the requests take that its attainment needs; a search looks no
further.
"""

import math

from tuner.config.slo import Slo
from tuner.finalvalue import ENOUGH_SEEDS
from tuner.target import Load, OpenLoop

# Arrivals are random: a window for 1000 requests on average would hold fewer in half of the cases.
ROOM = 1.1
# A server overloaded by this share must show it: its queue grows by so much per second of the probe.
OVERLOAD_SEEN = 0.03
# A probe that lasts so many times as long as an answer has a full batch at its end.
FILLED = 3.0
# A few users bring few requests, however long they are watched: never longer than so many of the SLO's windows.
MOST_WINDOWS = 5.0
# Of users each window counts about so many requests at least, as far as it may last so long.
LEAST_OF_USERS = 100


def whole_window_s(slo: Slo, load: Load, rate_rps: float, counted: float) -> float:
    """A finalist's window, where requests come at `rate_rps`: the SLO's, or as long as `counted` of them take."""
    measure_s = max(slo.window_s, counted / rate_rps)
    return measure_s if isinstance(load, OpenLoop) else min(measure_s, MOST_WINDOWS * slo.window_s)


def needed_requests(slo: Slo, load: Load) -> int:
    """The requests that each window of a finalist must be expected to count: as many as decide.

    Users may be few: of them the seeds together count as many.
    """
    if isinstance(load, OpenLoop):
        return slo.deciding_requests
    return max(LEAST_OF_USERS, math.ceil(slo.deciding_requests / ENOUGH_SEEDS))


def search_window_s(slo: Slo, load: Load, rate_rps: float, counted: int, answer_s: float) -> float:
    """The window of a search's probe, with hardly ever fewer than `counted` requests; never longer than a finalist's.

    `answer_s`: how long an answer takes once it has begun, as far as it is known.
    """
    least_s = _least_window_s(slo, answer_s) if isinstance(load, OpenLoop) else slo.window_s
    longest_s = whole_window_s(slo, load, rate_rps, needed_requests(slo, load))
    return min(max(ROOM * counted / rate_rps, least_s), longest_s)


def _least_window_s(slo: Slo, answer_s: float) -> float:
    """A window long enough for the batch to fill, and for a slight overload to reach the limit on waiting.

    Where a share e of the load is too much, a request that is due T seconds into the probe waits about e T, which is
    the limit at T = limit / e. A share 1 − attainment of the window must lie behind that. And the batch is not full
    before answers end as often as they begin, FILLED answers' time after the first. Shorter probes call an overloaded
    server good. Never longer than the SLO's own window, which may then show only a larger overload.
    """
    limit_s = slo.limits.ttft_s or slo.limits.e2e_s or 0.0
    reached_s = limit_s / OVERLOAD_SEEN - slo.warmup_s
    reached_s = reached_s / slo.attainment if slo.attainment else reached_s
    return min(max(reached_s, FILLED * answer_s - slo.warmup_s, 0.0), slo.window_s)
