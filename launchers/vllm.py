"""vLLM, as described by its own parser and logs (0.24–0.33)."""

from launchers.cpu import engine_threads, usable_cores
from launchers.engine import Engine
from launchers.faults import Pattern
from tuner.errors import FailureKind

# On a CPU vLLM takes 92 % of the memory for its KV cache, unless it is told how much; this much serves 32 users of
# a small model. `--set kv-cache-memory-bytes=...` changes it.
CPU_KV_BYTES = 1024**3

PATTERNS = (
    Pattern(r"torch\.(?:cuda\.)?OutOfMemoryError", FailureKind.OUT_OF_MEMORY),
    Pattern(r"CUDA out of memory|CUDA error: out of memory|NCCL error.*out of memory", FailureKind.OUT_OF_MEMORY),
    Pattern(r"No available memory for the cache blocks", FailureKind.OUT_OF_MEMORY),
    Pattern(r"To serve at least one request with the model", FailureKind.OUT_OF_MEMORY),
    Pattern(r"max seq len \(\d+\) is larger than the maximum number of tokens", FailureKind.OUT_OF_MEMORY),
    Pattern(r"^\w*Error: Free memory on device", FailureKind.OUT_OF_MEMORY),
    Pattern(r"^\w*Error: Available memory on node \d+ .*is less than requested", FailureKind.OUT_OF_MEMORY),
    Pattern(r"can't allocate memory|Cannot allocate memory", FailureKind.OUT_OF_MEMORY),
    Pattern(r"error: unrecognized arguments|error: argument .*(?:invalid|expected)", FailureKind.BAD_FLAG),
    Pattern(r"^\w*Error: \[Errno 98\]|[Aa]ddress already in use", FailureKind.PORT_IN_USE),
    Pattern(
        r"^[\w.]*(?:HFValidation|LocalEntryNotFound|RepositoryNotFound|GatedRepo)Error", FailureKind.MODEL_MISSING
    ),
    Pattern(r"^OSError: .*(?:is not a local folder|does not appear to have a file)", FailureKind.MODEL_MISSING),
    Pattern(r"Cannot find any model weights|No model weights found", FailureKind.MODEL_MISSING),
    Pattern(r"^Value error, ", FailureKind.BAD_COMBINATION),
    Pattern(r"^Input should be ", FailureKind.BAD_FLAG),
    Pattern(r"World size \(\d+\) is larger than the number of", FailureKind.BAD_COMBINATION),
    Pattern(r"^\w*Error: .*(?:must be|is not) divisible by", FailureKind.BAD_COMBINATION),
    Pattern(r"^NotImplementedError|^\w*Error: .*is not supported", FailureKind.BAD_COMBINATION),
)

VLLM = Engine(
    name="vllm",
    executable="vllm",
    variable="GOODTUNE_VLLM",
    distribution="vllm",
    install="uv venv vllm-env && uv pip install --python vllm-env vllm",
    serve=("serve",),
    help=("serve", "--help=all"),
    context_flag="--max-model-len",
    reset_path="/reset_prefix_cache",
    patterns=PATTERNS,
    # Compiling for a CPU takes as long as starting twice and is not what a study on a CPU is about.
    cpu_flags=("--enforce-eager", "--kv-cache-memory-bytes", str(CPU_KV_BYTES)),
    cpu_env={
        # Binding threads to cores would fight with the load generator for the same core.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(engine_threads(usable_cores())),
    },
    # Costs nothing, and says how much of each prompt was in the prefix cache.
    measuring_flags=("--enable-prompt-tokens-details",),
    measuring_env={
        "VLLM_NO_USAGE_STATS": "1",
        # Development mode has the endpoint that resets the prefix cache.
        "VLLM_SERVER_DEV_MODE": "1",
    },
)
