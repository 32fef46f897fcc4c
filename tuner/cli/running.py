"""Runs a study for the command line: shows its progress, prints its summary, writes its report."""

import json
import os
import shlex
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tuner import record
from tuner.cli.planning import Options, plan_from
from tuner.config.plan import Plan
from tuner.errors import StudyPaused
from tuner.events import Event, Listener, Note, StudyStarted
from tuner.study import StudyOptions, run_study
from tuner.summary import VerdictWord
from tuner.terminal.choose import open_view, print_summary
from tuner.terminal.final import final_text
from tuner.wording.commands import resume_command


def run(options: Options) -> VerdictWord:
    """The whole job. Raises UserError."""
    planned = plan_from(options)
    plan = planned.plan
    workers = options.workers or len(os.sched_getaffinity(0))
    enough = threading.Event()
    with open_view(plan, enough, plain=options.plain, only_ascii=options.ascii) as listener:
        hear = _with_notes(planned.notes, listener)
        try:
            summary = run_study(plan, StudyOptions(workers, options.resume, options.seeds, enough), hear)
        except StudyPaused:
            _report_so_far(plan)
            raise
    outcomes = record.read_outcomes(plan.out)
    from tuner.report import write_report

    write_report(plan.out, summary, outcomes, plan)
    if options.as_json and summary.verdict == "interrupted":
        print(f"go on with: {shlex.join(resume_command(plan))}", file=sys.stderr)
    if options.as_json:
        print(json.dumps(record.summary_as_data(summary), ensure_ascii=False))
    else:
        print_summary(final_text(summary, outcomes, plan), sys.stdout, only_ascii=options.ascii)
    if "GITHUB_STEP_SUMMARY" in os.environ:
        with Path(os.environ["GITHUB_STEP_SUMMARY"]).open("a", encoding="utf-8") as page:
            page.write(f"```text\n{final_text(summary, outcomes, plan)}\n```\n")
    return summary.verdict


def _report_so_far(plan: Plan) -> None:
    """The report of a paused study, if there was room for its summary."""
    from tuner.report import write_report

    if (plan.out / "summary.json").exists():
        with suppress(OSError):
            write_report(plan.out, record.read_summary(plan.out), record.read_outcomes(plan.out), plan)


def _with_notes(notes: Sequence[str], listener: Listener) -> Listener:
    """A listener that hears `notes` once the study has begun: first of all comes what is studied, on which box."""

    def hear(event: Event) -> None:
        listener(event)
        if isinstance(event, StudyStarted):
            for note in notes:
                listener(Note(note))

    return hear
