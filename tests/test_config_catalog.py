"""Names to values: our own files, other YAML files, directories, hub ids."""

import json
from pathlib import Path
from typing import Any

import pytest

from tuner.config.catalog import load, load_model, names
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.slo import Slo
from tuner.config.workload import Workload
from tuner.errors import ConfigError


@pytest.mark.parametrize(
    "kind, typo, hint",
    [
        (Slo, "caht", "no slo named 'caht' (did you mean 'chat'?); there is: agent, batch, chat, "),
        (EngineSpec, "vlm", "no engine named 'vlm' (did you mean 'vllm'?); there is: sglang, tgi, trtllm, vllm"),
        (Gpu, "h1000", "no gpu named 'h1000' (did you mean 'h100'?); there is: a100, cpu, "),
        (Workload, "zzz", "no workload named 'zzz'; there is: agent, batch, chat, "),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_and_all_that_there_are(kind: Any, typo: str, hint: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        load(kind, typo)
    assert str(mistake.value).startswith(hint)


def test_an_unknown_model_is_told_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"no model named 'gwen-7b' \(did you mean 'qwen-7b'\?\); there is: llama-70b"
    ):
        load_model("gwen-7b")


def test_the_name_is_the_file() -> None:
    assert [load(Slo, name).name for name in names(Slo)] == names(Slo)


def test_a_yaml_file_of_ones_own_is_as_good_as_ours(tmp_path: Path) -> None:
    (tmp_path / "strict.yaml").write_text(
        "title: mine\nsource: me\nworkload: chat\nattainment: 0.9\nlimits: {e2e_s: 1}\n"
    )
    slo = load(Slo, str(tmp_path / "strict.yaml"))
    assert (slo.name, slo.limits.e2e_s) == ("strict", 1.0)


def test_a_yaml_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError) as mistake:
        load_model("nowhere.yaml")
    assert str(mistake.value) == "nowhere.yaml: cannot be read: No such file or directory"


def test_a_model_can_be_a_directory_with_a_config_json(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    config = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128,
              "vocab_size": 1000}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    model = load_model(str(folder))
    assert (model.name, model.path, model.architecture.layers) == ("my-model", str(folder), 2)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "../nowhere/x"])
def test_a_directory_that_is_no_model_is_told(name: str) -> None:
    with pytest.raises(ConfigError) as mistake:
        load_model(name)
    assert str(mistake.value) == f"{Path(name)}: no directory with a config.json, so it is no model"


def test_our_names_win_over_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "qwen-7b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_model("qwen-7b").path == "Qwen/Qwen2.5-7B-Instruct"


def test_the_tiny_model_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOODTUNE_TINY_MODEL", str(tmp_path))
    assert load_model("tiny").path == str(tmp_path)


def test_every_kind_has_files() -> None:
    assert all(names(kind) for kind in (Model, EngineSpec, Slo, Workload, Gpu))
