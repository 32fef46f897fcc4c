"""Where an engine is installed: as the user says, by an environment variable, on PATH, or in the user's own data."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from launchers.engine import Engine
from launchers.userdata import user_data
from tuner.errors import EngineMissing

CPU = "-cpu"


def find_executable(engine: Engine, executables: Mapping[str, str] | None = None) -> Path:
    """The engine's executable: from `executables` by its name, `$GOODTUNE_...`, PATH, what `tune engines install` has
    made, in this order.

    The user may also name the folder of a virtual environment. Raises EngineMissing.
    """
    given = (executables or {}).get(engine.name)
    if given:
        return _executable_at(engine, given, "--engine-bin")
    from_environment = os.environ.get(engine.variable)
    if from_environment:
        return _executable_at(engine, from_environment, engine.variable)
    on_path = shutil.which(engine.executable)
    if on_path:
        return Path(on_path)
    for build in ("", CPU):
        if made := managed_executable(engine, build):
            return made
    instead = ", or simulate it with --simulate virtual" if engine.is_simulated else ""
    raise EngineMissing(
        f"{engine.name} is not installed: no '{engine.executable}' on PATH. Install it (`{engine.install}`), or name "
        f"it by {engine.variable}=.../bin/{engine.executable}{instead}"
    )


def managed_executable(engine: Engine, build: str = "") -> Path | None:
    """What `tune engines install` has made of this engine, if it has; `build` CPU: for machines without GPUs."""
    path = environment_folder(engine.name + build) / "bin" / engine.executable
    return path if _is_executable(path) else None


def environment_folder(name: str) -> Path:
    """Where `tune engines install NAME` makes an environment, unless it is told where."""
    return user_data("engines") / name


def where_found(engine: Engine) -> str:
    """The path of the engine's executable here, or that there is none."""
    try:
        return str(find_executable(engine))
    except EngineMissing:
        return "not installed"


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _executable_at(engine: Engine, given: str, said_by: str) -> Path:
    path = Path(given).expanduser()
    for candidate in (path, path / "bin" / engine.executable, path / engine.executable):
        if _is_executable(candidate):
            # Not resolved: an environment's Python is found by where the link stands, not by where it points.
            return candidate.absolute()
    raise EngineMissing(
        f"{said_by}={given}: there is no {engine.name} to execute; give the path of its '{engine.executable}', "
        "or the folder of the environment it is installed in"
    )
