"""One way to read a YAML file into a frozen model, with one kind of message for a mistake."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tuner.errors import ConfigError


class Strict(BaseModel):
    """A frozen value that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


S = TypeVar("S", bound=Strict)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path`. Raises ConfigError if it is no YAML or no mapping."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{shown(path)}: not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise ConfigError(f"{shown(path)}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{shown(path)}: a mapping of keys is expected, found {type(content).__name__}")
    return content


def parse(kind: type[S], content: dict[str, Any], where: Path | str) -> S:
    """`content` as a `kind`. Raises ConfigError with one line for each mistake: file, key, what is allowed."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        place = shown(where) if isinstance(where, Path) else where
        lines = [f"{place}: {_explain(kind, content, detail)}" for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def shown(path: Path) -> str:
    """`path` as a user would type it: from the package's folder for our own files."""
    parts = path.parts
    return str(Path(*parts[parts.index("search_spaces") :])) if "search_spaces" in parts else str(path)


def suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` where something close is known, else nothing."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _explain(kind: type[BaseModel], content: object, detail: ErrorDetails) -> str:
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        allowed = _allowed_keys(kind, location[:-1])
        inside = ".".join(location[:-1])
        prefix = f"{inside}: " if inside else ""
        listed = ", ".join(f"'{name}'" for name in allowed)
        return f"{prefix}unknown key '{location[-1]}'{suggestion(location[-1], allowed)}; allowed: {listed}"
    if detail["type"] == "missing":
        return f"the key '{key}' is missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _allowed_keys(kind: type[BaseModel], location: list[str]) -> list[str]:
    """The field names of the model that stands at `location` inside `kind`."""
    current: type[BaseModel] = kind
    for part in location:
        field = current.model_fields.get(part)
        nested = _nested_model(field.annotation) if field else None
        current = nested or current
    return sorted(current.model_fields)


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _nested_model(inner)
        if found:
            return found
    return None
