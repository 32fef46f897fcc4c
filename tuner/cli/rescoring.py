"""Re-scores a finished study for the command line: prints its conclusion, writes it only where it is asked to."""

import json
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner import record
from tuner.cli.planning import slo_from
from tuner.conclude import slo_of
from tuner.rescore import Rescored, rescore
from tuner.summary import VerdictWord
from tuner.terminal.choose import print_summary
from tuner.terminal.final import WIDTH, final_text
from tuner.wording.rescoring import basis


@dataclass(frozen=True)
class RescoreOptions:
    """The options of `tune rescore`, as typed."""

    study: Path
    slo: str
    attainment: float | None = None
    slo_scale: float = 1.0
    out: Path | None = None
    as_json: bool = False
    typed: tuple[str, ...] = ()


def run_rescore(options: RescoreOptions) -> VerdictWord:
    """The whole job. Raises UserError."""
    rescored = rescore(options.study, slo_from(options.slo, options.attainment, options.slo_scale))
    lines = basis(rescored, str(options.study))
    if options.out:
        rescored = _moved(rescored, options.out, options.typed)
        _write(rescored, options.study, lines)
    if options.as_json:
        print(json.dumps(_as_data(rescored, options.study, lines), ensure_ascii=False))
    else:
        shown = rescored.summary if options.out else replace(rescored.summary, dir="")
        heading = "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)
        print(f"{heading}\n")
        print_summary(final_text(shown, rescored.outcomes, rescored.plan), sys.stdout)
    return rescored.summary.verdict


def _moved(rescored: Rescored, out: Path, typed: tuple[str, ...]) -> Rescored:
    """The re-scoring as a study of its own in `out`, which `typed` made."""
    plan = replace(rescored.plan, out=out, typed=typed)
    return replace(rescored, plan=plan, summary=replace(rescored.summary, study=plan.study, dir=str(out)))


def _write(rescored: Rescored, study: Path, lines: tuple[str, ...]) -> None:
    """A folder like a study's, without raw timings, logs and database, which stay where they are."""
    plan, outcomes = rescored.plan, rescored.outcomes
    record.prepare(plan.out, resume=False)
    with record.locked(plan.out):
        record.write_plan(plan)
        for outcome in outcomes:
            record.write_outcome(plan.out, outcome)
        for run in rescored.runs:
            record.append_run(plan.out, run)
        record.write_trials_csv(plan.out, outcomes)
        data = _as_data(rescored, study, lines)
        (plan.out / "summary.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    from tuner.report import write_report

    write_report(plan.out, rescored.summary, outcomes, plan)


def _as_data(rescored: Rescored, study: Path, lines: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object of a study, and what it was made from."""
    scope = rescored.scope
    return record.summary_as_data(rescored.summary) | {
        "rescored": {
            "dir": str(study),
            "slo": slo_of(scope.was),
            "probes": scope.probes,
            "unusable_probes": scope.unusable,
            "fresh_windows": scope.windows,
            "loads_per_gpu": scope.loads_per_gpu,
            "open_ended": list(scope.open_ended),
            "notes": list(lines),
        }
    }
