"""Repack wheels without the files that a box does not need: the same packages, smaller.

    python scripts/slim_wheel.py OUT WHEEL... --drop 'vllm/_moe_C*' --drop 'vllm/vllm-rs'

OUT is a folder. What stays is stored uncompressed, since pack_wheels.py compresses better; RECORD no longer names
what was dropped. A pattern that matches no file of any wheel is refused: they are not those that it was written for.
"""

import argparse
import csv
import io
import sys
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--drop", action="append", default=[], metavar="GLOB", help="a file's path in the wheel")
    asked = parser.parse_args()
    idle = [pattern for pattern in asked.drop if not any(names_matching(wheel, [pattern]) for wheel in asked.wheels)]
    if idle:
        sys.exit(f"no file of these wheels matches {', '.join(idle)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    dropped = sum(slim(wheel, asked.out / wheel.name, asked.drop) for wheel in asked.wheels)
    print(f"{asked.out}: {len(asked.wheels)} wheels, {dropped / MIB:.0f} MiB left out (as packed)")


def names_matching(wheel: Path, drop: Sequence[str]) -> set[str]:
    """The files in `wheel` that a pattern matches."""
    with zipfile.ZipFile(wheel) as whole:
        return {name for name in whole.namelist() if any(fnmatch(name, pattern) for pattern in drop)}


def slim(wheel: Path, out: Path, drop: Sequence[str]) -> int:
    """Write `wheel` to `out` without what a pattern matches; the bytes left out, as packed there."""
    gone = names_matching(wheel, drop)
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as slimmed:
        for file in whole.infolist():
            if file.filename not in gone:
                content = whole.read(file)
                _store(slimmed, file, without(content, gone) if is_record(file.filename) else content)
        return sum(whole.getinfo(name).compress_size for name in gone)


def is_record(name: str) -> bool:
    """Whether this is the wheel's list of its files."""
    return name.endswith(".dist-info/RECORD")


def without(record: bytes, gone: set[str]) -> bytes:
    """A RECORD without the lines of files that are `gone`. Pure."""
    kept = [row for row in csv.reader(io.StringIO(record.decode())) if row and row[0] not in gone]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(kept)
    return text.getvalue().encode()


def _store(slimmed: zipfile.ZipFile, file: zipfile.ZipInfo, content: bytes) -> None:
    """With its permissions: a program among the files stays one."""
    plain = zipfile.ZipInfo(file.filename, file.date_time)
    plain.external_attr = file.external_attr
    slimmed.writestr(plain, content)


if __name__ == "__main__":
    main()
