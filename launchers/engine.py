"""Engine: what a serving engine says of itself, as data. The supervisor runs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from launchers.facts import FactSheet
from launchers.faults import Symptoms
from tuner.engineview import Counter, Name


@dataclass(frozen=True)
class Metric:
    """Samples of this name, summed; of those with a `label`, if one is given, only where its value is in `among`."""

    name: str
    label: str = ""
    among: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineMetrics:
    """Under which names an engine exports what `tuner.engineview` explains: the first that is there counts.

    `queue_time` is the histogram, in seconds, of how long requests waited for their place in the batch. Where several
    processes that serve the same requests count them, `ranks` are the labels that number them: the first one's count.
    Of `unsaid_zeros` the engine says nothing before it has counted something.
    """

    values: Mapping[Name, tuple[Metric, ...]] = field(default_factory=dict)
    queue_time: str = ""
    ranks: tuple[str, ...] = ()
    unsaid_zeros: tuple[Counter, ...] = ()


@dataclass(frozen=True)
class Engine:
    """An engine's executable, command line, environment, endpoints, and the log lines that mean failure.

    - `executable` is looked for on PATH, unless the environment variable `variable` names one; `distribution` is the
      name of its Python package, which is asked for the version unless the words `version` make the engine print it;
      `install` says how to get it. `image_entrypoint`, if not the executable, is what its container images start.
    - `serve` stands between executable and model, `model_flag` (if any) before the model; `help` prints every flag;
      `context_flag` limits prompt plus answer, in tokens. `host_flag` takes the address, `name_flag` the name that
      clients ask for ("": any will do).
    - `cpu_flags` and `cpu_env` are needed on a box without GPUs. The flags belong to the command that is deployed
      there; a variable that the user has set himself wins.
    - `measuring_flags` and `measuring_env` are the tuner's own: no telemetry, metrics, a way to reset the cache.
    - `reset_path` is POSTed to forget cached prefixes ("": no way to; probes get prompts of their own instead). An
      engine that `takes_token_ids` completes prompts of them, else it only takes text. `is_simulated`: by us.
    - `metrics` names what is read at `metrics_path`, `facts` what a server is asked once when it is ready.
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
    symptoms: Symptoms
    version: tuple[str, ...] = ()
    model_flag: tuple[str, ...] = ()
    host_flag: str = "--host"
    name_flag: str = "--served-model-name"
    takes_token_ids: bool = True
    is_simulated: bool = True
    image_entrypoint: str = ""
    cpu_flags: tuple[str, ...] = ()
    cpu_env: Mapping[str, str] = field(default_factory=dict)
    measuring_flags: tuple[str, ...] = ()
    measuring_env: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    metrics_path: str = "/metrics"
    metrics: EngineMetrics = EngineMetrics()
    facts: FactSheet = field(default_factory=FactSheet)
    ready_timeout_s: float = 1200.0
    stop_grace_s: float = 10.0
