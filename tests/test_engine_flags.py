"""Every flag of the knob files is in the help of every version they are for; `since` and `until` say where not.

`tests/data/engine_flags.json` was recorded by `scripts/record_engine_flags.py` from the help of each version of vLLM
and SGLang, and of TensorRT-LLM and TGI, which nobody has run here, from the flags in their source and reference.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from launchers.engines import ENGINES
from launchers.flags import Installed, fitted, unknown_flags
from tuner.config.catalog import load, names
from tuner.config.engine import EngineSpec

RECORDED: Mapping[str, Mapping[str, Mapping[str, list[str]]]] = json.loads(
    (Path(__file__).parent / "data" / "engine_flags.json").read_text()
)


def flags_of(engine: str, version: str) -> frozenset[str]:
    flags: frozenset[str] = frozenset()
    for name, changes in RECORDED[engine].items():
        flags = flags - frozenset(changes["removed"]) | frozenset(changes["added"])
        if name == version:
            break
    return flags


VERSIONS = [(engine, version) for engine, versions in RECORDED.items() for version in versions]


@pytest.mark.parametrize("engine, version", VERSIONS)
def test_every_knob_of_a_version_has_its_flags_there(engine: str, version: str) -> None:
    known = flags_of(engine, version)
    lacking = {
        name: unknown_flags(knob.flags, known)
        for name, knob in load(EngineSpec, engine).knobs.items()
        if knob.exists_in(version) and unknown_flags(knob.flags, known)
    }
    assert lacking == {}


@pytest.mark.parametrize("engine", RECORDED)
def test_since_and_until_say_no_more_than_is_so(engine: str) -> None:
    """A knob whose flags are there in the version before `since` needs a reason: one of its values is not."""
    values_are_younger = {"short_prompts_first"}
    versions = list(RECORDED[engine])
    for name, knob in load(EngineSpec, engine).knobs.items():
        elsewhere = [version for version in versions if not knob.exists_in(version)]
        there_too = [version for version in elsewhere if not unknown_flags(knob.flags, flags_of(engine, version))]
        assert there_too == [] or name in values_are_younger, name


@pytest.mark.parametrize("engine, version", VERSIONS)
def test_what_the_tuner_itself_says_to_an_engine_is_known_to_it(engine: str, version: str) -> None:
    about = ENGINES[engine]
    address = (about.host_flag, "--port", *([about.name_flag] if about.name_flag else []))
    ours = (*address, *about.cpu_flags, *about.measuring_flags, *about.model_flag, about.context_flag)
    assert unknown_flags(ours, flags_of(engine, version)) == ()


@pytest.mark.parametrize("engine", RECORDED)
def test_the_versions_a_file_is_for_are_recorded(engine: str) -> None:
    first, _, last = load(EngineSpec, engine).tuned_versions.partition("–")
    versions = list(RECORDED[engine])
    assert versions[0].startswith(first) and versions[-1].startswith(last)


@pytest.mark.parametrize("engine", RECORDED)
def test_the_newest_version_has_all_knobs(engine: str) -> None:
    version = list(RECORDED[engine])[-1]
    here = Installed(Path(engine), version, flags_of(engine, version))
    assert fitted(load(EngineSpec, engine), here)[1] == ()


def test_every_engine_is_recorded() -> None:
    assert set(RECORDED) == set(names(EngineSpec))
