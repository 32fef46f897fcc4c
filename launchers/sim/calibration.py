"""Which calibration a simulation takes: those shipped here, and those fitted to this user's own studies.

A shipped one is looked for by engine, model and GPU, then by engine and GPU; else the default is taken. The user's
own are files in `$XDG_DATA_HOME/goodtune/calibrations`, one for each engine, version, model and GPU.
"""

import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tuner.config.calibration import Calibration
from tuner.config.strict import parse
from tuner.errors import ConfigError

SHIPPED = Path(__file__).parent / "calibrations"
SIMULATED = "simulated"
"""The version of an engine that is a simulation."""


def _read(path: Path) -> Calibration:
    """Raises ConfigError if the file holds no calibration."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error}); mend or delete it") from error
    return parse(Calibration, content, path)


DEFAULT = _read(SHIPPED / "default.json")
"""For engines and GPUs of which nothing was measured."""


@cache
def shipped_calibration(engine: str, model: str, gpu: str) -> Calibration:
    """The shipped calibration that comes nearest: of this model, else of another one on this engine and GPU."""
    own = [_read(path) for path in sorted(SHIPPED.glob("*.json")) if path.stem != "default"]
    of_engine = [one for one in own if (one.engine, one.gpu) == (engine, gpu)]
    of_model = [one for one in of_engine if one.model == model]
    return next(iter(of_model or of_engine), DEFAULT)


def calibration_for(engine: str, model: str, gpu: str, *, version: str | None) -> Calibration:
    """What a simulation of this server takes: what the user's studies say of it, else what is shipped.

    Of several versions of the engine `version` is taken, else the last one fitted. Raises ConfigError if a file there
    holds no calibration.
    """
    own = [one for one in stored() if (one.engine, one.model, one.gpu) == (engine, model, gpu)]
    latest_last = sorted(own, key=lambda one: (one.version == version, one.fitted))
    return latest_last[-1] if latest_last else shipped_calibration(engine, model, gpu)


def stored() -> Iterator[Calibration]:
    """Everything fitted to this user's studies."""
    yield from (_read(path) for path in sorted(store_folder().glob("*.json")))


def store(calibration: Calibration) -> Path:
    """Keep it for later simulations, in place of what was known of the same engine, version, model and GPU."""
    key = (calibration.engine, calibration.version, calibration.model, calibration.gpu)
    name = "_".join(re.sub(r"[^\w.+-]", "-", part) for part in key)
    folder = store_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write(path, calibration)
    return path


def store_folder() -> Path:
    """Where this user's calibrations are."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "goodtune" / "calibrations"


def write(path: Path, calibration: Calibration) -> None:
    """The calibration as a file, in place when complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(calibration.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
