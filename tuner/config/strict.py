"""One way to read a YAML file into a frozen model, with one kind of message for a mistake."""

from collections.abc import Hashable, Iterable
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tuner.errors import ConfigError


class Strict(BaseModel):
    """A frozen value that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


S = TypeVar("S", bound=Strict)

SCALARS = {"bool", "int", "float", "str"}
"""How pydantic calls the members of a union of scalars at the end of a mistake's location."""
EXPECTED = {
    "model_type": "a mapping of keys is expected",
    "dict_type": "a mapping of keys is expected",
    "list_type": "a list is expected",
    "tuple_type": "a list is expected",
    "too_long": "fewer values are expected",
}
"""Plainer words for some kinds of mistake."""


class _NoDuplicates(yaml.SafeLoader):
    """YAML lets a second key of the same name win silently; here it is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"the key '{twice}' stands twice in the mapping at line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path`. Raises ConfigError if it is no YAML, has a key twice, or is no mapping."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_NoDuplicates)
    except yaml.YAMLError as error:
        raise ConfigError(f"{shown(path)}: not valid YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown(path)}: not a text in UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{shown(path)}: cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        found = "an empty file" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"{shown(path)}: a mapping of keys is expected, found {found}")
    return content


def parse(kind: type[S], content: dict[str, Any], where: Path | str) -> S:
    """`content` as a `kind`. Raises ConfigError with one line for each mistake: file, key, what is allowed."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        place = shown(where) if isinstance(where, Path) else where
        # What is there and wrong before what is missing: a misspelt key is both.
        details = sorted(error.errors(), key=lambda detail: detail["type"] == "missing")
        lines = dict.fromkeys(f"{place}: {_explain(kind, detail)}" for detail in details)
        raise ConfigError("\n".join(lines)) from error


def shown(path: Path) -> str:
    """`path` as a user would type it: from the package's folder for our own files."""
    parts = path.parts
    return str(Path(*parts[parts.index("search_spaces") :])) if "search_spaces" in parts else str(path)


def suggestion(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` where something close is known, else nothing."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _explain(kind: type[BaseModel], detail: ErrorDetails) -> str:
    location = [str(part) for part in detail["loc"]]
    inside, key = ".".join(location[:-1]), ".".join(location)
    if detail["type"] == "extra_forbidden":
        return _unknown_key(kind, location)
    if detail["type"] == "missing":
        is_place = isinstance(detail["loc"][-1], int)
        return f"{inside}: more values are expected" if is_place else f"the key '{key}' is missing"
    if location[-1:] == ["[key]"]:
        return f"{'.'.join(location[:-2])}: YAML reads a key as no text; write on, off and numbers in quotes"
    if location and location[-1] in SCALARS:
        return f"{inside}: a number, a text or a truth value is expected{_found(detail['input'])}"
    if detail["type"] == "value_error":
        return ": ".join(part for part in (key, detail["msg"].removeprefix("Value error, ")) if part)
    message = EXPECTED.get(detail["type"], detail["msg"].replace("Input should", "should"))
    return f"{key}: {message}{_found(detail['input'])}"


def _unknown_key(kind: type[BaseModel], location: list[str]) -> str:
    name, outer = location[-1], location[:-1]
    allowed = _allowed_keys(kind, outer)
    prefix = f"{'.'.join(outer)}: " if outer else ""
    listed = ", ".join(f"'{key}'" for key in allowed)
    return f"{prefix}unknown key '{name}'{suggestion(name, allowed)}; allowed: {listed}"


def _found(value: object) -> str:
    return f", found {value!r}" if isinstance(value, bool | int | float | str | list | NoneType) else ""


def _allowed_keys(kind: type[BaseModel], location: list[str]) -> list[str]:
    """The field names of the model that stands at `location` inside `kind`."""
    annotation: Any = kind
    for part in location:
        annotation = _inside(annotation, part)
    return sorted(annotation.model_fields)


def _inside(annotation: Any, part: str) -> Any:
    """The annotation of what stands at `part` of a value: a model's field, or any item of a list or mapping."""
    held: Any = annotation.model_fields[part].annotation if _is_model(annotation) else get_args(annotation)[-1]
    if get_origin(held) in {list, dict, tuple} or _is_model(held):
        return held
    return next(member for member in get_args(held) if get_origin(member) or _is_model(member))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
