"""How many tokens of KV cache a server has left, or why it does not start. Pure."""

from dataclasses import dataclass

from launchers.cpu import SGLANG_KV_TOKENS, VLLM_KV_BYTES
from tuner.config.gpu import Gpu
from tuner.config.model import Architecture
from tuner.errors import FailureKind, Fault, ServerFailed

GIB = 1024**3

# CUDA context, graphs, workspaces and sampler buffers, and activations per token of the budget, in units of the
# hidden size: what aiconfigurator-core 0.12.0 assumes of vLLM 0.24.0 and SGLang 0.5.14.
RUNTIME_BYTES = {"vllm": 3.5 * GIB, "sglang": 4.2 * GIB}
COMMUNICATION_BYTES = 0.37 * GIB
ACTIVATION_SHARED, ACTIVATION_SPLIT, ACTIVATION_LEAST = 4.0, 18.0, 10.0


@dataclass(frozen=True)
class Claim:
    """What a server asks of each of its `tp` × `pp` GPUs. `memory_frac`: vLLM's share of memory for everything,
    SGLang's for weights and KV cache; a KV element takes `kv_dtype_bytes`."""

    engine: str
    tp: int
    pp: int
    memory_frac: float
    kv_dtype_bytes: float
    token_budget: int


def kv_capacity_tokens(architecture: Architecture, gpu: Gpu, claim: Claim) -> int:
    """Tokens of KV cache that fit on the server's GPUs; on a CPU, what our command line asks for.

    Raises ServerFailed if weights leave no room for any.
    """
    memory_bytes = gpu.memory_gib * GIB
    weight_bytes = architecture.parameters * architecture.weight_bytes / (claim.tp * claim.pp)
    if weight_bytes > memory_bytes:
        raise _torch_out_of_memory(FailureKind.WEIGHTS_OUT_OF_MEMORY, gpu)
    if gpu.is_cpu:
        of_bytes = int(VLLM_KV_BYTES / kv_bytes_per_token(architecture, claim))
        return SGLANG_KV_TOKENS if claim.engine == "sglang" else of_bytes
    reserve_bytes = _reserve_bytes(architecture, claim)
    free_bytes = memory_bytes * claim.memory_frac - weight_bytes
    if claim.engine == "sglang":
        if memory_bytes * (1 - claim.memory_frac) < reserve_bytes:
            raise _torch_out_of_memory(FailureKind.GRAPHS_OUT_OF_MEMORY, gpu)
    else:
        free_bytes -= reserve_bytes
    if free_bytes <= 0:
        raise _nothing_left(claim)
    return int(free_bytes / kv_bytes_per_token(architecture, claim))


def check_longest_fits(architecture: Architecture, claim: Claim, kv_tokens: int, max_model_len: int) -> None:
    """Raise ServerFailed, as vLLM does, if one request of `max_model_len` tokens would not fit in the cache.

    SGLang only wants one that holds anything.
    """
    if claim.engine == "sglang" and kv_tokens < 1:
        evidence = "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."
        raise ServerFailed(Fault(FailureKind.KV_OUT_OF_MEMORY, evidence), "the KV cache is too small")
    if kv_tokens >= max_model_len or claim.engine == "sglang":
        return
    gib_per_token = kv_bytes_per_token(architecture, claim) / GIB
    evidence = (
        f"ValueError: To serve at least one request with the model's max seq len ({max_model_len}), "
        f"({max_model_len * gib_per_token:.2f} GiB KV cache is needed, which is larger than the available KV cache "
        f"memory ({kv_tokens * gib_per_token:.2f} GiB). Based on the available memory, the estimated maximum model "
        f"length is {kv_tokens}. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`."
    )
    raise ServerFailed(Fault(FailureKind.KV_OUT_OF_MEMORY, evidence), "the KV cache is too small")


def kv_bytes_per_token(architecture: Architecture, claim: Claim) -> float:
    """On one GPU. Beyond one KV head per GPU, heads are copied rather than split."""
    split = min(claim.tp, architecture.kv_heads) * claim.pp
    return architecture.kv_bytes_per_token(claim.kv_dtype_bytes) / split


def _reserve_bytes(architecture: Architecture, claim: Claim) -> float:
    """Memory that is neither weights nor KV cache; activations grow with the token budget."""
    hidden_sizes = max(ACTIVATION_LEAST, ACTIVATION_SHARED + ACTIVATION_SPLIT / claim.tp)
    activation_bytes = hidden_sizes * architecture.hidden * claim.token_budget
    communication_bytes = COMMUNICATION_BYTES if claim.tp * claim.pp > 1 else 0.0
    return RUNTIME_BYTES[claim.engine] + activation_bytes + communication_bytes


def out_of_memory(gpu: Gpu) -> str:
    """What PyTorch says when an allocation on `gpu` fails."""
    return (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 448.00 MiB. GPU 0 has a total capacity of "
        f"{gpu.memory_gib:.2f} GiB of which 0.00 GiB is free."
    )


def _torch_out_of_memory(kind: FailureKind, gpu: Gpu) -> ServerFailed:
    return ServerFailed(Fault(kind, out_of_memory(gpu)), f"the model does not fit on one {gpu.title}'s share")


def _nothing_left(claim: Claim) -> ServerFailed:
    if claim.engine == "sglang":
        evidence = (
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. "
            f"Current value: mem_fraction_static={claim.memory_frac:g}"
        )
    else:
        evidence = (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
            "initializing the engine."
        )
    return ServerFailed(Fault(FailureKind.KV_OUT_OF_MEMORY, evidence), "weights leave no room for a KV cache")
