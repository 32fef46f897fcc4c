"""Record: what a study writes into its folder, and how it is read again.

    plan.yaml  study.db  summary.json  trials.csv  report.html  finalists.jsonl
    trials/0007/{outcome.json, requests.parquet, metrics.parquet, server.log}
    trials/0007/confirm/{seed0-load12.5.parquet, metrics/seed0-load12.5.parquet}

Files are moved into place when complete, so that a crash leaves a whole file or none.
"""

import fcntl
import json
import os
import platform
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

import tuner
from tuner.config.calibration import Calibration
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.config.gpu import Gpu
from tuner.config.model import Model
from tuner.config.plan import Box, Plan
from tuner.config.slo import Slo
from tuner.config.strict import parse, read_yaml
from tuner.config.workload import Workload
from tuner.errors import BoxUnusable, ConfigError
from tuner.finalruns import FinalistRun
from tuner.outcome import Outcome
from tuner.summary import SCHEMA, Session, Summary

_OUTCOME = TypeAdapter(Outcome)
_SUMMARY = TypeAdapter(Summary)
_RUN = TypeAdapter(FinalistRun)
_SESSION = TypeAdapter(Session)
RUNS, SESSIONS = "finalists.jsonl", "sessions.jsonl"


def trial_folder(study: Path, trial: int) -> Path:
    """Where everything about one trial lies."""
    return study / "trials" / f"{trial:04d}"


def prepare(study: Path, *, resume: bool) -> None:
    """Make the study's folder. Raises ConfigError if one is there, BoxUnusable if it cannot be written."""
    if (study / "plan.yaml").exists() and not resume:
        raise ConfigError(
            f"{study}: there is a study here already; add --resume to go on with it, or give another --out"
        )
    if resume and not (study / "plan.yaml").exists():
        raise ConfigError(f"{study}: no study here to resume; leave --resume out to start one")
    try:
        (study / "trials").mkdir(parents=True, exist_ok=True)
        probe = study / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise BoxUnusable(f"{study}: the study's folder cannot be written: {error.strerror}") from error


def write_plan(plan: Plan) -> None:
    """`plan.yaml`: the plan with every name resolved, and the versions it was made with."""
    replace_file(plan.out / "plan.yaml", yaml.safe_dump(plan_as_data(plan), sort_keys=False, allow_unicode=True))


def check_same_plan(plan: Plan) -> None:
    """Raises ConfigError if the folder's study was asked something else than `plan`."""
    stored = yaml.safe_load((plan.out / "plan.yaml").read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(plan_as_data(plan)))
    fixed = ["model", "slo", "workload", "engines", "box", "seed", "sampler", "extra_flags", "asked_knobs"]
    for key in [*fixed, *(["calibrations"] if plan.box.simulation else [])]:
        if stored.get(key) != wanted[key]:
            raise ConfigError(
                f"{plan.out}/plan.yaml: this study was started with another {key}, by: "
                f"{stored.get('command')}; resume it with these options, or give another --out"
            )


def planned_calibrations(study: Path) -> dict[str, Calibration]:
    """The calibrations that the study in this folder began with, by engine; {} where there is no study."""
    path = study / "plan.yaml"
    stored = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    known = (stored or {}).get("calibrations", {})
    return {engine: Calibration.model_validate(one) for engine, one in known.items()}


def plan_as_data(plan: Plan) -> dict[str, Any]:
    """The plan as plain data."""
    return {
        "study": plan.study,
        "command": shlex.join(plan.typed),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "goodtune": tuner.__version__,
        "python": platform.python_version(),
        "machine": _machine(),
        "seed": plan.seed,
        "model": plan.model.model_dump(mode="json"),
        "slo": plan.slo.model_dump(mode="json"),
        "workload": plan.workload.model_dump(mode="json"),
        "engines": {engine.name: plan.versions.get(engine.name, "simulated") for engine in plan.engines},
        "asked_knobs": dict(plan.asked_knobs),
        "calibrations": {engine: one.model_dump(mode="json") for engine, one in plan.calibrations.items()},
        "box": {
            "gpu": plan.box.gpu.model_dump(mode="json"),
            "gpus": list(plan.box.gpus),
            "simulation": plan.box.simulation,
        },
        "trials": plan.trials,
        "budget_s": plan.budget_s,
        "sampler": plan.sampler,
        "extra_flags": list(plan.extra_flags),
        "executables": dict(plan.executables),
        "images": dict(plan.images),
    }


def read_plan(study: Path) -> Plan:
    """The plan of the study in this folder, its engines as the catalog has them now. Raises ConfigError."""
    path = study / "plan.yaml"
    if not path.exists():
        raise ConfigError(f"{study}: no plan.yaml here; give the folder of a study")
    stored = read_yaml(path)
    box = stored["box"]
    return Plan(
        model=parse(Model, stored["model"], path),
        slo=parse(Slo, stored["slo"], path),
        workload=parse(Workload, stored["workload"], path),
        engines=tuple(load(EngineSpec, name) for name in stored["engines"]),
        box=Box(parse(Gpu, box["gpu"], path), tuple(box["gpus"]), box["simulation"]),
        out=study,
        seed=stored["seed"],
        asked_knobs=stored["asked_knobs"],
        trials=stored["trials"],
        budget_s=stored["budget_s"],
        sampler=stored["sampler"],
        extra_flags=tuple(stored["extra_flags"]),
        executables=stored["executables"],
        images=stored.get("images", {}),
        typed=tuple(shlex.split(stored["command"])),
        versions={name: version for name, version in stored["engines"].items() if version != "simulated"},
        calibrations=planned_calibrations(study),
    )


def write_outcome(study: Path, outcome: Outcome) -> None:
    """`outcome.json` of one trial."""
    folder = trial_folder(study, outcome.trial)
    with written(folder):
        folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "outcome.json", _OUTCOME.dump_json(outcome, indent=1).decode())


def read_outcomes(study: Path) -> list[Outcome]:
    """Every finished trial, by number."""
    return [_OUTCOME.validate_json(path.read_bytes()) for path in sorted(study.glob("trials/*/outcome.json"))]


def append_run(study: Path, run: FinalistRun) -> None:
    """Add one finalist's window to `finalists.jsonl`; it is on disk when this returns."""
    append_line(study / RUNS, _RUN.dump_json(run))


def read_runs(study: Path) -> list[FinalistRun]:
    """The finalists' windows measured so far. A last line that a crash cut off is not one."""
    return [_RUN.validate_json(line) for line in whole_lines(study / RUNS)]


def append_session(study: Path, session: Session) -> None:
    """Add to `sessions.jsonl` what one run of the tuner took."""
    append_line(study / SESSIONS, _SESSION.dump_json(session))


def read_sessions(study: Path) -> list[Session]:
    """Every run of the tuner on this study that could say so at its end."""
    return [_SESSION.validate_json(line) for line in whole_lines(study / SESSIONS)]


def mend(study: Path) -> None:
    """Take lines that a crash cut off out of files that grow by lines, so that the next one stands alone."""
    for path in (study / RUNS, study / SESSIONS):
        if path.exists():
            whole = path.read_bytes()
            os.truncate(path, whole.rfind(b"\n") + 1)


@contextmanager
def locked(study: Path) -> Iterator[None]:
    """Keep other tuners out of the folder. Raises BoxUnusable if one is at work there."""
    with (study / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BoxUnusable(
                f"{study}: another tune is at work in this folder; wait for it, or give --out"
            ) from error
        mend(study)
        yield


def write_summary(study: Path, summary: Summary) -> None:
    """`summary.json`."""
    replace_file(study / "summary.json", json.dumps(summary_as_data(summary), indent=1, ensure_ascii=False) + "\n")


def summary_as_data(summary: Summary) -> dict[str, Any]:
    """The JSON object of CLI.md."""
    return {"schema": SCHEMA, **_SUMMARY.dump_python(summary, mode="json")}


def read_summary(study: Path) -> Summary:
    """The summary in a study's folder. Raises ConfigError if there is none."""
    path = study / "summary.json"
    if not path.exists():
        raise ConfigError(f"{study}: no summary.json here; give the folder of a study")
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("schema", None)
    return _SUMMARY.validate_python(content)


def write_trials_csv(study: Path, outcomes: Sequence[Outcome]) -> None:
    """`trials.csv`: one row a trial, the knobs as columns."""
    import pandas as pd

    rows = [_row(outcome) for outcome in outcomes]
    path = study / "trials.csv"
    with written(path):
        pd.DataFrame(rows).to_csv(path.with_suffix(".tmp"), index=False)
        path.with_suffix(".tmp").replace(path)


def _machine() -> dict[str, Any]:
    """What the tuner itself ran on."""
    cpu = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*: (.+)$", cpu.read_text(), re.MULTILINE) if cpu.exists() else []
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": models[0] if models else "unknown",
        "cores": os.cpu_count(),
    }


def _row(outcome: Outcome) -> dict[str, Any]:
    best = outcome.best
    return {
        "trial": outcome.trial,
        "engine": outcome.configuration.engine,
        "state": outcome.state,
        "goodput_rps_per_gpu": outcome.value_rps_per_gpu if outcome.best else None,
        "attainment": best.attainment if best else None,
        "throughput_tok_s": best.throughput_tok_s if best else None,
        "ttft_p99_s": best.ttft_s.p99 if best and best.ttft_s else None,
        "tpot_p99_s": best.tpot_s.p99 if best and best.tpot_s else None,
        "fluidity_index": best.fluidity.mean_index if best and best.fluidity else None,
        "fluid_rate_tok_s": best.fluidity.rate_tok_s if best and best.fluidity else None,
        "gpus": outcome.configuration.gpus,
        "probes": len(outcome.probes),
        "startup_s": outcome.cost.startup_s,
        "measuring_s": outcome.cost.measuring_s,
        "failure": outcome.failure.kind if outcome.failure else None,
        **outcome.configuration.knobs,
    }


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Raises BoxUnusable where a file of the study cannot be written, on a full disk for instance."""
    try:
        yield
    except OSError as error:
        raise BoxUnusable(f"{path}: cannot be written: {error.strerror or error}") from error


def replace_file(path: Path, text: str) -> None:
    """Put `text` into the place of `path`, whole. Raises BoxUnusable."""
    partial = path.with_name(f".{path.name}.partial")
    with written(path):
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def append_line(path: Path, line: bytes) -> None:
    """Add a line to a file that grows by whole lines; it is on disk when this returns. Raises BoxUnusable."""
    with written(path), path.open("ab") as file:
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def whole_lines(path: Path) -> list[bytes]:
    """The lines of such a file, but a last one that a crash cut off."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith(b"\n")]
