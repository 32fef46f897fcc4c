"""Reading YAML: every mistake is one line that names file, key and what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from tuner.config.strict import Strict, parse, read_yaml
from tuner.errors import ConfigError


class Wheel(Strict):
    size: int
    tyre: Literal["winter", "summer"] = "summer"


class Car(Strict):
    name: str
    spare: Wheel | None = None
    wheels: dict[str, Wheel] = {}
    trailers: list[dict[str, list[Wheel]]] = []
    weight: tuple[float, float] = (0, 1)


CASES = [
    pytest.param("name: a\nspear: {size: 1}", "unknown key 'spear' (did you mean 'spare'?); allowed: "
                 "'name', 'spare', 'trailers', 'weight', 'wheels'", id="typo at the top"),
    pytest.param("name: a\nspare: {sise: 1, size: 2}", "spare: unknown key 'sise' (did you mean 'size'?); allowed: "
                 "'size', 'tyre'", id="typo in a nested mapping"),
    pytest.param("name: a\nwheels: {left: {sise: 1, size: 2}}", "wheels.left: unknown key 'sise' (did you mean "
                 "'size'?); allowed: 'size', 'tyre'", id="typo in a mapping of mappings"),
    pytest.param("name: a\ntrailers: [{x: [{qqq: 1, size: 2}]}]", "trailers.0.x.0: unknown key 'qqq'; allowed: "
                 "'size', 'tyre'", id="typo deep inside"),
    pytest.param("spare: {size: 1}", "the key 'name' is missing", id="missing key"),
    pytest.param("name: a\nwheels: {left: {}}", "the key 'wheels.left.size' is missing", id="missing nested key"),
    pytest.param("name: a\nspare: {size: wide}", "spare.size: should be a valid integer, unable to parse string as "
                 "an integer, found 'wide'", id="wrong type"),
    pytest.param("name: a\nspare: {size: 1, tyre: slick}", "spare.tyre: should be 'winter' or 'summer', "
                 "found 'slick'", id="unknown choice"),
    pytest.param("name: a\nspare: 3", "spare: a mapping of keys is expected, found 3", id="value for a mapping"),
    pytest.param("name: a\nweight: [1]", "weight: more values are expected", id="too few values"),
    pytest.param("name: a\nweight: [1, 2, 3]", "weight: fewer values are expected, found [1, 2, 3]", id="too many"),
    pytest.param("name: a\nwheels: {on: {size: 1}}", "wheels: YAML reads a key as no text; write on, off and numbers "
                 "in quotes", id="YAML's own idea of on"),
    pytest.param("name: a\nname: b", "not valid YAML: the key 'name' stands twice in the mapping at line 1",
                 id="the same key twice"),
    pytest.param("name: a\nspare: {size: 1, size: 2}", "not valid YAML: the key 'size' stands twice in the mapping "
                 "at line 2", id="the same nested key twice"),
    pytest.param("", "a mapping of keys is expected, found an empty file", id="empty"),
    pytest.param("- a", "a mapping of keys is expected, found a list", id="list"),
]  # fmt: skip


@pytest.mark.parametrize("text, message", CASES)
def test_a_mistake_is_one_line_with_file_key_and_what_is_allowed(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "car.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as mistake:
        parse(Car, read_yaml(file), file)
    assert str(mistake.value) == f"{file}: {message}"


def test_two_mistakes_are_two_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as mistake:
        parse(Car, {"nmae": "a"}, "--car")
    assert str(mistake.value).splitlines() == [
        "--car: unknown key 'nmae' (did you mean 'name'?); allowed: 'name', 'spare', 'trailers', 'weight', 'wheels'",
        "--car: the key 'name' is missing",
    ]


def test_text_that_is_no_yaml_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("a: 1\nb: ]")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not valid YAML: .*line 2") as mistake:
        read_yaml(file)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["a directory", "absent"])
def test_a_file_that_cannot_be_read_says_why(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match=r"x\.yaml: cannot be read: (Is a directory|No such file or directory)"):
        read_yaml(tmp_path / "x.yaml")


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"x\.yaml: not a text in UTF-8"):
        read_yaml(tmp_path / "x.yaml")


def test_values_do_not_change() -> None:
    wheel = Wheel(size=1)
    with pytest.raises(ValueError, match="frozen"):
        wheel.size = 2  # type: ignore[misc]
