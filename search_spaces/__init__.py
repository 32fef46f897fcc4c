"""The search spaces: one YAML file for each model, engine, workload, SLO and GPU; the name is the file."""

from pathlib import Path

ROOT = Path(__file__).parent
