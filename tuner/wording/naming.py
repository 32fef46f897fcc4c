"""Names: a configuration by what differs from its engine's default, an ending in plain words. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.config.engine import SMALLEST_THAT_FITS, Knob, KnobValue
from tuner.config.plan import Plan
from tuner.config.slo import Limits, Slo
from tuner.configuration import Configuration
from tuner.errors import FailureKind
from tuner.outcome import Failure, Outcome
from tuner.score import Score
from tuner.space import smallest_tp
from tuner.wording.numbers import DASH, limit, number, wanted_share

METRICS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "E2E"}
DEFAULT = "(engine default)"
FILLER_WORDS = frozenset(
    {"backend", "cache", "dtype", "gpu", "max", "policy", "size", "threshold", "token", "utilization"}
)
"""Words of a knob's name that say little beside the others."""

FAILURES: dict[str, str] = {
    FailureKind.OUT_OF_MEMORY: "out of memory",
    FailureKind.WEIGHTS_OUT_OF_MEMORY: "out of memory: weights",
    FailureKind.KV_OUT_OF_MEMORY: "out of memory: KV cache",
    FailureKind.GRAPHS_OUT_OF_MEMORY: "out of memory: graphs",
    FailureKind.BAD_FLAG: "flag refused",
    FailureKind.BAD_COMBINATION: "settings do not combine",
    FailureKind.MODEL_MISSING: "model not found",
    FailureKind.PORT_IN_USE: "port in use",
    FailureKind.START_TIMEOUT: "too slow to start",
    FailureKind.EXITED_AT_START: "exited at start",
    FailureKind.DIED_UNDER_LOAD: "died under load",
    FailureKind.HUNG_UNDER_LOAD: "hung under load",
    FailureKind.BAD_ANSWERS: "answers are errors",
    FailureKind.COMPILE_FAILED: "kernels do not compile",
    FailureKind.UNSUPPORTED_GPU: "GPU not supported",
    FailureKind.GPU_LOST: "GPU lost",
    FailureKind.GPU_IN_USE: "GPU in use",
    FailureKind.NO_COMPILER: "no compiler",
    FailureKind.DISK_FULL: "disk full",
    FailureKind.KILLED: "server killed",
    FailureKind.NOT_GONE: "server not gone",
    "void": "measurement void",
}


@dataclass(frozen=True)
class Naming:
    """What is needed to name a configuration: each engine's defaults, and whether engines have to be told apart."""

    defaults: Mapping[str, Mapping[str, KnobValue]]
    names_engine: bool

    def knowing(self, configuration: Configuration) -> "Naming":
        """This naming with the defaults that `configuration` shows, if it is an engine's default."""
        if not configuration.is_default:
            return self
        return Naming({**self.defaults, configuration.engine: configuration.knobs}, self.names_engine)


def naming_of(plan: Plan, seen: Sequence[Configuration] = ()) -> Naming:
    """How the plan's configurations are named. Defaults among `seen` are believed before the engine's file."""
    defaults = {
        engine.name: {name: _default(knob, plan) for name, knob in engine.knobs.items()} for engine in plan.engines
    }
    naming = Naming(defaults, names_engine=len(plan.engines) > 1)
    for configuration in seen:
        naming = naming.knowing(configuration)
    return naming


def differences(naming: Naming, engine: str, knobs: Mapping[str, KnobValue]) -> dict[str, KnobValue]:
    """The knobs whose value is not the engine's default."""
    defaults = naming.defaults.get(engine, {})
    return {name: value for name, value in knobs.items() if name not in defaults or defaults[name] != value}


def title(naming: Naming, engine: str, knobs: Mapping[str, KnobValue]) -> str:
    """`budget 512 · batch 128`; with several engines in the study the engine comes first."""
    parts = [f"{short(name)} {value_text(value)}" for name, value in differences(naming, engine, knobs).items()]
    if naming.names_engine:
        return " · ".join([engine, *parts]) if parts else f"{engine} {DEFAULT}"
    return " · ".join(parts) or DEFAULT


def short(knob: str) -> str:
    """A knob's name without the words that say little: `token_budget` is `budget`, `max_batch_size` is `batch`."""
    telling = [word for word in knob.split("_") if word not in FILLER_WORDS]
    return "-".join(telling) or knob


def value_text(value: KnobValue) -> str:
    """A knob's value: `on`, `512`, `0.93`, `fp8`."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def trial_name(trial: int) -> str:
    """`t21`."""
    return f"t{trial}"


def limits_text(limits: Limits) -> str:
    """`TTFT ≤ 200 ms and P99 ITL ≤ 50 ms`: of a request's own gaps it is the P99 that is limited."""
    parts = [f"{_limited(name)} ≤ {bound_text(limits, name)}" for name in limits.present()]
    return " and ".join(parts) or "no latency limit"


def _limited(metric: str) -> str:
    return f"P99 {METRICS[metric]}" if metric == "itl_s" else METRICS[metric]


def bound_text(limits: Limits, metric: str) -> str:
    """A limit that exists, as it was given: `200 ms`, `200 ms + 0.4 ms per prompt token`."""
    text = limit(limits.present()[metric])
    if grows_with_prompt(limits, metric):
        text += f" + {number(limits.ttft_s_per_prompt_token * 1e3)} ms per prompt token"
    return text


def grows_with_prompt(limits: Limits, metric: str) -> bool:
    """Whether each request has its own limit on `metric`, so that no percentile can be held against one."""
    return metric == "ttft_s" and limits.ttft_s_per_prompt_token > 0


def slo_text(slo: Slo) -> str:
    """`TTFT ≤ 200 ms and P99 ITL ≤ 50 ms for 99 % of requests`."""
    if not slo.limits.present() and not slo.attainment:
        return limits_text(slo.limits)
    return f"{limits_text(slo.limits)} for {wanted_share(slo.attainment)} of requests"


def broken_limit(score: Score) -> str | None:
    """The name of what most requests of this probe missed: `TTFT`, or `requests fail`; None if nothing was missed."""
    missed = {name: count for name, count in score.missed.items() if count}
    if not missed:
        return None
    worst = max(missed, key=lambda name: missed[name])
    return METRICS.get(worst, "requests fail")


def failure_text(failure: Failure) -> str:
    """The reason in plain words: `out of memory`."""
    return FAILURES[failure.kind]


def ending(outcome: Outcome) -> str:
    """How a trial ended: `in SLO`, `misses SLO: TTFT`, `stopped early`, `out of memory`."""
    if outcome.failure is not None:
        return failure_text(outcome.failure)
    if outcome.state == "pruned":
        return "stopped early"
    if outcome.holds_slo:
        return "in SLO"
    broken = broken_limit(outcome.best) if outcome.best else None
    return f"misses SLO: {broken}" if broken else "misses SLO"


def worth_text(outcome: Outcome) -> str:
    """What a trial that held the SLO is worth, req/s per GPU: `6.90`; `~5.64` of one stopped early."""
    about = "~" if outcome.state == "pruned" else ""
    return f"{about}{number(outcome.value_rps_per_gpu)}" if outcome.holds_slo else DASH


def worth(outcome: Outcome) -> tuple[float, float, int]:
    """What trials are ranked by, the best lowest: goodput, then nearness to the SLO, then age."""
    return -outcome.value_rps_per_gpu, -outcome.best.attainment if outcome.best else 1.0, outcome.trial


def _default(knob: Knob, plan: Plan) -> KnobValue:
    default = knob.default_on(plan.box.gpu)
    if default == SMALLEST_THAT_FITS:
        return smallest_tp(plan.model, plan.box.gpu, len(plan.box.gpus))
    return default
