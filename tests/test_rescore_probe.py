"""A stored probe under another SLO: what was written is judged like what was seen."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import a_score, an_slo
from tests.logs import a_log
from tuner.config.slo import Limits
from tuner.probe import Recorded
from tuner.rawlog import RawProbe, read_probes, write_requests
from tuner.requestlog import RequestLog, Status
from tuner.rescore import is_usable
from tuner.score import score, scored_again
from tuner.target import ClosedLoop, Load, OpenLoop

LIMITS = st.builds(
    Limits,
    ttft_s=st.none() | st.sampled_from([0.05, 0.1, 0.3]),
    tpot_s=st.none() | st.sampled_from([0.02, 0.05]),
    itl_s=st.none() | st.sampled_from([0.05, 0.1]),
    e2e_s=st.none() | st.sampled_from([0.5, 2.0]),
) | st.builds(Limits, ttft_s=st.just(0.05), ttft_s_per_prompt_token=st.sampled_from([1e-4, 1e-3]))
GAPS = st.lists(st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.101]), min_size=0, max_size=130)


@st.composite
def logs(draw: st.DrawFn) -> RequestLog:
    """Requests of every fate, some with several tokens a chunk, some never sent."""
    answers = draw(st.lists(st.tuples(st.floats(0.0, 0.4), GAPS), min_size=1, max_size=30))
    n = len(answers)
    rows = [
        (i * 0.1, (i * 0.1 + first + np.cumsum([0.0, *gaps])).tolist()) for i, (first, gaps) in enumerate(answers)
    ]
    chunks = np.array([len(times) for _, times in rows])
    status = np.array(draw(st.lists(st.sampled_from(list(Status)), min_size=n, max_size=n)))
    lag_s = np.array(draw(st.lists(st.sampled_from([0.0, 0.01, np.nan]), min_size=n, max_size=n)))
    return a_log(
        rows,
        status=status,
        counted=np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n))),
        output_tokens=chunks * draw(st.sampled_from([1, 3])),
        prompt_tokens=np.array(draw(st.lists(st.integers(1, 5000), min_size=n, max_size=n))),
        sent_s=np.arange(n) * 0.1 + lag_s,
        window_s=draw(st.floats(0.5, 20.0)),
        stopped=draw(st.none() | st.just("hopeless")),
    )


@given(logs(), st.sampled_from([OpenLoop(7.3), ClosedLoop(5)]), LIMITS, LIMITS)
@settings(max_examples=150)
def test_a_stored_probe_is_judged_under_any_limits_exactly_like_its_log(
    log: RequestLog, load: Load, before: Limits, after: Limits
) -> None:
    assert scored_again(score(log, load, before), stored(log, load).answers, after) == score(log, load, after)


@pytest.mark.parametrize(
    ("load", "late", "attainment", "limit_s", "usable"),
    [
        pytest.param(OpenLoop(10.0), 40, 0.9, 0.2, True, id="the new SLO would have stopped it too"),
        pytest.param(OpenLoop(10.0), 40, 0.9, 9.0, False, id="nothing was bad under the new SLO"),
        pytest.param(OpenLoop(10.0), 20, 0.9, 0.2, False, id="the new SLO would have looked on"),
        pytest.param(OpenLoop(10.0), 20, 0.99, 0.2, True, id="stricter, so fewer bad ones are enough"),
        pytest.param(OpenLoop(10.0), 40, 0.0, 0.2, False, id="a free peak never stops a probe"),
        pytest.param(ClosedLoop(10), 40, 0.9, 0.2, False, id="a closed loop is never stopped"),
    ],
)
def test_a_probe_that_was_stopped_counts_only_where_the_new_slo_would_have_stopped_it(
    load: Load, late: int, attainment: float, limit_s: float, usable: bool
) -> None:
    rows = [(0.0, (5.0,)) for _ in range(late)] + [(0.0, (0.1,)) for _ in range(50 - late)]
    slo = an_slo(attainment=attainment, limits=Limits(ttft_s=limit_s))
    assert is_usable(stored(a_log(rows, stopped="hopeless"), load), slo) is usable
    assert is_usable(stored(a_log(rows), load), slo), "it ran on, so all that happened is known"


def stored(log: RequestLog, load: Load) -> RawProbe:
    """`log` written to a file, as a probe of ten seconds, and read again."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "requests.parquet"
        write_requests(
            path, [Recorded("search", 0, a_score(load=load), log, planned_s=10.0, seed=1)], with_chunks=False
        )
        return read_probes(path)[0]
