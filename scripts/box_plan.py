"""The plan behind every measurement on a box: vLLM as it is by default, on a GPU, on this CPU, or simulated."""

import argparse
import json
from pathlib import Path
from typing import Any

from tuner.cli.planning import Options, plan_from
from tuner.config.plan import Plan
from tuner.configuration import Configuration
from tuner.space import spaces_of

WHERE: dict[str, dict[str, Any]] = {
    "gpu": {"gpus": "1"},
    "cpu": {"gpu": "cpu"},
    "served": {"simulate": "served", "gpu": "h100", "gpus": "1"},
}


def parser_for(purpose: str | None) -> argparse.ArgumentParser:
    """Options that every measurement has."""
    parser = argparse.ArgumentParser(description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model's directory, or its name")
    parser.add_argument("out", type=Path, help="the folder for results; what is there already is not measured again")
    parser.add_argument("--where", choices=WHERE, default="gpu", help="what serves: a GPU, this CPU, a simulation")
    parser.add_argument("--engine-bin", help="vLLM's executable, or its environment's folder")
    parser.add_argument("--weights", choices=["dummy", "auto"], default="dummy", help="dummy: vLLM makes them up")
    parser.add_argument("--slo", default="chat", help="whose limits and workload count (default: chat)")
    parser.add_argument("--limit", type=float, default=540.0, help="begin nothing new after so many seconds")
    parser.add_argument("--quick", action="store_true", help="a few small measurements: to see that it works")
    return parser


def planned(asked: argparse.Namespace) -> Plan:
    """What the options mean. Raises UserError."""
    options = Options(
        model=asked.model,
        slo=asked.slo,
        executables=(asked.engine_bin,) if asked.engine_bin else (),
        flags=("load-format=dummy",) if asked.weights == "dummy" else (),
        trials=1,
        out=asked.out,
        **WHERE[asked.where],
    )
    return plan_from(options).plan


def default_of(plan: Plan) -> Configuration:
    """vLLM as it is if nothing is said."""
    return spaces_of(plan)["vllm"].default


def about(plan: Plan) -> dict[str, Any]:
    """What was measured, for the head of a result."""
    return {"model": plan.model.name, "box": plan.box.title, "versions": dict(plan.versions)}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What was measured so far, a line each; [] where nothing was."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def add_row(path: Path, row: dict[str, Any]) -> None:
    """Write down what was measured, at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
