"""The catalog: names to checked values. The name is the file."""

import re
from pathlib import Path
from typing import TypeVar

import search_spaces
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.model import Model, model_from_config_json
from tuner.config.slo import Slo
from tuner.config.strict import Strict, parse, read_yaml, suggestion
from tuner.config.workload import Workload
from tuner.errors import ConfigError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

S = TypeVar("S", Model, EngineSpec, Slo, Workload, Gpu)

FOLDERS: dict[type[Strict], str] = {
    Model: "models",
    EngineSpec: "engines",
    Slo: "slos",
    Workload: "workloads",
    Gpu: "gpus",
}


def names(kind: type[Strict]) -> list[str]:
    """Every name of this kind, sorted."""
    return sorted(path.stem for path in (search_spaces.ROOT / FOLDERS[kind]).glob("*.yaml"))


def load(kind: type[S], name: str) -> S:
    """The `kind` called `name`, or the one in the YAML file `name`. Raises ConfigError."""
    path = _path(kind, name)
    return parse(kind, {"name": path.stem, **read_yaml(path)}, path)


def load_model(name: str) -> Model:
    """A model by our name, a directory with a `config.json`, or a Hugging Face id whose config.json can be had."""
    if name in names(Model):
        return load(Model, name).located()
    directory = Path(name).expanduser()
    if directory.is_dir() or name.startswith(("/", ".", "~")):
        return _model_in(directory)
    if HUB_ID.fullmatch(name) and not name.endswith((".yaml", ".yml")):
        from tuner.config.hub import config_json_of

        return model_from_config_json(name, name, config_json_of(name))
    return load(Model, name).located()


def _model_in(directory: Path) -> Model:
    if directory.suffix in {".yaml", ".yml"}:
        return load(Model, str(directory)).located()
    if not (directory / "config.json").is_file():
        raise ConfigError(f"{directory}: no directory with a config.json, so it is no model")
    resolved = directory.resolve()
    return model_from_config_json(resolved.name, str(resolved), resolved / "config.json")


def _path(kind: type[Strict], name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        return Path(name).expanduser()
    known = names(kind)
    if name not in known:
        word = FOLDERS[kind].removesuffix("s")
        raise ConfigError(f"no {word} named '{name}'{suggestion(name, known)}; there is: {', '.join(known)}")
    return search_spaces.ROOT / FOLDERS[kind] / f"{name}.yaml"
