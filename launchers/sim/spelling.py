"""The many spellings of one flag: `-tp 4`, `--tp=4`, `--tensor_parallel_size 4`; words in, the longest spelling out.

After vLLM's FlexibleArgumentParser and SGLang's server arguments. Pure.
"""

import json
import re
from collections.abc import Mapping, Sequence

ALIASES: Mapping[str, Mapping[str, str]] = {
    "vllm": {
        "-tp": "--tensor-parallel-size",
        "-pp": "--pipeline-parallel-size",
        "-dp": "--data-parallel-size",
        "-sc": "--speculative-config",
        "-q": "--quantization",
    },
    "sglang": {
        "--tp": "--tp-size",
        "--tensor-parallel-size": "--tp-size",
        "--pp": "--pp-size",
        "--pipeline-parallel-size": "--pp-size",
        "--dp": "--dp-size",
        "--data-parallel-size": "--dp-size",
    },
}
"""Other names of flags that the simulation reads."""

SAME_VALUES: Mapping[tuple[str, str], str] = {
    ("--kv-cache-dtype", "fp8_e4m3"): "fp8",
    ("--kv-cache-dtype", "fp8_e5m2"): "fp8",
}
"""vLLM's values that mean to the simulation what another one means."""

SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
FLAG = re.compile(r"(--[A-Za-z][\w-]*|-[A-Za-z]+)(?:=(.*))?", re.DOTALL)
DOTTED = re.compile(r"(--[A-Za-z][\w-]*)\.([\w-]+)(?:=(.*))?", re.DOTALL)


PARTS = {f"--spec-{part}": f"--speculative-config.{key}" for part, key in (
    ("method", "method"), ("model", "model"), ("tokens", "num_speculative_tokens"),
)}  # fmt: skip
"""vLLM's flags for single keys of a configuration."""
PART_OF = re.compile(r"^--spec-(?:method|model|tokens)(?==|$)")


def plain(engine: str, words: Sequence[str]) -> list[str]:
    """The words with every flag in its own word, its value behind it, by its one name."""
    said: list[str] = []
    for word in _folded(_model_first(words) if engine == "vllm" else words):
        match = FLAG.fullmatch(word)
        if match is None:
            said.append(_value(engine, said[-1] if said else "", word))
            continue
        name = _name(engine, match[1])
        said.append(name)
        if match[2] is not None:
            said.append(_value(engine, name, match[2]))
    return said


def _model_first(words: Sequence[str]) -> list[str]:
    """vLLM takes `--model M` for the positional MODEL."""
    joined = next((word for word in words if word.startswith("--model=")), None)
    if joined:
        return [joined.removeprefix("--model="), *(word for word in words if word is not joined)]
    if "--model" in words[:-1]:
        at = words.index("--model")
        return [words[at + 1], *words[:at], *words[at + 2 :]]
    return list(words)


def human_readable_int(text: str) -> int:
    """`8192`, `8k` (8,000) or `8K` (8,192), as vLLM reads it. Raises ValueError."""
    if text[-1:] in SUFFIXES:
        return int(float(text[:-1]) * SUFFIXES[text[-1]])
    return int(text)


def _folded(words: Sequence[str]) -> list[str]:
    """The words with `--some-config.key value` gathered into `--some-config '{"key": value}'`."""
    kept: list[str] = []
    configs: dict[str, dict[str, object]] = {}
    rest = iter(words)
    for word in rest:
        dotted = DOTTED.fullmatch(PART_OF.sub(lambda part: PARTS[part[0]], word))
        if dotted is None:
            kept.append(word)
            continue
        flag, key, value = dotted.groups()
        configs.setdefault(flag, {})[key] = _json_or_text(next(rest, "") if value is None else value)
    return [*kept, *(word for flag, config in configs.items() for word in (flag, json.dumps(config)))]


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _name(engine: str, flag: str) -> str:
    dashed = flag.replace("_", "-") if flag.startswith("--") else flag
    return ALIASES[engine].get(dashed, dashed)


def _value(engine: str, flag: str, value: str) -> str:
    return SAME_VALUES.get((flag, value), value) if engine == "vllm" else value
