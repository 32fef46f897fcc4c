"""The command line: parses, resolves names into a plan, runs it, prints. It decides nothing else."""

import signal
import sys
from types import FrameType

from tuner.cli.printing import guarded_stdout
from tuner.errors import UserError


def main() -> None:
    """Run `tune`. A user's mistake prints one message and exits 2; TERM ends a study as Ctrl-C does."""
    import click

    from tuner.cli.app import tune

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with guarded_stdout():
            sys.exit(tune(prog_name="tune", standalone_mode=False))
    except UserError as mistake:
        print(f"tune: {mistake}", file=sys.stderr)
        sys.exit(2)
    except click.ClickException as mistake:
        context = getattr(mistake, "ctx", None)
        command = context.command_path if context else "tune"
        print(f"tune: {mistake.format_message().removesuffix('.')}; see {command} --help", file=sys.stderr)
        sys.exit(mistake.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
