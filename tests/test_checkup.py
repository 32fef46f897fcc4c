"""`tune doctor`: each thing that can be wrong with a box is said in words that tell what to do."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from launchers.driver import Occupant
from launchers.engines import ENGINES
from tuner.cli.checkup import about_engine, about_gpu
from tuner.cli.machine import Machine, about, about_driver, look
from tuner.gpus import Device

FINE = Machine(rooms={"results": 100.0, "/tmp": 100.0, "~/.cache/huggingface": 500.0})
HUB = "~/.cache/huggingface"


def complaints(machine: Machine, gpus: int = 8) -> list[tuple[str, str]]:
    return [(found.state, found.text) for found in about(machine, gpus) if found.state != "good"]


def test_a_machine_that_is_fine_is_not_complained_about() -> None:
    assert complaints(FINE) == []
    assert list(about_driver(replace(FINE, nvidia=8, driver=True), gpus=8, visible=8)) == []


@pytest.mark.parametrize(
    ("changed", "state", "words"),
    [
        pytest.param({"cores": 2}, "note", "cores of its own", id="few cores"),
        pytest.param({"memory_gib": 3.2}, "note", "3.2 GiB of memory left", id="little memory"),
        pytest.param({"shared_memory_gib": 0.0625}, "bad", "64 MiB.*--shm-size=8g", id="docker's shared memory"),
        pytest.param({"open_files": 4096}, "note", "4096 open files.*ulimit -n", id="few open files"),
        pytest.param({"open_files": 256}, "bad", "256 open files", id="far too few open files"),
        pytest.param({"ports": 1000}, "note", "1000 ports.*ip_local_port_range", id="few ports"),
        pytest.param({"loopback": False}, "bad", "nothing can listen on 127.0.0.1", id="no loopback"),
        pytest.param({"results_writable": False}, "bad", "not writable; studies go there", id="nowhere to write"),
        pytest.param({"rooms": {"results": 1.0}}, "bad", "1 GiB free in results", id="a full disk"),
        pytest.param({"rooms": {"/tmp": 0.1}}, "bad", "/tmp is nearly full.*TMPDIR", id="a full /tmp"),
        pytest.param({"rooms": {HUB: 5.0}}, "note", "5 GiB free for models.*HF_HOME", id="no room for models"),
        pytest.param({"hub_writable": False}, "bad", "no model can be fetched; set HF_HOME", id="a cache not ours"),
        pytest.param({"environment": {"HF_HUB_OFFLINE": "1"}, "hub_models": 3}, "note", "only the 3 models in",
                     id="offline"),
        pytest.param({"environment": {"https_proxy": "http://p"}}, "note", "HTTPS_PROXY: engines", id="a proxy"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_box_with_gpus(changed: dict[str, object], state: str, words: str) -> None:
    (found,) = complaints(replace(FINE, **changed))  # type: ignore[arg-type]
    assert found[0] == state
    assert re.search(words, found[1])


def test_what_only_real_engines_need_does_not_hinder_a_simulation() -> None:
    assert complaints(replace(FINE, shared_memory_gib=0.0625), gpus=0)[0][0] == "note"


@pytest.mark.parametrize(
    ("machine", "gpus", "visible", "state", "words"),
    [
        pytest.param(FINE, 0, 0, "note", "studies are simulated", id="no GPU"),
        pytest.param(replace(FINE, nvidia=2), 0, 0, "bad", "no driver is loaded", id="no driver"),
        pytest.param(replace(FINE, nvidia=2, driver=True), 0, 0, "bad", "shows no GPU", id="a driver that fails"),
        pytest.param(replace(FINE, environment={"CUDA_VISIBLE_DEVICES": "0,1"}), 8, 2, "note",
                     "CUDA_VISIBLE_DEVICES=0,1 leaves 2 of 8", id="some hidden"),
        pytest.param(replace(FINE, environment={"CUDA_VISIBLE_DEVICES": ""}), 8, 0, "bad", "leaves 0 of 8",
                     id="all hidden"),
    ],
)  # fmt: skip
def test_why_there_are_no_gpus_to_use(machine: Machine, gpus: int, visible: int, state: str, words: str) -> None:
    (found,) = about_driver(machine, gpus, visible)
    assert found.state == state and words in found.text


def test_a_gpu_is_known_and_its_user_named() -> None:
    device = Device(0, "NVIDIA H100 80GB HBM3", 79.6)
    (known,) = about_gpu(device)
    assert known.state == "good" and "tuned as h100" in known.text
    _, busy = about_gpu(replace(device, occupants=(Occupant(4711, "python", 40.0),)))
    assert busy.state == "bad" and "4711" in busy.text


def an_executable(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vllm"
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("#!/nowhere/bin/python\n", "its Python, /nowhere/bin/python, is gone", id="a moved environment"),
        pytest.param("#!/bin/sh\necho 'ImportError: no torch' >&2; exit 1\n", "ImportError: no torch", id="broken"),
    ],
)
def test_an_engine_that_is_there_but_does_not_start_is_told_with_why(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    executable = an_executable(tmp_path / "bin", text)
    (found,) = about_engine("vllm", ENGINES["vllm"], {"vllm": str(executable)})
    assert found.state == "bad" and words in found.text


def test_an_engine_that_is_not_installed_is_no_trouble_unless_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("GOODTUNE_VLLM", raising=False)
    (absent,) = about_engine("vllm", ENGINES["vllm"], {})
    assert absent.state == "note" and "tune engines install vllm" in absent.text
    (wrong,) = about_engine("vllm", ENGINES["vllm"], {"vllm": "/nowhere"})
    assert wrong.state == "bad"


def test_this_machine_can_be_looked_at() -> None:
    machine = look()
    assert machine.cores > 0 and machine.memory_gib > 0 and machine.loopback
    assert machine.results in machine.rooms and machine.scratch in machine.rooms and machine.hub in machine.rooms
