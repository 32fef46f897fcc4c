"""What a command line may set that is no knob: the size of the KV cache, weights quantized at start. Pure."""

from dataclasses import dataclass, replace

from launchers.sim.memory import check_longest_fits, kv_bytes_per_token
from launchers.sim.settings import SimSettings, claim_of
from tuner.config.model import Architecture, Model


@dataclass(frozen=True)
class Overrides:
    """None: as the engine finds it out. vLLM's blocks of KV cache or bytes of it on each GPU; SGLang's most tokens;
    whether weights are made fp8."""

    kv_blocks: int | None = None
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    fp8_weights: bool = False


def as_loaded(model: Model, overrides: Overrides) -> Model:
    """The model with the weights that the server holds."""
    if not overrides.fp8_weights or model.architecture.weight_bytes <= 1:
        return model
    fp8 = model.architecture.model_copy(update={"weight_bytes": 1.0, "weight_format": "fp8"})
    return model.model_copy(update={"architecture": fp8})


def as_sized(settings: SimSettings, architecture: Architecture, overrides: Overrides) -> SimSettings:
    """The server with the KV cache that was asked for. Raises ServerFailed if its longest request does not fit."""
    claim = claim_of(settings)
    kv_tokens = settings.kv_tokens
    if overrides.kv_bytes is not None:
        kv_tokens = int(overrides.kv_bytes / kv_bytes_per_token(architecture, claim))
    if overrides.kv_blocks is not None:
        kv_tokens = overrides.kv_blocks * settings.block_tokens
    if overrides.kv_tokens is not None:
        kv_tokens = min(kv_tokens, overrides.kv_tokens)
    check_longest_fits(architecture, claim, kv_tokens, settings.max_model_len)
    return replace(settings, kv_tokens=kv_tokens)
