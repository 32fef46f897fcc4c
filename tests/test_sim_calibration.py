import json
from pathlib import Path

import pytest

from launchers.sim.calibration import DEFAULT, calibration_for, shipped_calibration, store, store_folder, stored
from tests.builders import a_calibration
from tuner.errors import ConfigError

pytestmark = pytest.mark.usefixtures("no_calibrations")


def looked_up(version: str | None = None, *, model: str = "qwen-7b"):
    return calibration_for("vllm", model, "h100", version=version)


@pytest.mark.parametrize(
    "engine, model, gpu, found_model",
    [
        pytest.param("vllm", "qwen3-32b", "h100", "qwen3-32b", id="this model"),
        pytest.param("vllm", "llama-8b", "h100", "qwen3-32b", id="another model on the same engine and GPU"),
        pytest.param("vllm", "qwen3-32b", "h200", "any", id="no measurement on this GPU"),
        pytest.param("sglang", "qwen3-32b", "h100", "any", id="no measurement of this engine"),
    ],
)
def test_the_nearest_shipped_calibration_is_taken(engine, model, gpu, found_model):
    assert shipped_calibration(engine, model, gpu).model == found_model


def test_the_default_scales_no_kernels():
    assert (DEFAULT.prefill_scale, DEFAULT.decode_scale) == (1.0, 1.0)
    assert 0.0005 < DEFAULT.per_step_s < 0.005


def test_what_a_study_taught_is_used_for_the_same_engine_model_and_gpu_only():
    assert looked_up() == shipped_calibration("vllm", "qwen-7b", "h100")
    own = a_calibration()
    path = store(own)
    assert json.loads(path.read_text())["probes"] == 34
    assert looked_up() == own
    assert looked_up(model="llama-8b") == shipped_calibration("vllm", "llama-8b", "h100")


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
