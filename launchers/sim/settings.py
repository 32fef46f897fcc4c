"""What the simulated engine needs to know of a configuration: knobs in, SimSettings out. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from launchers.sim.memory import Claim, check_longest_fits, kv_capacity_tokens
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec, KnobValue
from tuner.config.gpu import Gpu
from tuner.config.model import Architecture, Model
from tuner.config.workload import Chances
from tuner.configuration import Configuration
from tuner.errors import FailureKind, Fault, ServerFailed

# Assumptions (docs/simulator.md, Start-up): imports, cached compilation and graph capture take the first, reading
# weights from a local disk goes at the second.
START_S = 30.0
LOADING_BYTES_PER_S = 2e9
AUTO_BLOCK_TOKENS = 16

MODELLED = {
    "vllm": {
        *("max_batch_size", "token_budget", "tp", "dp", "chunked_prefill", "long_prefill_token_threshold"),
        *("speculation", "prefix_caching", "kv_cache_dtype", "gpu_memory_utilization", "block_size"),
        "stream_interval",
    },
    "sglang": {
        *("max_batch_size", "token_budget", "tp", "dp", "mixed_chunk", "max_prefill_tokens", "speculation"),
        *("prefix_caching", "kv_cache_dtype", "gpu_memory_utilization", "schedule_conservativeness"),
    },
}

AT_LEAST_1 = (
    ("SchedulerConfig", "max_num_seqs", "max_batch"),
    ("SchedulerConfig", "max_num_batched_tokens", "token_budget"),
    ("SchedulerConfig", "stream_interval", "stream_interval"),
    ("CacheConfig", "block_size", "block_tokens"),
    ("ParallelConfig", "tensor_parallel_size", "tp"),
    ("ParallelConfig", "pipeline_parallel_size", "pp"),
    ("ParallelConfig", "data_parallel_size", "dp"),
)
"""vLLM's configuration, its field, ours: the ranges that pydantic checks in vllm/config of 0.32."""

SGLANG_AT_LEAST_1 = (
    ("max_running_requests", "max_batch"),
    ("max_prefill_tokens", "max_prefill_tokens"),
    ("tp_size", "tp"),
    ("pp_size", "pp"),
    ("dp_size", "dp"),
)
"""SGLang's argument, ours. It has no such check: it fails or hangs later."""

EngineName = Literal["vllm", "sglang"]
Policy = Literal["vllm", "sglang", "prefill-first", "orca"]
"""A scheduling order: an engine's own, or one of the two that are only there to be compared with
(`launchers.sim.virtual.under_policy`)."""


@dataclass(frozen=True)
class SimSettings:
    """One simulated server. Token counts; `long_prefill_tokens` 0: no limit; `drafts` tokens are guessed per step
    and each is accepted with the chance `acceptance` (of its place) if the one before was. `unmodelled` knobs have no
    effect.
    """

    engine: EngineName = "vllm"
    policy: Policy = "vllm"
    max_batch: int = 1024
    token_budget: int = 8192
    kv_tokens: int = 1_000_000
    max_model_len: int = 32768
    block_tokens: int = AUTO_BLOCK_TOKENS
    chunked_prefill: bool = True
    long_prefill_tokens: int = 0
    mixed_chunk: bool = False
    max_prefill_tokens: int = 16384
    conservativeness: float = 1.0
    prefix_caching: bool = False
    drafts: int = 0
    acceptance: Chances = 0.0
    draft_model: bool = False
    tp: int = 1
    pp: int = 1
    dp: int = 1
    memory_frac: float = 0.9
    kv_dtype_bytes: float = 2.0
    stream_interval: int = 1
    startup_s: float = 0.0
    unmodelled: tuple[str, ...] = ()

    @property
    def blocks(self) -> int:
        """Blocks of KV cache."""
        return self.kv_tokens // self.block_tokens

    def admits(self, prompt_tokens: int, output_tokens: int) -> bool:
        """Whether a request is short enough; both engines refuse longer ones with HTTP 400."""
        return prompt_tokens + output_tokens <= min(self.max_model_len, self.blocks * self.block_tokens)


def settings_of(
    configuration: Configuration,
    model: Model,
    gpu: Gpu,
    acceptance: Chances,
    max_model_len: int | None = None,
) -> SimSettings:
    """The simulated server of `configuration`. Raises ServerFailed where the real one would not start, or nothing
    simulates it."""
    if configuration.engine not in MODELLED:
        raise ServerFailed(Fault(FailureKind.EXITED_AT_START), f"there is no simulation of {configuration.engine}")
    knobs = {**_defaults(configuration.engine, gpu), **configuration.knobs}
    longest = model.architecture.max_context if max_model_len is None else max_model_len
    read = _sglang if configuration.engine == "sglang" else _vllm
    settings = read(knobs, SimSettings(max_model_len=longest))
    drafts, draft_model = _speculation(str(knobs["speculation"]))
    settings = replace(
        settings,
        max_batch=int(knobs["max_batch_size"]),
        token_budget=int(knobs["token_budget"]),
        prefix_caching=knobs["prefix_caching"] == "on",
        drafts=drafts,
        draft_model=draft_model,
        acceptance=acceptance,
        tp=int(knobs["tp"]),
        pp=int(knobs["pp"]),
        dp=int(knobs["dp"]),
        kv_dtype_bytes=1.0 if knobs["kv_cache_dtype"] == "fp8" else 2.0,
        memory_frac=float(knobs["gpu_memory_utilization"]),
        unmodelled=_unmodelled(configuration, gpu),
    )
    _check_ranges(settings, model.architecture)
    _check_combination(settings, model.architecture)
    return _with_memory(settings, model.architecture, gpu)


def has_effect(spec: EngineSpec, knob: str) -> bool:
    """Whether the simulation models this knob of the engine."""
    return knob in MODELLED.get(spec.name, set())


def with_effect(spec: EngineSpec, asked: Collection[str]) -> tuple[EngineSpec, tuple[str, ...]]:
    """`spec` without the knobs that the simulation does not model, and their names; `asked` ones stay. Pure."""
    idle = {name for name in spec.knobs if not has_effect(spec, name) and name not in asked}
    kept = {name: knob for name, knob in spec.knobs.items() if name not in idle}
    searched = tuple(name for name in spec.knobs if name in idle and not spec.knobs[name].only_if_asked)
    return spec.keeping(kept), searched


def _defaults(engine: str, gpu: Gpu) -> dict[str, KnobValue]:
    """The engine's own defaults on `gpu`, and the smallest tensor-parallel size."""
    defaults = {name: knob.default_on(gpu) for name, knob in _spec(engine).knobs.items()}
    return {**defaults, "tp": 1}


@cache
def _spec(engine: str) -> EngineSpec:
    return load(EngineSpec, engine)


def _vllm(knobs: Mapping[str, KnobValue], settings: SimSettings) -> SimSettings:
    return replace(
        settings,
        engine="vllm",
        policy="vllm",
        chunked_prefill=knobs["chunked_prefill"] == "on",
        long_prefill_tokens=_number_or(knobs["long_prefill_token_threshold"], 0),
        block_tokens=_number_or(knobs["block_size"], AUTO_BLOCK_TOKENS),
        stream_interval=int(knobs["stream_interval"]),
    )


def _sglang(knobs: Mapping[str, KnobValue], settings: SimSettings) -> SimSettings:
    return replace(
        settings,
        engine="sglang",
        policy="sglang",
        mixed_chunk=knobs["mixed_chunk"] == "on",
        chunked_prefill=int(knobs["token_budget"]) > 0,
        max_prefill_tokens=max(int(knobs["max_prefill_tokens"]), settings.max_model_len),
        conservativeness=float(knobs["schedule_conservativeness"]),
    )


def _number_or(value: KnobValue, otherwise: int) -> int:
    """The number a choice names; `auto` and `off` name none."""
    return int(value) if str(value).removeprefix("-").isdigit() else otherwise


def _speculation(choice: str) -> tuple[int, bool]:
    """Drafted tokens per step, and whether a model drafts them: `off`, `ngram-3`, `draft-5`."""
    method, _, drafts = choice.rpartition("-")
    return (int(drafts), method != "ngram") if method else (0, False)


def _unmodelled(configuration: Configuration, gpu: Gpu) -> tuple[str, ...]:
    """Knobs turned away from their default that have no effect here."""
    defaults = _defaults(configuration.engine, gpu)
    turned = [name for name, value in configuration.knobs.items() if value != defaults.get(name)]
    return tuple(name for name in turned if name not in MODELLED[configuration.engine])


def _check_ranges(settings: SimSettings, architecture: Architecture) -> None:
    """Raise ServerFailed for a value that no server of the engine can have."""
    if settings.engine == "sglang":
        _check_sglang(settings, architecture)
    else:
        _check_vllm(settings, architecture)


def _check_combination(settings: SimSettings, architecture: Architecture) -> None:
    """Raise ServerFailed where values that are possible alone exclude each other."""
    if not architecture.divides(settings.tp):
        heads = f"Total number of attention heads ({architecture.heads})"
        raise _bad_combination(f"Value error, {heads} must be divisible by tensor parallel size ({settings.tp}).")
    if settings.engine == "sglang":
        return
    budget, longest = settings.token_budget, settings.max_model_len
    if not settings.chunked_prefill and budget < longest:
        raise _bad_combination(
            f"Value error, max_num_batched_tokens ({budget}) is smaller than max_model_len ({longest})."
        )
    if budget < settings.max_batch:
        must = f"must be greater than or equal to max_num_seqs ({settings.max_batch})"
        raise _bad_combination(f"Value error, max_num_batched_tokens ({budget}) {must}.")


def _check_vllm(settings: SimSettings, architecture: Architecture) -> None:
    for config, name, field in AT_LEAST_1:
        value = getattr(settings, field)
        if value < 1:
            raise _invalid(config, name, f"greater than or equal to 1 [type=greater_than_equal, input_value={value}]")
    share = settings.memory_frac
    if share <= 0:
        raise _invalid(
            "CacheConfig", "gpu_memory_utilization", f"greater than 0 [type=greater_than, input_value={share}]"
        )
    if share > 1:
        kind = f"less than or equal to 1 [type=less_than_equal, input_value={share}]"
        raise _invalid("CacheConfig", "gpu_memory_utilization", kind)
    longest, derived = settings.max_model_len, architecture.max_context
    if longest < 1:
        raise _invalid("ModelConfig", "max_model_len", f"greater than 0 [type=greater_than, input_value={longest}]")
    if longest > derived:
        raise _bad_combination(
            f"Value error, User-specified max_model_len ({longest}) is greater than the derived max_model_len "
            f"(max_position_embeddings={derived} or model_max_length=None in model's config.json)."
        )
    threshold = settings.long_prefill_tokens
    if not 0 <= threshold <= longest:
        must = f"must be at least 0 and not greater than the max_model_len ({longest})"
        raise _bad_combination(f"Value error, long_prefill_token_threshold ({threshold}) {must}.")


def _check_sglang(settings: SimSettings, architecture: Architecture) -> None:
    for name, field in SGLANG_AT_LEAST_1:
        if getattr(settings, field) < 1:
            raise _bad_flag(f"AssertionError: {name} must be at least 1, got {getattr(settings, field)}")
    if not 0 < settings.memory_frac < 1:
        raise _bad_flag(f"AssertionError: mem_fraction_static must be between 0 and 1, got {settings.memory_frac:g}")
    longest, derived = settings.max_model_len, architecture.max_context
    if longest < 1:
        raise _bad_flag(f"AssertionError: context_length must be at least 1, got {longest}")
    if longest > derived:
        raise _bad_combination(
            f"ValueError: Warning: User-specified context_length ({longest}) is greater than the derived "
            f"context_length ({derived})."
        )


def _invalid(config: str, name: str, should_be: str) -> ServerFailed:
    """Pydantic's three lines."""
    return _bad_flag(f"1 validation error for {config}\n{name}\n  Input should be {should_be}")


def _bad_flag(evidence: str) -> ServerFailed:
    return ServerFailed(Fault(FailureKind.BAD_FLAG, evidence), "a value is out of range")


def _bad_combination(evidence: str) -> ServerFailed:
    return ServerFailed(Fault(FailureKind.BAD_COMBINATION, evidence), "these settings exclude each other")


def claim_of(settings: SimSettings) -> Claim:
    """What this server asks of its GPUs."""
    return Claim(
        engine=settings.engine,
        tp=settings.tp,
        pp=settings.pp,
        memory_frac=settings.memory_frac,
        kv_dtype_bytes=settings.kv_dtype_bytes,
        token_budget=settings.token_budget if settings.token_budget > 0 else settings.max_prefill_tokens,
    )


def _with_memory(settings: SimSettings, architecture: Architecture, gpu: Gpu) -> SimSettings:
    claim = claim_of(settings)
    kv_tokens = kv_capacity_tokens(architecture, gpu, claim)
    check_longest_fits(architecture, claim, kv_tokens, settings.max_model_len)
    weight_bytes = architecture.parameters * architecture.weight_bytes / (settings.tp * settings.pp)
    return replace(settings, kv_tokens=kv_tokens, startup_s=START_S + weight_bytes / LOADING_BYTES_PER_S)
