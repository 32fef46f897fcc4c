import json
from importlib import import_module
from pathlib import Path

import pytest

from launchers.sim.calibration import SHIPPED, calibration_for, store, store_folder, stored
from tests.builders import a_calibration
from tuner.config.calibration import Calibration
from tuner.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_calibrations")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def factors(one: Calibration) -> tuple[float, float, float]:
    return one.per_step_s, one.prefill_scale, one.decode_scale


def looked_up(version: str | None = None, *, model: str = "qwen-7b"):
    return calibration_for("vllm", model, "h100", version=version)


@pytest.mark.parametrize("over", ["table", "roofline"])
def test_what_is_shipped_is_what_the_rule_gives_on_the_measured_rows(over, monkeypatch):
    """Else run `python benchmarks/simulator_fidelity.py --write-shipped`, and the benchmarks that rest on it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    shipped, again = SHIPPED[over], import_module("shipped_calibrations").refitted(over)
    assert factors(again) == pytest.approx(factors(shipped), rel=0.002)
    same = {"rule", "measured", "probes", "engine", "version", "model", "gpu", "over"}
    assert again.model_dump(include=same) == shipped.model_dump(include=same)


def test_over_a_roofline_nothing_is_shipped_but_a_time_per_step():
    assert factors(SHIPPED["roofline"])[1:] == (1.0, 1.0)


def test_what_a_study_taught_is_used_for_the_same_engine_model_and_gpu_only():
    assert looked_up() == SHIPPED["table"]
    own = a_calibration()
    path = store(own)
    assert json.loads(path.read_text())["probes"] == 34
    assert looked_up() == own
    assert looked_up(model="llama-8b") == SHIPPED["table"]


def test_of_several_versions_the_same_one_is_taken_else_the_last_fitted():
    old = a_calibration(version="0.24.0", fitted="2026-11-22T00:00:00Z")
    new = a_calibration(version="0.32.0", fitted="2026-11-21T00:00:00Z")
    store(old), store(new)
    assert looked_up("0.32.0") == new
    assert looked_up("0.33.0") == old
    assert looked_up() == old


def test_a_later_study_of_the_same_engine_version_model_and_gpu_takes_the_place_of_the_earlier():
    store(a_calibration(measured="first"))
    store(a_calibration(measured="second"))
    assert [one.measured for one in stored()] == ["second"]


def test_a_name_with_a_slash_is_one_file():
    path = store(a_calibration(model="org/model"))
    assert path.parent == store_folder()
    assert looked_up(model="org/model").model == "org/model"


def test_no_half_written_file_is_left_behind():
    store(a_calibration())
    assert [path.suffix for path in store_folder().iterdir()] == [".json"]


@pytest.mark.parametrize("text", ["", "{}", '{"engine": "vllm"'])
def test_a_file_that_is_no_calibration_is_named(text):
    folder = Path(store_folder())
    folder.mkdir(parents=True)
    (folder / "broken.json").write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.json"):
        looked_up()
