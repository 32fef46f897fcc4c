"""Typical: of several draws of a workload, the one whose window holds most nearly what its load promises. Pure.

A window of a few hundred requests holds, by chance, several per cent more or fewer requests and tokens than windows
do in the mean. Near capacity that is an error of the load by as much. A typical draw has the same arrivals, bursts
and lengths, but not that error. What is published of a server is measured on draws as they come.
"""

from collections.abc import Sequence

import numpy as np

from tuner.config.workload import Workload
from tuner.workload.build import draw


def typical_seed(workload: Workload, seeds: Sequence[int], rate_rps: float, until_s: float) -> int:
    """Of `seeds` the one whose first `until_s` seconds at `rate_rps` are most typical: in requests, prompt tokens and
    output tokens. The first one where requests are not drawn one by one (sessions, traces)."""
    if workload.trace is not None or workload.turns is not None:
        return seeds[0]
    expected = rate_rps * until_s
    # Enough for a draw that has half as many more.
    drawn = [draw(workload, seed, int(1.5 * expected) + 50) for seed in seeds]
    due = [np.cumsum(one.unit_gaps) < expected for one in drawn]
    came = np.array([
        (within.sum(), one.prompt_tokens[within].sum(), one.output_tokens[within].sum())
        for one, within in zip(drawn, due, strict=True)
    ])  # fmt: skip
    per_request = np.mean([(1.0, one.prompt_tokens.mean(), one.output_tokens.mean()) for one in drawn], axis=0)
    off = came / (expected * per_request) - 1
    return seeds[int(np.argmin((off**2).sum(axis=1)))]
