"""Containers: an engine out of an image, by the docker command. Not run on hardware by anybody here.

The server listens on 127.0.0.1 of this machine (`--network host`), sees only its GPUs, and reads the model where it
lies on this machine. Its container has a name of its own, and exactly that one is removed behind it.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from launchers.engine import Engine
from tuner.errors import EngineMissing

ASK_TIMEOUT_S, PULL_TIMEOUT_S = 180.0, 3600.0
# The user's own access to the hub, and his way to it, if he has set any.
PASSED_ON = ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def docker_for(image: str) -> str:
    """The docker command. Raises EngineMissing where there is none, or its daemon does not answer."""
    docker = shutil.which("docker")
    if docker is None:
        raise EngineMissing(
            f"--image {image}: there is no docker command on this machine; install Docker, or install the "
            "engine itself (tune engines install) and leave --image out"
        )
    _ask((docker, "version", "--format", "{{.Server.Version}}"), ASK_TIMEOUT_S, f"--image {image}")
    return docker


def image_id(docker: str, image: str) -> str:
    """What this machine has under the name `image`, pulled if it has nothing. Raises EngineMissing."""
    inspect = (docker, "image", "inspect", "--format", "{{.Id}}", image)
    what = f"--image {image}"
    try:
        return _ask(inspect, ASK_TIMEOUT_S, what).strip()
    except EngineMissing:
        _ask((docker, "pull", "--quiet", image), PULL_TIMEOUT_S, what)
        return _ask(inspect, ASK_TIMEOUT_S, what).strip()


def asking(docker: str, image: str, entrypoint: str) -> tuple[str, ...]:
    """The words before those that an image's `entrypoint` is asked something with."""
    return (docker, "run", "--rm", "--network", "none", "--entrypoint", entrypoint, image)


def deployed(engine: Engine, image: str, gpus: int, model: str) -> tuple[str, ...]:
    """What stands before the engine's own words in a command that serves `model` out of `image` (0 GPUs: on none)."""
    return (*_run(("--gpus", str(gpus)) if gpus else (), model), *_started(engine, image))


@dataclass(frozen=True)
class Container:
    """A server's container: its name, the GPUs it sees, and the variables it gets of its client's environment."""

    name: str
    gpus: tuple[int, ...]
    variables: Collection[str]


def supervised(engine: Engine, image: str, model: str, container: Container) -> tuple[str, ...]:
    """The same words for a server of a study."""
    # Docker splits at commas what is not in quotes of its own.
    devices = ("--gpus", '"device=' + ",".join(map(str, container.gpus)) + '"') if container.gpus else ()
    passed = [word for variable in sorted({*container.variables, *PASSED_ON}) for word in ("--env", variable)]
    kept = [word for volume in _caches(engine) for word in ("--volume", volume)]
    return (*_run((*devices, "--name", container.name), model), *kept, *passed, *_started(engine, image))


def container_name(study: str, trial: str) -> str:
    """The name of a container: the study's, the trial's, and the tuner's process, so that no two tuners meet."""
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", f"goodtune-{study}-{trial}-{os.getpid()}")


def removal(name: str) -> tuple[str, ...]:
    """The command that ends and removes exactly this container."""
    return ("docker", "rm", "--force", name)


def _run(options: tuple[str, ...], model: str) -> tuple[str, ...]:
    return ("docker", "run", "--rm", "--network", "host", "--ipc", "host", *options, *_files(model))


def _files(model: str) -> tuple[str, ...]:
    """A model's folder, or the hub's cache, under the same path as on this machine."""
    if Path(model).is_dir():
        folder = str(Path(model).absolute())
        return ("--volume", f"{folder}:{folder}:ro", "--workdir", str(Path.cwd()))
    hub = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    return ("--volume", f"{hub}:{hub}", "--env", f"HF_HOME={hub}")


def _caches(engine: Engine) -> tuple[str, ...]:
    """Volumes that keep what engines compile (by root, as which their images run) from one server to the next.

    vLLM, FlashInfer and DeepGEMM put it into `.cache`, Triton into `.triton`. `docker volume rm` forgets it.
    """
    return tuple(f"goodtune-{engine.name}-{name}:/root/.{name}" for name in ("cache", "triton"))


def _started(engine: Engine, image: str) -> tuple[str, ...]:
    return ("--entrypoint", engine.image_entrypoint or engine.executable, image)


def _ask(command: tuple[str, ...], timeout_s: float, what: str) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineMissing(f"{what}: `{' '.join(command)}` does not answer: {error}") from error
    if answer.returncode != 0:
        words = (answer.stderr.strip() or answer.stdout.strip() or "no word").splitlines()[-1]
        raise EngineMissing(f"{what}: `{' '.join(command)}` fails with exit code {answer.returncode}: {words}")
    return answer.stdout
