"""The command line: parses, resolves names into a plan, runs it, prints. It decides nothing else."""

import sys

from tuner.errors import UserError


def main() -> None:
    """Run `tune`. A user's mistake prints one message and exits 2."""
    from tuner.cli.app import tune

    try:
        tune(prog_name="tune")
    except UserError as mistake:
        print(f"tune: {mistake}", file=sys.stderr)
        sys.exit(2)
