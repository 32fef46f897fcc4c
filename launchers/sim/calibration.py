"""Which calibration a simulation takes: one of the two that are shipped, or one fitted to this user's own studies.

The user's own are files in `$XDG_DATA_HOME/goodtune/calibrations`, one for each engine, version, model and GPU.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from launchers.userdata import user_data
from tuner.config.calibration import Calibration, StepSource
from tuner.config.strict import parse
from tuner.errors import ConfigError

SHIPPED_FOLDER = Path(__file__).parent / "calibrations"
SIMULATED = "simulated"
"""The version of an engine that is a simulation."""


def _read(path: Path) -> Calibration:
    """Raises ConfigError if the file holds no calibration."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error}); mend or delete it") from error
    return parse(Calibration, content, path)


SHIPPED: Mapping[StepSource, Calibration] = {
    "table": _read(SHIPPED_FOLDER / "table.json"),
    "roofline": _read(SHIPPED_FOLDER / "roofline.json"),
}
"""What every simulation begins with, by the kind of its step times; fitted to one engine on one GPU. The same for
all, so that engines and GPUs compare as their kernels do (docs/simulator.md, Calibration)."""


def calibration_for(engine: str, model: str, gpu: str, *, version: str | None) -> Calibration:
    """What a simulation of this server takes: what the user's studies say of it, else what is shipped for tables.

    Of several versions of the engine `version` is taken, else the last one fitted. Raises ConfigError if a file there
    holds no calibration.
    """
    own = [one for one in stored() if (one.engine, one.model, one.gpu) == (engine, model, gpu)]
    latest_last = sorted(own, key=lambda one: (one.version == version, one.fitted))
    return latest_last[-1] if latest_last else SHIPPED["table"]


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
    return user_data("calibrations")


def write(path: Path, calibration: Calibration) -> None:
    """The calibration as a file, in place when complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(calibration.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
