"""Engine: what a serving engine says of itself, as data. The supervisor runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from launchers.faults import Pattern


@dataclass(frozen=True)
class Engine:
    """An engine's executable, command line, environment, endpoints, and the log lines that mean failure.

    - `executable` is looked for on PATH, unless the environment variable `variable` names one; `distribution` is the
      name of its Python package, `install` how to get it.
    - `serve` stands between executable and model, `model_flag` (if any) before the model; `help` prints every flag;
      `context_flag` limits prompt plus answer, in tokens.
    - `cpu_flags` and `cpu_env` are needed on a box without GPUs. The flags belong to the command that is deployed
      there; a variable that the user has set himself wins.
    - `measuring_flags` and `measuring_env` are the tuner's own: no telemetry, metrics, a way to reset the cache.
    - `reset_path` is POSTed to forget cached prefixes.
    """

    name: str
    executable: str
    variable: str
    distribution: str
    install: str
    serve: tuple[str, ...]
    help: tuple[str, ...]
    context_flag: str
    reset_path: str
    patterns: tuple[Pattern, ...]
    model_flag: tuple[str, ...] = ()
    cpu_flags: tuple[str, ...] = ()
    cpu_env: Mapping[str, str] = field(default_factory=dict)
    measuring_flags: tuple[str, ...] = ()
    measuring_env: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    metrics_path: str = "/metrics"
    ready_timeout_s: float = 1200.0
    stop_grace_s: float = 10.0
