"""Re-scores a study or a bench for the command line: prints the conclusion, writes it only where it is asked to."""

import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner import record
from tuner.benchfolder import as_data, begin, is_bench, keep_score, write_found
from tuner.cli.benching import exit_code
from tuner.cli.exits import EXIT_CODES, UNKNOWN
from tuner.cli.planning import slo_from
from tuner.conclude import slo_of
from tuner.errors import ConfigError
from tuner.rescore import Rescored, rescore, rescored_from
from tuner.rescorebench import RescoredBench, rescore_bench
from tuner.summary import VerdictWord
from tuner.terminal.benched import LABEL, benched_text
from tuner.terminal.benched import heading as bench_heading
from tuner.terminal.choose import print_summary
from tuner.terminal.final import WIDTH, final_text
from tuner.wording.rescoring import basis, bench_basis


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


def run_rescore(options: RescoreOptions) -> int:
    """The whole job, for the folder of a study or of a bench. Returns the exit code; raises UserError."""
    slo = slo_from(options.slo, options.attainment, options.slo_scale)
    _check_measured(options.study)
    if is_bench(options.study):
        return _rescore_bench(options, rescore_bench(options.study, slo))
    return EXIT_CODES[_rescore_study(options, rescore(options.study, slo))]


def _check_measured(folder: Path) -> None:
    """Raises ConfigError where nothing was measured into `folder`."""
    if not is_bench(folder) and not (folder / "plan.yaml").exists():
        raise ConfigError(f"{folder}: no plan.yaml or bench.yaml here; give the folder of a study or of a bench")
    if was_of := rescored_from(folder):
        raise ConfigError(
            f"{folder}: a re-scoring has no raw timings of its own; give what it was made from, {was_of}"
        )


def _rescore_study(options: RescoreOptions, rescored: Rescored) -> VerdictWord:
    lines = basis(rescored, str(options.study))
    if options.out:
        rescored = _moved(rescored, options.out, options.typed)
        _write(rescored, options.study, lines)
    if options.as_json:
        print(json.dumps(_as_data(rescored, options.study, lines), ensure_ascii=False))
    else:
        shown = rescored.summary if options.out else replace(rescored.summary, dir="")
        print(f"{_heading(lines)}\n")
        print_summary(final_text(shown, rescored.outcomes, rescored.plan), sys.stdout)
    return rescored.summary.verdict


def _rescore_bench(options: RescoreOptions, rescored: RescoredBench) -> int:
    """Like a study's: where a search would have gone on and nothing holds so far, nobody knows."""
    order, described, found = rescored.bench.order, rescored.bench.described, rescored.found
    lines = bench_basis(rescored, str(options.study))
    basis_of = {"dir": str(options.study), "slo": slo_of(rescored.was), "unusable_probes": rescored.unusable}
    told = as_data(found, order, described) | {"rescored": basis_of | {"notes": list(lines)}}
    if options.out:
        begin(options.out, order, described)
        for probe in rescored.bench.probes:
            keep_score(options.out, probe)
        write_found(options.out, told | {"dir": str(options.out)})
    if options.as_json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        heading = f"{_heading(lines)}\n\n{bench_heading(described.url, described.model, order)}"
        written = f"\n  {'written to':<{LABEL}}{options.out}\n" if options.out else ""
        print_summary(f"{heading}\n\n{benched_text(found, order)}{written}", sys.stdout)
    if rescored.is_open_ended and not found.outcome.holds_slo:
        return UNKNOWN
    # What cut the bench short was told then; this is the end of the re-scoring.
    return exit_code(replace(found, cut=None), order)


def _heading(lines: Sequence[str]) -> str:
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)


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
