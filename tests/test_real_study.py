"""A whole study on a real vLLM on this CPU, run with `--real-engines`: what the project is for, end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.processes import marked

pytestmark = pytest.mark.real_engine

MARK = "GOODTUNE_TEST_STUDY"
STUDY = [
    *("--model", "tiny", "--slo", "tiny", "--trials", "6", "--seeds", "2", "--plain", "--json"),
    *("--knob", "max_batch_size=4..64", "--knob", "token_budget=128..2048", "--knob", "prefix_caching=on"),
    *("--knob", "long_prefill_token_threshold=off"),
]


def test_a_study_starts_probes_and_stops_real_servers_and_leaves_none_behind(tmp_path: Path) -> None:
    out = tmp_path / "study"
    environment = {**os.environ, MARK: str(tmp_path)}
    command = [sys.executable, "-m", "tuner", *STUDY, "--out", str(out)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=1500, check=False)
    print(done.stdout)
    assert done.returncode in {0, 4}
    summary = json.loads(done.stdout)
    assert summary["simulated"] is False
    assert summary["trials"]["total"] >= 6
    assert (pd.read_csv(out / "trials.csv")["goodput_rps_per_gpu"] > 0).sum() >= 3
    assert summary["frontier"] and summary["best"]["goodput_rps_per_gpu"] > 0
    assert (out / "report.html").stat().st_size > 0
    assert not marked(MARK, str(tmp_path))
