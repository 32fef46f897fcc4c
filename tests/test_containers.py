"""An engine out of a container image: its own flags, one container a server, none left behind. `docker` is a fake."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from launchers.command import command_of
from launchers.engines import ENGINES
from launchers.flags import fitted, in_image
from launchers.open import open_target
from launchers.served import ServedTarget
from tests.builders import a_gpu, a_plan
from tests.fakes.fake_docker import Daemon
from tests.test_supervisor import end_within_patience
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.config.plan import Box, Plan
from tuner.configuration import Configuration
from tuner.errors import EngineMissing, FailureKind, ServerFailed

ROOT = Path(__file__).parent.parent
FAKE = ROOT / "tests" / "fakes" / "fake_docker.py"
IMAGE = "vllm/vllm-openai:v0.33.0"
DEFAULT = Configuration("vllm", {"max_batch_size": 1024, "tp": 2}, is_default=True)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`docker` on PATH, its daemon running. Returns the daemon's folder."""
    command = tmp_path / "bin" / "docker"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "docker"
    monkeypatch.setenv("FAKE_DOCKER", str(folder))
    with Daemon(folder) as daemon:
        daemon.serve()
        yield folder
        daemon.shutdown()


def calls(docker: Path, verb: str) -> list[list[str]]:
    return [call for line in (docker / "calls").read_text().splitlines() if (call := json.loads(line))[0] == verb]


def containers(docker: Path) -> list[str]:
    return [path.name for path in (docker / "containers").iterdir()]


def a_plan_of_images(tmp_path: Path) -> Plan:
    box = Box(a_gpu(), (0, 1, 2, 3), None)
    return a_plan(engines=(load(EngineSpec, "vllm"),), box=box, images={"vllm": IMAGE}, out=tmp_path / "a study")


def test_an_image_is_asked_for_its_flags_and_version_once_and_pulled_if_it_is_not_there(docker: Path) -> None:
    here = in_image(ENGINES["vllm"], IMAGE)
    assert fitted(load(EngineSpec, "vllm"), here)[1] == ()
    assert [call[-1] for call in calls(docker, "pull")] == [IMAGE]
    assert in_image(ENGINES["vllm"], IMAGE) == here
    assert len(calls(docker, "run")) == 2, "version and help"
    assert containers(docker) == []


def test_a_server_runs_in_one_container_on_its_gpus_and_this_machines_address_and_is_removed(
    docker: Path, tmp_path: Path
) -> None:
    plan = a_plan_of_images(tmp_path)
    with open_target(plan, DEFAULT, (2, 3), tmp_path / "0007") as target:
        assert isinstance(target, ServedTarget)
        name = f"goodtune-a-study-0007-{os.getpid()}"
        assert containers(docker) == [name]
        body = {"model": "qwen-7b", "prompt": [1, 2, 3], "max_tokens": 2}
        assert httpx.post(f"{target.endpoint.base_url}/v1/completions", json=body, timeout=30).is_success
        inside = int((docker / "containers" / name).read_text())
    assert end_within_patience([inside])
    assert containers(docker) == []
    run = calls(docker, "run")[0]
    assert run[run.index("--gpus") + 1] == '"device=2,3"'
    assert run[run.index("--network") + 1] == "host"
    assert run[run.index("--host") + 1] == "127.0.0.1"
    assert run[run.index(IMAGE) - 2 : run.index(IMAGE)] == ["--entrypoint", "vllm"]
    assert "VLLM_NO_USAGE_STATS" in run
    # What one server compiles is there for the next; it starts in minutes less.
    volumes = [run[at + 1] for at, word in enumerate(run) if word == "--volume"]
    assert {"goodtune-vllm-cache:/root/.cache", "goodtune-vllm-triton:/root/.triton"} <= set(volumes)
    assert calls(docker, "rm") == [["rm", "--force", name]]


def test_before_a_container_starts_its_gpus_are_as_they_were_when_the_study_began(
    docker: Path, tmp_path: Path
) -> None:
    plan = a_plan_of_images(tmp_path)
    plan = replace(plan, box=replace(plan.box, idle_gib={0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5}))
    with (
        pytest.raises(ServerFailed, match="GPU 2: the driver does not know it any more") as failed,
        open_target(plan, DEFAULT, (2, 3), tmp_path / "0007"),
    ):
        pass
    assert failed.value.kind is FailureKind.GPU_LOST
    assert not (docker / "calls").exists()


def test_the_command_that_is_shown_starts_the_same_image(tmp_path: Path) -> None:
    command = command_of(a_plan_of_images(tmp_path), DEFAULT)
    assert command[:4] == ("docker", "run", "--rm", "--network")
    assert command[command.index("--gpus") + 1] == "2"
    assert "--name" not in command and not any("goodtune" in word for word in command)
    assert command[command.index("--entrypoint") :][:6] == (
        *("--entrypoint", "vllm", IMAGE, "serve", "Qwen/Qwen2.5-7B-Instruct", "--tensor-parallel-size"),
    )


def test_a_model_on_this_machine_is_mounted_where_it_lies(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    plan = a_plan_of_images(tmp_path)
    local = a_plan(images=plan.images, box=plan.box, model=plan.model.model_copy(update={"path": str(model)}))
    command = command_of(local, DEFAULT)
    assert command[command.index("--volume") + 1] == f"{model}:{model}:ro"


def test_a_container_does_not_outlive_a_tuner_that_is_killed(docker: Path, tmp_path: Path) -> None:
    script = tmp_path / "study_of_containers.py"
    script.write_text(
        "import time\nfrom pathlib import Path\n"
        "from tests.test_containers import DEFAULT, a_plan_of_images\n"
        "from launchers.open import open_target\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "with open_target(a_plan_of_images(folder), DEFAULT, (0,), folder / '0001'):\n"
        "    print('ready', flush=True)\n    time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=ROOT) as tuner:
        assert tuner.stdout and tuner.stdout.readline() == "ready\n"
        inside = int((docker / "containers" / containers(docker)[0]).read_text())
        guardian = psutil.Process(tuner.pid).children()[0]
        tuner.send_signal(signal.SIGKILL)
        assert end_within_patience([inside, guardian.pid])
    assert len(calls(docker, "rm")) == 1


def test_without_docker_or_its_daemon_there_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineMissing, match=f"--image {IMAGE}: there is no docker command"):
        in_image(ENGINES["vllm"], IMAGE)
    command = tmp_path / "docker"
    command.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EngineMissing, match=r"exit code 1: Cannot connect to the Docker daemon"):
        in_image(ENGINES["vllm"], IMAGE)
