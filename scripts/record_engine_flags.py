"""Record which flags a version of an engine has, for tests without it: its own help in, a line of tests/data out.

    vllm serve --help=all | python scripts/record_engine_flags.py vllm 0.32.0

`tests/data/engine_flags.json` holds, per engine, the flags of its oldest version and what each later one added and
removed. Versions have to be recorded in ascending order; the newest may be recorded again.
"""

import json
import sys
from pathlib import Path

from launchers.flags import flags_in

FILE = Path(__file__).parent.parent / "tests" / "data" / "engine_flags.json"


def main(engine: str, version: str, help_text: str) -> None:
    """Add one version to the file."""
    recorded = json.loads(FILE.read_text()) if FILE.exists() else {}
    versions = recorded.setdefault(engine, {})
    versions.pop(version, None)
    known: set[str] = set()
    for changes in versions.values():
        known = known - set(changes["removed"]) | set(changes["added"])
    flags = {flag for flag in flags_in(help_text) if flag.startswith("--")}
    assert len(flags) > len(known) / 2, f"this help names {len(flags)} flags; is it whole?"
    versions[version] = {"added": sorted(flags - known), "removed": sorted(known - flags)}
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(recorded, indent=0) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.stdin.read())
