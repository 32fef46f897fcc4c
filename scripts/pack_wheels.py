"""Carry folders of wheels to a box without a network, in pieces: one compressed archive, cut into parts that fit.

    python scripts/pack_wheels.py pack OUT FOLDER... [--limit 60MiB]     OUT/part-00, part-01, ..., and OUT/parts.json
    python scripts/pack_wheels.py join PARTS OUT                         the FOLDERs again, below OUT

Every FOLDER arrives under its own name. `join` needs Python and nothing else, and says which parts are missing or
damaged. The wheels should hold their files uncompressed (slim_wheel.py): xz then finds what kernels have in common.
"""

import argparse
import hashlib
import io
import json
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final, cast

INDEX = "parts.json"
BLOCK_BYTES = 2**20
# The dictionary of level 7 is 16 MiB, of 9 it is 64: what fits into memory anywhere, and gains 2 % here.
LEVEL: Final = 7
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class PartsIncomplete(Exception):
    """Parts are missing or damaged; the text says which."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    jobs = parser.add_subparsers(dest="job", required=True)
    packing = jobs.add_parser("pack", help="folders of wheels → parts")
    packing.add_argument("out", type=Path)
    packing.add_argument("folders", nargs="+", type=Path)
    packing.add_argument(
        "--limit", type=size_bytes, default="60MiB", help="the most a part may weigh (default 60MiB)"
    )
    joining = jobs.add_parser("join", help="parts → folders of wheels")
    joining.add_argument("parts", type=Path)
    joining.add_argument("out", type=Path)
    asked = parser.parse_args()
    if asked.job == "pack":
        for name, size in pack(asked.folders, asked.out, asked.limit).items():
            print(f"{asked.out / name}: {size / UNITS['MiB']:.1f} MiB")
        return
    try:
        join(asked.parts, asked.out)
    except PartsIncomplete as error:
        sys.exit(str(error))


def size_bytes(text: str) -> int:
    """`60MiB`, `900KiB` or a number of bytes."""
    match = re.fullmatch(r"(\d+)([KMG]iB)?", text)
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(f"{text}: write 60MiB, 900KiB or a number of bytes")
    return int(match[1]) * UNITS[match[2] or ""]


def pack(folders: Sequence[Path], out: Path, limit_bytes: int) -> Mapping[str, int]:
    """Write the parts of `folders` to `out`; their sizes by name. The same files give the same parts."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("part-*"):
        old.unlink()
    archive = out / "whole.partial"
    with tarfile.open(archive, "w:xz", preset=LEVEL) as tar:
        for folder in folders:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                tar.add(path, f"{folder.resolve().name}/{path.relative_to(folder)}", filter=_anonymous)
    hashes, sizes = {}, {}
    with archive.open("rb") as whole:
        for name, content in parts_of(whole, limit_bytes):
            (out / name).write_bytes(content)
            hashes[name], sizes[name] = hashlib.sha256(content).hexdigest(), len(content)
    archive.unlink()
    (out / INDEX).write_text(json.dumps({"sha256": hashes}, indent=1) + "\n", encoding="utf-8")
    return sizes


def parts_of(whole: BinaryIO, limit_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the parts of what is read from `whole`, none above `limit_bytes`, in order."""
    for number, content in enumerate(iter(lambda: whole.read(limit_bytes), b"")):
        yield f"part-{number:02d}", content


def join(parts: Path, out: Path) -> None:
    """Unpack all parts below `out`. Raises PartsIncomplete before anything is written."""
    index = parts / INDEX
    if not index.is_file():
        raise PartsIncomplete(f"{index}: it lists the parts and is not there; bring it along")
    hashes: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["sha256"]
    wrong = [name for name, known in hashes.items() if _sha256(parts / name) != known]
    if wrong:
        raise PartsIncomplete(f"{parts}: missing or damaged: {', '.join(wrong)}; copy them again")
    out.mkdir(parents=True, exist_ok=True)
    with (
        _Joined([parts / name for name in hashes]) as whole,
        tarfile.open(fileobj=cast(BinaryIO, whole), mode="r|xz") as tar,
    ):
        tar.extractall(out, filter="data")


class _Joined(io.RawIOBase):
    """The parts as one file to read from, without a copy of them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._rest = list(paths)
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; fewer at the end of a part, none only at the end of the last."""
        while self._file or self._rest:
            self._file = self._file or self._rest.pop(0).open("rb")
            content = self._file.read(size)
            if content:
                return content
            self._file.close()
            self._file = None
        return b""


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without owner and time, so that the parts do not depend on who packs them and when."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


if __name__ == "__main__":
    main()
