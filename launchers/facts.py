"""Facts: what a server says it was really started with, asked once when it is ready and told under neutral names.

An engine chooses for itself what it was not told: by the GPU, its memory, the model, the platform. Only it knows.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tuner.config.engine import KnobValue
from tuner.engineview import EngineFacts

TIMEOUT_S = 10.0
ON_OFF: Mapping[object, KnobValue] = {True: "on", False: "off"}
OFF_ON: Mapping[object, KnobValue] = {True: "off", False: "on"}


@dataclass(frozen=True)
class Fact:
    """Where one fact stands in an engine's JSON (`scheduler_config.max_num_seqs`; a number is a place in a list), and
    what its values are called here. A value that `words` does not name stands for itself."""

    path: str
    words: Mapping[object, KnobValue] = field(default_factory=dict)


@dataclass(frozen=True)
class FactSheet:
    """What an engine tells of itself at `path`; "" if nothing. `log_version` finds its version in the log instead.

    `knobs` by their neutral names; `kv_tokens` is the size of the KV cache in tokens.
    """

    path: str = ""
    knobs: Mapping[str, Fact] = field(default_factory=dict)
    kv_tokens: str = ""
    version: str = ""
    log_version: str = ""


def facts_of(sheet: FactSheet, base_url: str, log: str) -> EngineFacts | None:
    """What the server at `base_url`, which has logged `log`, says of itself. None if it says nothing."""
    told = _told(f"{base_url}{sheet.path}") if sheet.path else None
    return None if told is None else read_facts(sheet, told, log)


def read_facts(sheet: FactSheet, told: object, log: str = "") -> EngineFacts:
    """The facts in an engine's JSON. What is not there, or not of a knob's kind, is left out. Pure."""
    found = {name: _value(fact, _at(told, fact.path)) for name, fact in sheet.knobs.items()}
    kv_tokens = _at(told, sheet.kv_tokens)
    return EngineFacts(
        version=str(_at(told, sheet.version) or _version_in(log, sheet.log_version)),
        knobs={name: value for name, value in found.items() if value is not None},
        kv_tokens=kv_tokens if isinstance(kv_tokens, int) else None,
    )


def _told(url: str) -> object | None:
    """The JSON at `url`; None where the server does not offer it."""
    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, trust_env=False)
        return answer.json() if answer.is_success else None
    except (httpx.HTTPError, json.JSONDecodeError):
        return None


def _at(told: object, path: str) -> Any:
    """What stands at `a.0.b`; None where there is nothing."""
    if not path:
        return None
    for part in path.split("."):
        if isinstance(told, dict):
            told = told.get(part)
        elif isinstance(told, list) and part.isdigit() and int(part) < len(told):
            told = told[int(part)]
        else:
            return None
    return told


def _value(fact: Fact, said: object) -> KnobValue | None:
    if isinstance(said, str | int | float) and said in fact.words:
        return fact.words[said]
    # An engine's own True or False is no knob's value.
    return said if isinstance(said, str | int | float) and not isinstance(said, bool) else None


def _version_in(log: str, pattern: str) -> str:
    found = re.search(pattern, log) if pattern else None
    return found[1] if found else ""
