"""Install an engine for the user into an environment of its own, and try it out. Found from then on, behind PATH."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import httpx

from launchers.engine import Engine
from launchers.engines import ENGINES
from launchers.find import environment_folder
from launchers.flags import Installed, installed
from launchers.recipes import Recipe, environment
from launchers.served import Serving, open_served
from launchers.tinymodel import VOCAB, make_tiny_model
from tuner.errors import EngineMissing, ServerFailed

Say = Callable[[str], None]

# Torch with CUDA and its kernels take about this much, a CPU build a third of it.
ROOM_GIB, ROOM_ON_A_CPU_GIB = 15.0, 5.0
GIB = 2**30
TRY_TIMEOUT_S = 120.0
LOG_NAME = "first-start.log"


def install(recipe: Recipe, version: str, folder: Path | None, say: Say) -> Installed:
    """The engine of `recipe` in `folder` (default: among the user's own data), made if it is not there.

    Raises EngineMissing with what went wrong, if it cannot be made or does not start.
    """
    env = environment(folder or environment_folder(recipe.name))
    engine = ENGINES[recipe.engine]
    executable = env.folder / "bin" / engine.executable
    if executable.is_file() and _is_of((there := installed(engine, executable)).version, version):
        say(f"{executable}: {recipe.name} {there.version} is there")
        return there
    _check_room(env.folder, ROOM_ON_A_CPU_GIB if recipe.on_cpu else ROOM_GIB)
    say(f"installing {recipe.name} {version} into {env.folder}, by {'uv' if env.uv else 'pip'}; it takes minutes")
    env.make()
    recipe.steps(env, version)
    if not executable.is_file():
        raise EngineMissing(f"{env.folder}: {recipe.name} {version} brought no {engine.executable} (see {env.log})")
    made = installed(engine, executable)
    say(f"{executable}: {recipe.name} {made.version}, {len(made.flags)} flags")
    return made


def try_out(engine: Engine, executable: Path, *, on_cpu: bool) -> None:
    """Start the engine with a tiny model, have one short answer, stop it. Raises EngineMissing with why it fails.

    What the server says is kept beside the engine's environment.
    """
    log = executable.parent.parent / LOG_NAME
    with tempfile.TemporaryDirectory(prefix="goodtune-") as scratch:
        model = Path(scratch) / "tiny"
        make_tiny_model(model)
        words = (str(executable), *engine.serve, *engine.model_flag, str(model), engine.context_flag, "2048")
        serving = Serving(
            engine=engine,
            command=(*words, *(engine.cpu_flags if on_cpu else ())),
            model="tiny",
            vocab=VOCAB,
            log=log,
            env={**(engine.cpu_env if on_cpu else {}), "HF_HUB_OFFLINE": "1"},
        )
        try:
            with open_served(serving) as target:
                _answer(target.endpoint.base_url)
        except ServerFailed as failed:
            raise EngineMissing(f"{executable} does not serve a tiny model: {failed.args[0]}") from failed


def _is_of(there: str, wanted: str) -> bool:
    """Whether a version is the one wanted, or a build or patch of it: 0.32.0+cpu is 0.32.0 and 0.32, not 0.3."""
    return there == wanted or there.startswith((f"{wanted}.", f"{wanted}+"))


def _answer(base_url: str) -> None:
    body = {"model": "tiny", "prompt": [10, 11, 12], "max_tokens": 4, "temperature": 0}
    answer = httpx.post(f"{base_url}/v1/completions", json=body, timeout=TRY_TIMEOUT_S, trust_env=False)
    if not answer.is_success:
        raise EngineMissing(
            f"the server of a tiny model refused a short prompt ({answer.status_code}): {answer.text[:300]}"
        )


def _check_room(folder: Path, needed_gib: float) -> None:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free_gib = shutil.disk_usage(there).free / GIB
    if free_gib < needed_gib:
        raise EngineMissing(
            f"{there}: {free_gib:.0f} GiB free, about {needed_gib:.0f} are needed; give another --into"
        )
