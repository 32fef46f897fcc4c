"""Which flags the installed engine knows, read from its own help once and remembered."""

import json
import os
import re
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from launchers.containers import asking, docker_for, image_id
from launchers.engine import Engine
from tuner.config.engine import EngineSpec, Knob
from tuner.config.strict import suggestion
from tuner.errors import ConfigError, EngineMissing

HELP_TIMEOUT_S = 180.0
VERSION_TIMEOUT_S = 30.0
# A line that defines a flag: "  --max-num-seqs N, -n N"; the text that explains it stands further to the right.
DEFINITION = re.compile(r"^ {1,6}(-.+)$", re.MULTILINE)
FLAG = re.compile(r"(?:^|(?<=[ ,/]))(--?[A-Za-z][\w-]*)")
PYTHON = re.compile(r"^#!\s*(\S*python\S*)|^'''exec'\s+\"?([^\"\s]+)", re.MULTILINE)


@dataclass(frozen=True)
class Installed:
    """An engine that is there: its version ("" if it does not say) and every flag it takes."""

    executable: Path
    version: str
    flags: frozenset[str]


def installed(engine: Engine, executable: Path) -> Installed:
    """What `executable` is and can. Raises EngineMissing if it does not answer."""
    version = _version(engine, executable)
    remembered = _cache_file(f"{executable} {executable.stat().st_mtime_ns} {version}")
    if remembered.is_file():
        return _recalled(remembered, executable)
    flags = flags_in(_help((str(executable), *engine.help), engine))
    if not flags:
        raise EngineMissing(f"{executable}: `{' '.join(engine.help)}` names no flags; is this {engine.name}?")
    return _remember(remembered, Installed(executable, version, flags))


def in_image(engine: Engine, image: str) -> Installed:
    """What the engine in a container image is and can. Raises EngineMissing if there is no docker, or no answer."""
    docker = docker_for(image)
    identity = image_id(docker, image)
    remembered = _cache_file(f"{identity} {engine.name}")
    if remembered.is_file():
        return _recalled(remembered, Path(image))
    entrypoint = engine.image_entrypoint or engine.executable
    version = _version_in(docker, engine, image, entrypoint)
    flags = flags_in(_help((*asking(docker, image, entrypoint), *engine.help), engine))
    if not flags:
        raise EngineMissing(f"--image {image}: `{entrypoint} {' '.join(engine.help)}` names no flags")
    return _remember(remembered, Installed(Path(image), version, flags))


def flags_in(help_text: str) -> frozenset[str]:
    """Every flag that a help text of argparse, click or clap defines. Pure."""
    return frozenset(flag for definition in DEFINITION.findall(help_text) for flag in _defined(definition))


def _defined(definition: str) -> list[str]:
    """The flags of one definition. vLLM 0.33 shows `--enable-x, --disable-x` and takes `--no-enable-x` as well."""
    shown = FLAG.findall(definition.split("  ", maxsplit=1)[0])
    pairs = {flag.replace("--disable-", "--enable-") for flag in shown if flag.startswith("--disable-")} & {*shown}
    return [*shown, *(flag.replace("--enable-", "--no-enable-") for flag in pairs)]


def unknown_flags(words: Iterable[str], known: frozenset[str]) -> tuple[str, ...]:
    """The flags among `words` that are not `known`, in order. Pure."""
    flags = (word.partition("=")[0] for word in words if re.match(r"--?[A-Za-z]", word))
    dashed = {flag.replace("_", "-") for flag in known}
    return tuple(flag for flag in flags if flag.replace("_", "-").partition(".")[0] not in dashed)


def fitted(spec: EngineSpec, engine: Installed) -> tuple[EngineSpec, tuple[str, ...]]:
    """`spec` with only the knobs and choices that `engine` knows, and a note for each that had to go. Pure."""
    knobs: dict[str, Knob] = {}
    notes: list[str] = []
    for name, knob in spec.knobs.items():
        if not knob.exists_in(engine.version):
            notes.append(f"{name} is left out: {spec.title} {engine.version} is not of its versions, {_span(knob)}")
            continue
        usable, lacking = usable_part(knob, engine.flags)
        if usable:
            knobs[name] = usable
        if lacking:
            what = f"some choices of {name} are" if usable else f"{name} is"
            notes.append(f"{what} left out: {spec.title} {engine.version} has no {', '.join(lacking)}")
    kept = spec.keeping(knobs)
    notes += [f"{name} is left out: what it goes with is" for name in knobs if name not in kept.knobs]
    return kept, tuple(notes)


def usable_part(knob: Knob, known: frozenset[str]) -> tuple[Knob | None, tuple[str, ...]]:
    """`knob` with the choices this engine knows (None: not enough of it), and the flags it does not know. Pure."""
    if knob.choices is None:
        lacking = unknown_flags([knob.flag or ""], known)
        return (None if lacking else knob), lacking
    lacking = unknown_flags(knob.flags, known)
    kept = {name: flags for name, flags in knob.choices.items() if not unknown_flags(flags, known)}
    if len(kept) < 2 or any(case.value not in kept for case in knob.default):
        return None, lacking
    return knob.model_copy(update={"choices": kept}), lacking


def _span(knob: Knob) -> str:
    """`0.5.21 and later`, `up to 0.26`, `0.5.14 to 0.5.20`."""
    match knob.since, knob.until:
        case str(since), None:
            return f"{since} and later"
        case None, until:
            return f"up to {until}"
        case since, until:
            return f"{since} to {until}"


def refuse_unknown(extra_flags: Iterable[str], engine: Installed) -> None:
    """Raise ConfigError if a flag that the user handed over by `--set` is not one of this engine's. Pure."""
    for flag in unknown_flags(extra_flags, engine.flags):
        hint = suggestion(flag, engine.flags)
        raise ConfigError(f"--set {flag.lstrip('-')}: {engine.executable} {engine.version} has no {flag}{hint}")


def _version(engine: Engine, executable: Path) -> str:
    """Asked of the package's metadata where there is one: to start the engine for it takes ten seconds."""
    if engine.version:
        return _version_printed([str(executable), *engine.version])
    python = _python_of(executable)
    if not python:
        return ""
    code = f"import importlib.metadata as m; print(m.version({engine.distribution!r}))"
    try:
        answer = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def missing_python(executable: Path) -> str:
    """The interpreter that the first line of `executable` names, if it is not there; "" if all is well."""
    python = _python_of(executable)
    return python if python.startswith("/") and not Path(python).exists() else ""


def _python_of(executable: Path) -> str:
    """The Python that runs `executable`, by its first lines; "" if it is no Python script."""
    first_lines = executable.read_bytes()[:1024].decode(errors="replace")
    found = PYTHON.search(first_lines)
    return (found.group(1) or found.group(2)) if found else ""


def _version_printed(command: list[str]) -> str:
    """The first number with dots in what it prints: `text-generation-launcher 3.3.5`."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+(?:\.\d+)+\S*", answer.stdout)
    return found[0] if found else ""


def _version_in(docker: str, engine: Engine, image: str, entrypoint: str) -> str:
    """By its own word, or by that of the Python in the image."""
    if engine.version:
        return _version_printed([*asking(docker, image, entrypoint), *engine.version])
    code = f"import importlib.metadata as m; print(m.version({engine.distribution!r}))"
    return _version_printed([*asking(docker, image, "python3"), "-c", code])


def _help(command: tuple[str, ...], engine: Engine) -> str:
    try:
        answer = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=HELP_TIMEOUT_S,
            check=False,
            env={**os.environ, **engine.measuring_env},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineMissing(f"`{' '.join(command)}` does not answer: {error}") from error
    if answer.returncode != 0:
        last = (answer.stderr.strip() or answer.stdout.strip() or "no word").splitlines()[-1]
        raise EngineMissing(f"`{' '.join(command)}` fails with exit code {answer.returncode}: {last}")
    return answer.stdout


def _recalled(remembered: Path, executable: Path) -> Installed:
    kept = json.loads(remembered.read_text())
    return Installed(executable, kept["version"], frozenset(kept["flags"]))


def _remember(remembered: Path, found: Installed) -> Installed:
    kept = {"executable": str(found.executable), "version": found.version, "flags": sorted(found.flags)}
    partial = remembered.with_suffix(f".{os.getpid()}.partial")
    # Where it cannot be kept, it is asked again the next time.
    with suppress(OSError):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(kept))
        partial.replace(remembered)
    return found


def _cache_file(identity: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # The number of the reading: what an older one has made of a help text does not count.
    identity = f"2 {identity}"
    return cache / "goodtune" / "flags" / f"{sha256(identity.encode()).hexdigest()[:16]}.json"
