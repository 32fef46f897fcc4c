"""What a client saw of a known schedule, against what the server did. Pure."""

from dataclasses import dataclass

import numpy as np
from known_schedule import Journal

from tuner.target import Load, OpenLoop


@dataclass(frozen=True)
class Seen:
    """What a client saw of one request."""

    key: int
    due_s: float
    sent_s: float
    token_s: np.ndarray


def compared(seen: list[Seen], journal: Journal, load: Load) -> dict[str, float]:
    """What a client saw against what the server did, in ms, over the requests in `seen`."""
    row_of = {int(key): row for row, key in enumerate(journal.key)}
    lag, ttft, true_ttft, gaps, true_gaps = [], [], [], [], []
    for one in seen:
        row = row_of.get(one.key)
        if row is None or not len(one.token_s):
            continue
        sent_s = journal.chunks_of(row)[: len(one.token_s)]
        lag.append(one.token_s - sent_s)
        ttft.append(one.token_s[0] - one.sent_s)
        true_ttft.append(sent_s[0] - journal.came_s[row])
        gaps.append(np.diff(one.token_s))
        true_gaps.append(np.diff(sent_s))
    all_lag, all_gaps, all_true_gaps = (np.concatenate(parts) * 1e3 for parts in (lag, gaps, true_gaps))
    ttft_ms, true_ttft_ms = np.array(ttft) * 1e3, np.array(true_ttft) * 1e3
    figures = {"chunks_per_s": _rate(journal), "lag_p50_ms": np.quantile(all_lag, 0.5)}
    figures |= {"lag_p99_ms": np.quantile(all_lag, 0.99), "lag_max_ms": all_lag.max()}
    for name, got, true, q in (
        ("ttft_p50", ttft_ms, true_ttft_ms, 0.5),
        ("ttft_p99", ttft_ms, true_ttft_ms, 0.99),
        ("itl_p99", all_gaps, all_true_gaps, 0.99),
    ):
        figures |= {f"{name}_ms": np.quantile(got, q), f"true_{name}_ms": np.quantile(true, q)}
        figures[f"{name}_error_ms"] = figures[f"{name}_ms"] - figures[f"true_{name}_ms"]
    if isinstance(load, OpenLoop):
        late_ms = np.array([one.sent_s - one.due_s for one in seen]) * 1e3
        tenth = max(1, len(late_ms) // 10)
        figures |= {"send_lag_p50_ms": np.median(late_ms), "send_lag_p99_ms": np.quantile(late_ms, 0.99)}
        figures["drift_ms"] = np.median(late_ms[-tenth:]) - np.median(late_ms[:tenth])
    return {key: float(value) for key, value in figures.items()}


def errors(found: dict[str, float], journal: Journal) -> dict[str, float]:
    """TTFT and ITL as a tool reports them, against all that the server did."""
    some = journal.count > 0
    true_ttft_s = journal.sent_s[journal.first[some]] - journal.came_s[some]
    true_gaps_s = np.concatenate([np.diff(journal.chunks_of(i)) for i in range(len(journal.key))])
    truth = {"ttft_p50_s": np.quantile(true_ttft_s, 0.5), "itl_p99_s": np.quantile(true_gaps_s, 0.99)}
    figures = {f"{key[:-2]}_ms": found[key] * 1e3 for key in truth}
    figures |= {f"true_{key[:-2]}_ms": float(truth[key]) * 1e3 for key in truth}
    figures |= {f"{key[:-2]}_error_ms": (found[key] - float(truth[key])) * 1e3 for key in truth}
    return figures


def _rate(journal: Journal) -> float:
    times = np.sort(journal.sent_s)
    low, high = np.quantile(times, (0.25, 0.75))
    return 0.5 * len(times) / float(high - low)
