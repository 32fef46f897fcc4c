import stat
from pathlib import Path

import pytest

from launchers.engines import ENGINES
from launchers.find import find_executable
from tuner.errors import EngineMissing

VLLM = ENGINES["vllm"]


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(VLLM.variable, raising=False)


def an_executable(folder: Path) -> Path:
    executable = folder / "vllm"
    executable.parent.mkdir(parents=True, exist_ok=True)
    executable.write_text("#!/bin/sh\n")
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    return executable


def test_an_engine_is_found_on_path(tmp_path, monkeypatch):
    executable = an_executable(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_executable(VLLM) == executable


def test_its_variable_comes_before_path_and_the_option_before_both(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(an_executable(tmp_path / "path").parent))
    by_variable = an_executable(tmp_path / "variable")
    by_option = an_executable(tmp_path / "option")
    monkeypatch.setenv(VLLM.variable, str(by_variable))
    assert find_executable(VLLM) == by_variable
    assert find_executable(VLLM, {"vllm": str(by_option)}) == by_option
    assert find_executable(VLLM, {"sglang": str(by_option)}) == by_variable


def test_the_folder_of_an_environment_will_do(tmp_path, monkeypatch):
    executable = an_executable(tmp_path / "bin")
    monkeypatch.setenv(VLLM.variable, str(tmp_path))
    assert find_executable(VLLM) == executable


def test_a_missing_engine_says_how_to_get_it_and_how_to_do_without():
    with pytest.raises(EngineMissing) as missing:
        find_executable(VLLM)
    message = str(missing.value)
    assert "vllm is not installed" in message
    assert VLLM.install in message
    assert "GOODTUNE_VLLM=" in message
    assert "--simulate virtual" in message


def test_a_wrong_path_names_who_gave_it(tmp_path, monkeypatch):
    (tmp_path / "vllm").write_text("not executable")
    with pytest.raises(EngineMissing, match=f"--engine-bin={tmp_path}: there is no vllm to execute"):
        find_executable(VLLM, {"vllm": str(tmp_path)})
    monkeypatch.setenv(VLLM.variable, "/nowhere")
    with pytest.raises(EngineMissing, match="GOODTUNE_VLLM=/nowhere"):
        find_executable(VLLM)
