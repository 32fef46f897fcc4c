"""A study on served simulations: real processes over HTTP, killed in mid-trial and taken up again."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.processes import marked, until
from tuner import record

SLO = """
title: quick
source: a test
workload: 64x8
attainment: 0.9
limits: {ttft_s: 0.25}
warmup_s: 0.2
window_s: 0.5
timeout_s: 10
"""
# One or two requests at a time: a server that is full at about 100 req/s keeps the client's work small.
STUDY = [
    *(
        "--model",
        "tiny",
        "--slo",
        "quick.yaml",
        "--simulate",
        "served",
        "--gpus",
        "1",
        "--trials",
        "1",
        "--seeds",
        "2",
    ),
    *("--knob", "max_batch_size=2", "--knob", "gpu_memory_utilization=0.9", "--out", "study", "--plain"),
]
MARK = "GOODTUNE_TEST_SERVED"
WITHIN_S = 120.0


def test_a_tuner_killed_in_mid_trial_leaves_no_server_and_its_study_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text(SLO)
    environment = os.environ | {MARK: str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    killed = subprocess.Popen(
        [sys.executable, "-m", "tuner", *STUDY],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: any("tuner.load.worker" in line for line in marked(MARK, str(tmp_path))))
    assert any("launchers.sim.server" in line for line in marked(MARK, str(tmp_path)))
    killed.kill()
    killed.wait(WITHIN_S)
    until(lambda: not marked(MARK, str(tmp_path)))
    assert record.read_outcomes(tmp_path / "study") == []

    resumed = subprocess.run(
        [sys.executable, "-m", "tuner", *STUDY, "--resume"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert resumed.returncode in {0, 4}, resumed.stderr
    # On a machine that is busy with other things a trial may have been void, and measured again.
    *void, outcome = record.read_outcomes(tmp_path / "study")
    assert all(one.failure and one.failure.kind == "void" for one in void)
    assert outcome.state == "measured"
    assert outcome.best and outcome.best.attainment > 0.8
    assert all(probe.health and probe.health.cached_frac is not None for probe in outcome.probes)
    assert (tmp_path / "study" / "trials" / f"{outcome.trial:04d}" / "server.log").stat().st_size > 0
    assert outcome.best.engine and outcome.best.engine.scrapes > 0
    assert outcome.capacity_by == "queue_time"
    scrapes = pq.read_table(tmp_path / "study" / "trials" / f"{outcome.trial:04d}" / "metrics.parquet").to_pydict()
    assert {"running", "queue_counts", "hit_tokens"} <= set(scrapes)
    assert scrapes["generated_tokens"] == sorted(scrapes["generated_tokens"])
    assert set(scrapes["probe"]) == set(range(max(scrapes["probe"]) + 1))
    assert "What did the engine do?" in (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    (comparison,) = record.read_summary(tmp_path / "study").simulation
    assert comparison.probes > 0 and comparison.calibration
    assert comparison.kept is None and not (tmp_path / "data").exists(), "a simulation teaches nothing of the engine"
    assert "median error over" in resumed.stdout
    assert not marked(MARK, str(tmp_path))
