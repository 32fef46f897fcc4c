"""Whether a probe can be believed: what its client and the server's cache did."""

import numpy as np
import pytest

from tests.logs import a_log
from tuner.engineview import EngineView
from tuner.health import Health, health_of
from tuner.requestlog import ClientHealth, RequestLog, Status

CLIENT = ClientHealth(send_lag_p99_s=0.001, run_queue_wait_s=0.2, busy_frac=0.4, workers=2, cpu_frac=0.3)


def test_a_measured_probe_says_how_well_client_and_server_kept_their_word() -> None:
    log = a_log(
        [(0.0, (0.5, 0.6)), (1.0, (1.5,)), (2.0, (2.5, 2.6))],
        wanted_tokens=np.array([4, 4, 4]),
        output_tokens=np.array([4, 1, 2]),
        prompt_tokens=np.array([100, 300, 50]),
        status=np.array([Status.OK, Status.TRUNCATED, Status.UNFOLLOWED]),
        reusable_tokens=np.array([0, 200, 50]),
        cached_tokens=np.array([0, 160, 0]),
        client=CLIENT,
    )
    health = Health(CLIENT, wanted_tokens=8, received_tokens=5, chunks=3, reusable_frac=0.5, cached_frac=0.4)
    assert health_of(log) == health


def test_a_server_that_does_not_say_what_it_had_cached_has_no_share_of_it() -> None:
    health = health_of(a_log([(0.0, (0.5,))], client=CLIENT))
    assert health
    assert (health.reusable_frac, health.cached_frac) == (None, None)


def _a_log_of_20_000_prompt_tokens(**overrides: object) -> RequestLog:
    """100 requests that share nothing."""
    alike = {"prompt_tokens": np.full(100, 200), "reusable_tokens": np.zeros(100, dtype=np.int64), "client": CLIENT}
    return a_log([(0.0, (0.5, 0.6))] * 100, **(alike | overrides))


@pytest.mark.parametrize(
    ("overrides", "leftover_frac"),
    [
        pytest.param({"cached_tokens": np.full(100, 160)}, 0.8, id="another probe's prompts"),
        pytest.param(
            {"cached_tokens": np.full(100, 160), "reusable_tokens": np.full(100, 160)}, 0.0, id="as designed"
        ),
        pytest.param({"cached_tokens": np.full(100, 32)}, 0.0, id="the chat's template"),
        pytest.param({"cached_tokens": np.repeat([200, 0], [4, 96])}, 0.0, id="too few to matter"),
        pytest.param({"cached_tokens": np.repeat([200, 0], [30, 70])}, 0.3, id="a part of them"),
        pytest.param({"engine": EngineView(cache_hit_frac=0.9)}, 0.26, id="only the engine's counters say so"),
        pytest.param({"engine": EngineView(cache_hit_frac=0.3)}, 0.0, id="counters that a template explains"),
        pytest.param({"engine": EngineView()}, 0.0, id="nothing is known"),
    ],
)
def test_hits_that_the_workload_did_not_design_are_another_probes_leftovers(
    overrides: dict[str, object], leftover_frac: float
) -> None:
    health = health_of(_a_log_of_20_000_prompt_tokens(**overrides))
    assert health and health.leftover_frac == pytest.approx(leftover_frac)


def test_in_virtual_time_there_is_no_client_whose_health_could_fail() -> None:
    assert health_of(a_log([(0.0, (0.5,))])) is None
