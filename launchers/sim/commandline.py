"""The real engine's command line, read by its simulation: words in, a configuration out.

The knobs of `search_spaces/engines` say which flags mean what. Any other flag is accepted, kept to be logged, and has
no effect; a word that is no flag and belongs to none is refused as the engines' own parsers do, with exit code 2.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from launchers.sim.overrides import Overrides
from launchers.sim.spelling import human_readable_int, plain
from tuner.config.calibration import Calibration
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec, Knob, KnobValue
from tuner.config.workload import Chances
from tuner.configuration import Configuration

DEFAULT_PORTS = {"vllm": 8000, "sglang": 30000}
ACCEPTANCE = 0.25
HUMAN_READABLE = {"--max-num-batched-tokens"}


@dataclass(frozen=True)
class Asked:
    """What a command line asks for. `model` is a name of the catalog or a path; `ignored` flags have no effect."""

    configuration: Configuration
    model: str
    gpu: str
    served_name: str
    host: str
    port: int
    acceptance: Chances
    max_model_len: int | None
    ignored: tuple[str, ...]
    overrides: Overrides
    calibration: Calibration | None = None


def read(words: Sequence[str]) -> Asked:
    """`vllm serve MODEL ...` or `sglang serve --model-path M ...`. Exits with code 2 on what is no command line."""
    engine = words[0] if words else ""
    if engine not in DEFAULT_PORTS or list(words[1:2]) != ["serve"]:
        _parser("launchers.sim.server").error("expected `vllm serve MODEL ...` or `sglang serve --model-path M ...`")
    spec = load(EngineSpec, engine)
    parser = _parser(f"{engine} serve")
    if engine == "vllm":
        parser.add_argument("model")
        parser.add_argument("--num-gpu-blocks-override", dest="kv_blocks", type=int)
        parser.add_argument("--kv-cache-memory-bytes", dest="kv_bytes", type=human_readable_int)
    for name, knob in spec.knobs.items():
        if knob.flag:
            parser.add_argument(knob.flag, dest=name, type=_number_of(engine, knob))
    _refuse_values(parser, spec, words)
    known, rest = parser.parse_known_args(plain(engine, words[2:]))
    chosen, rest = _choices(spec, rest)
    speculation, rest = _speculation(rest)
    turned = {name: getattr(known, name) for name, knob in spec.knobs.items() if knob.flag}
    knobs: dict[str, KnobValue] = {name: value for name, value in turned.items() if value is not None}
    model = known.model or parser.error("the following arguments are required: model")
    return Asked(
        configuration=Configuration(engine, knobs | chosen | speculation),
        model=known.sim_model or model,
        gpu=known.sim_gpu,
        served_name=known.served_names[0] if known.served_names else model,
        host=known.host,
        port=known.port or DEFAULT_PORTS[engine],
        acceptance=known.sim_acceptance,
        max_model_len=known.max_model_len,
        ignored=_flags_only(parser, rest) + _without_effect(known),
        overrides=Overrides(known.kv_blocks, known.kv_bytes, known.kv_tokens, known.quantization == "fp8"),
        calibration=known.sim_calibration,
    )


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name", dest="served_names", nargs="+" if prog.startswith("vllm") else 1)
    parser.add_argument("--quantization")
    parser.set_defaults(kv_blocks=None, kv_bytes=None, kv_tokens=None)
    parser.add_argument("--max-model-len", "--context-length", dest="max_model_len", type=_length)
    if prog.startswith("sglang"):
        parser.add_argument("--model-path", "--model", dest="model")
        parser.add_argument("--max-total-tokens", dest="kv_tokens", type=int)
    hidden: dict[str, Any] = {"help": argparse.SUPPRESS}
    parser.add_argument("--sim-model", **hidden)
    parser.add_argument("--sim-gpu", default="h100", **hidden)
    parser.add_argument("--sim-acceptance", type=_chances, default=ACCEPTANCE, **hidden)
    parser.add_argument("--sim-calibration", type=Calibration.model_validate_json, **hidden)
    return parser


def spelt_chances(acceptance: Chances) -> str:
    """`--sim-acceptance` for these chances."""
    return ",".join(map(str, acceptance)) if isinstance(acceptance, tuple) else str(acceptance)


def _chances(text: str) -> Chances:
    """`0.6`, or one for each guess in turn: `0.8,0.6`."""
    return tuple(map(float, text.split(","))) if "," in text else float(text)


def _number_of(engine: str, knob: Knob) -> Callable[[str], KnobValue]:
    if knob.step != int(knob.step):
        return float
    return human_readable_int if engine == "vllm" and knob.flag in HUMAN_READABLE else int


def _length(text: str) -> int | None:
    """A number of tokens; None where the engine shall find it out."""
    return None if text in ("auto", "-1") else human_readable_int(text)


def _choices(spec: EngineSpec, rest: list[str]) -> tuple[dict[str, KnobValue], list[str]]:
    """The knobs whose values are named flags, and the words that are none of them."""
    chosen: dict[str, KnobValue] = {}
    for name, knob in spec.knobs.items():
        for choice, flags in (knob.choices or {}).items():
            at = _found(flags, rest)
            if at is not None:
                chosen[name] = choice
                rest = rest[:at] + rest[at + len(flags) :]
        at = _number_behind(knob, rest)
        if at is not None:
            chosen[name] = rest[at]
            rest = rest[: at - 1] + rest[at + 1 :]
    return chosen, rest


def _number_behind(knob: Knob, words: list[str]) -> int | None:
    """Where another number stands behind the flag of a knob whose choices are numbers."""
    flags = {spelt[0] for spelt in (knob.choices or {}).values() if len(spelt) == 2 and spelt[1].isdigit()}
    return next((at for at in range(1, len(words)) if words[at - 1] in flags and _is_whole(words[at])), None)


def _is_whole(word: str) -> bool:
    return word.removeprefix("-").isdigit()


def _found(flags: list[str], words: list[str]) -> int | None:
    """Where `flags` stand together in `words`."""
    starts = range(len(words) - len(flags) + 1) if flags else ()
    return next((at for at in starts if words[at : at + len(flags)] == flags), None)


def _refuse_values(parser: argparse.ArgumentParser, spec: EngineSpec, words: Sequence[str]) -> None:
    """`--enable-chunked-prefill=False`: the engines' parsers want a negated flag instead."""
    choices = [flags for knob in spec.knobs.values() for flags in (knob.choices or {}).values()]
    bare = {flags[0] for flags in choices if len(flags) == 1}
    for word in words:
        flag, equals, value = word.partition("=")
        if equals and flag.replace("_", "-") in bare:
            parser.error(f"argument {flag}: ignored explicit argument {value!r}")


def _without_effect(known: argparse.Namespace) -> tuple[str, ...]:
    """What was understood and changes nothing: names behind the first, number formats that are not modelled."""
    names = known.served_names[1:] if known.served_names else []
    other = known.quantization not in (None, "fp8")
    words = ["--served-model-name", *names] if names else []
    return (*words, *(("--quantization", known.quantization) if other else ()))


def _speculation(rest: list[str]) -> tuple[dict[str, KnobValue], list[str]]:
    """Speculation spelt otherwise than in our own choices: with a draft model, or with more keys."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--speculative-config", type=json.loads)
    parser.add_argument("--speculative-algorithm")
    parser.add_argument("--speculative-num-draft-tokens", type=int)
    for flag in ("draft-model-path", "num-steps", "eagle-topk", "ngram-max-bfs-breadth"):
        parser.add_argument(f"--speculative-{flag}")
    known, rest = parser.parse_known_args(rest)
    if known.speculative_config:
        method = known.speculative_config.get("method", "draft_model")
        drafts = int(known.speculative_config.get("num_speculative_tokens", 1))
        return _speculating(parser, method, drafts), rest
    if known.speculative_algorithm:
        verified = 2 if known.speculative_num_draft_tokens is None else known.speculative_num_draft_tokens
        return _speculating(parser, known.speculative_algorithm, verified - 1), rest
    return {}, rest


def _speculating(parser: argparse.ArgumentParser, method: str, drafts: int) -> dict[str, KnobValue]:
    if drafts < 1:
        parser.error(f"speculative tokens: should be at least 1 for each step, got {drafts}")
    return {"speculation": f"{'ngram' if 'ngram' in method.lower() else 'draft'}-{drafts}"}


def _flags_only(parser: argparse.ArgumentParser, rest: list[str]) -> tuple[str, ...]:
    """The unknown flags, each with at most one value behind it."""
    after_flag = False
    for word in rest:
        is_flag = word.startswith("-") and not word[1:2].isdigit()
        if not is_flag and not after_flag:
            parser.error(f"unrecognized arguments: {word}")
        after_flag = is_flag
    return tuple(rest)
