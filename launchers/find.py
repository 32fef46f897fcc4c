"""Where an engine is installed: as the user says, by an environment variable, or on PATH."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from launchers.engine import Engine
from tuner.errors import EngineMissing


def find_executable(engine: Engine, executables: Mapping[str, str] | None = None) -> Path:
    """The engine's executable: from `executables` by its name, `$GOODTUNE_...`, PATH, in this order.

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
    raise EngineMissing(
        f"{engine.name} is not installed: no '{engine.executable}' on PATH. Install it (`{engine.install}`) and name "
        f"it by {engine.variable}=.../bin/{engine.executable}, or simulate it with --simulate virtual"
    )


def _executable_at(engine: Engine, given: str, said_by: str) -> Path:
    path = Path(given).expanduser()
    for candidate in (path, path / "bin" / engine.executable, path / engine.executable):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            # Not resolved: an environment's Python is found by where the link stands, not by where it points.
            return candidate.absolute()
    raise EngineMissing(
        f"{said_by}={given}: there is no {engine.name} to execute; give the path of its '{engine.executable}', "
        "or the folder of the environment it is installed in"
    )
