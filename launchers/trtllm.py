"""TensorRT-LLM's `trtllm-serve`, as its documentation and source (1.2, `tensorrt_llm/commands/serve.py`) describe it.

Not run on hardware by anybody here. Its metrics are there only where a file given by `--set config=FILE` says
`return_perf_metrics: true`.
"""

from launchers.engine import Engine, EngineMetrics, Metric
from launchers.faults import Pattern, Symptoms
from launchers.stackfaults import BROKEN_BOX, MEMORY, MODEL, PORT
from tuner.errors import FailureKind

PATTERNS = (
    *BROKEN_BOX,
    Pattern(r"CUDA runtime error .*: out of memory", FailureKind.OUT_OF_MEMORY),
    *MEMORY,
    Pattern(r"^Error: (?:No such option|Invalid value for|Got unexpected extra argument)", FailureKind.BAD_FLAG),
    Pattern(r"Failed to bind socket to ", FailureKind.PORT_IN_USE),
    *PORT,
    *MODEL,
    Pattern(r"No GPU devices found on the node", FailureKind.UNSUPPORTED_GPU),
    Pattern(r"^\w*Error: .*(?:must be|is not) divisible by", FailureKind.BAD_COMBINATION),
)

METRICS = EngineMetrics(
    values={
        "kv_used_frac": (Metric("trtllm_kv_cache_utilization"),),
        "prompt_tokens": (Metric("trtllm_prompt_tokens_total"),),
        "generated_tokens": (Metric("trtllm_generation_tokens_total"),),
    },
    queue_time="trtllm_request_queue_time_seconds",
)

TRTLLM = Engine(
    name="trtllm",
    executable="trtllm-serve",
    variable="GOODTUNE_TRTLLM",
    distribution="tensorrt_llm",
    install="uv venv trtllm-env && uv pip install --python trtllm-env tensorrt_llm",
    serve=("serve",),
    help=("serve", "--help"),
    context_flag="--max_seq_len",
    # There is none: every probe gets prompts of its own instead.
    reset_path="",
    name_flag="",
    is_simulated=False,
    symptoms=Symptoms(PATTERNS),
    metrics=METRICS,
    metrics_path="/prometheus/metrics",
)
