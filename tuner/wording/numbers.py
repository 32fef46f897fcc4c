"""Numbers as people read them: two or three significant digits, always a unit. Pure."""

import math
from collections.abc import Mapping

from tuner.config.plan import Plan
from tuner.summary import Gain, Point
from tuner.target import ClosedLoop, Load

DASH = "—"
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


def number(value: float | None, digits: int = 3) -> str:
    """`value` to `digits` significant digits, never in exponent form: 7.22, 0.0034, 1,230. A dash for no number."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    # Rounding may carry into a new digit: 9.996 becomes 10.0, not 10.00.
    places = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, places)}f}"


def share(frac: float | None) -> str:
    """A share 0–1 in percent; from 98 % on with two decimals, because that is where SLOs are decided."""
    if frac is None or not math.isfinite(frac):
        return DASH
    return "100 %" if frac == 1 else f"{100 * frac:.{2 if frac >= 0.98 else 1}f} %"


def wanted_share(frac: float) -> str:
    """A share that was asked for, as it was given: `99 %`."""
    return f"{100 * frac:g} %"


def kept_up_with(rate_rps: float | None, *, is_least: bool) -> str:
    """A capacity: `≥ 12.9` where the server may keep up with more, `12.9` where it did not keep up with hardly more;
    a dash where it kept up with nothing."""
    return f"≥ {number(rate_rps)}" if rate_rps and is_least else number(rate_rps or None)


def latency(seconds: float | None) -> str:
    """Milliseconds below one second, seconds above: `33.8 ms`, `446 ms`, `1.24 s`."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    return f"{number(seconds * 1e3)} ms" if abs(seconds) < 0.9995 else f"{number(seconds)} s"


def limit(seconds: float) -> str:
    """A limit as it was given: `50 ms`, `2 s`."""
    return f"{seconds * 1e3:g} ms" if seconds < 1 else f"{seconds:g} s"


def duration(seconds: float) -> str:
    """A span of time in its two largest units: `4.2s`, `41s`, `4m10s`, `2h41m`, `3d4h`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole}s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S}m{whole % MINUTE_S:02d}s"
    if whole < DAY_S:
        return f"{whole // HOUR_S}h{whole % HOUR_S // MINUTE_S:02d}m"
    return f"{whole // DAY_S}d{whole % DAY_S // HOUR_S}h"


def gpu_time(gpu_s: float, device: str) -> str:
    """`5.4 GPU-hours`, or minutes below one hour."""
    if gpu_s >= HOUR_S:
        return f"{number(gpu_s / HOUR_S, 2)} {device}-hours"
    return f"{number(gpu_s / MINUTE_S, 2)} {device}-minutes"


def dollars(amount: float) -> str:
    """US dollars with cents below 100."""
    return f"${amount:,.2f}" if amount < 100 else f"${amount:,.0f}"


def dollars_per_million_tokens(dollars_per_hour: float | None, tok_s: float) -> float | None:
    """The price of a million output tokens on one GPU that emits `tok_s`; None where no price is known."""
    if dollars_per_hour is None or tok_s <= 0:
        return None
    return dollars_per_hour / (tok_s * HOUR_S) * 1e6


def load_text(load: Load | Mapping[str, float]) -> str:
    """`8.4 req/s`, `32 users` or `1 user`, of one server."""
    if isinstance(load, ClosedLoop):
        return f"1 to {users_text(load.users)}" if load.joining_s else users_text(load.users)
    if not isinstance(load, Mapping):
        return f"{number(load.rate_rps)} req/s"
    if "users" in load:
        return users_text(round(load["users"]))
    return f"{number(load['rate_rps'])} req/s"


def users_text(users: int) -> str:
    """`1 user`, `1,024 users`."""
    return f"{users:,} user" if users == 1 else f"{users:,} users"


def device(plan: Plan) -> str:
    """What figures are per: a GPU, or on a box without one a CPU slot."""
    return "CPU" if plan.box.gpu.is_cpu else "GPU"


def rate_unit(plan: Plan) -> str:
    """The unit of goodput: `req/s/GPU`."""
    return f"req/s/{device(plan)}"


def goodput(point: Point) -> str:
    """Goodput per GPU with its interval, the longer arm of it: `7.22 ±0.20`; `7.22` from a single run, or where all
    the digits shown are certain."""
    text = number(point.goodput_rps_per_gpu)
    if point.ci95 is None or number(point.ci95[0]) == number(point.ci95[1]):
        return text
    low, high = point.ci95
    arm = max(high - point.goodput_rps_per_gpu, point.goodput_rps_per_gpu - low)
    return f"{text} ±{number(arm, 2)}"


def more_requests(ratio: float) -> str:
    """A ratio to the default's goodput: `28 % more requests`, `2.4 times the default's requests`, `3.1 % fewer …`."""
    if ratio >= 2:
        return f"{number(ratio, 2)} times the default's requests"
    if abs(ratio - 1) < 0.0005:
        return "as many requests"
    return f"{number(100 * abs(ratio - 1), 2)} % {'more' if ratio > 1 else 'fewer'} requests"


def interval(gain: Gain) -> str:
    """The 95 % interval of a gain, in the terms of `more_requests`: `95 % CI +23 … +32 %`."""
    low, high = gain.ci95
    if gain.ratio >= 2:
        return f"95 % CI {number(low, 2)} … {number(high, 2)} times"
    return f"95 % CI {signed_percent(low)} … {signed_percent(high)} %"


def signed_percent(ratio: float) -> str:
    """A ratio as a signed change in percent without the sign of percent: `+23`, `−1.4`, `0`."""
    change = 100 * (ratio - 1)
    if abs(change) < 0.05:
        return "0"
    return f"{'+' if change > 0 else '−'}{number(abs(change), 2)}"
