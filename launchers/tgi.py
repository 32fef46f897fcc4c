"""Hugging Face TGI's `text-generation-launcher`, as its documentation and source (3.3) describe it.

Not run on hardware by anybody here. It takes prompts as text only, and ends an answer where the model does: of a
workload whose `answer_ends` is planned, answers may come back short, and then count as failed.
"""

from launchers.engine import Engine, EngineMetrics, Metric
from launchers.faults import Pattern, Symptoms
from launchers.stackfaults import BROKEN_BOX, MEMORY, MODEL, PORT
from tuner.errors import FailureKind

PATTERNS = (
    *BROKEN_BOX,
    *MEMORY,
    Pattern(r"Not enough memory to handle \d+ prefill tokens", FailureKind.OUT_OF_MEMORY),
    Pattern(r"^error: (?:unexpected argument|invalid value) ", FailureKind.BAD_FLAG),
    Pattern(r"AddrInUse", FailureKind.PORT_IN_USE),
    *PORT,
    Pattern(r"^Error: DownloadError", FailureKind.MODEL_MISSING),
    *MODEL,
    Pattern(r"^Error: (?:ArgumentValidation|NotEnoughCUDADevices)", FailureKind.BAD_COMBINATION),
)

METRICS = EngineMetrics(
    values={
        "running": (Metric("tgi_batch_current_size"),),
        "waiting": (Metric("tgi_queue_size"),),
        "prompt_tokens": (Metric("tgi_request_input_length_sum"),),
        "generated_tokens": (Metric("tgi_request_generated_tokens_sum"),),
    },
    queue_time="tgi_request_queue_duration",
)

TGI = Engine(
    name="tgi",
    executable="text-generation-launcher",
    variable="GOODTUNE_TGI",
    distribution="",
    install="run its container image with --image ghcr.io/huggingface/text-generation-inference:3.3.5",
    serve=(),
    help=("--help",),
    version=("--version",),
    model_flag=("--model-id",),
    context_flag="--max-total-tokens",
    reset_path="",
    host_flag="--hostname",
    name_flag="",
    takes_token_ids=False,
    is_simulated=False,
    symptoms=Symptoms(PATTERNS),
    metrics=METRICS,
    measuring_flags=("--usage-stats", "off", "--graceful-termination-timeout", "5"),
    stop_grace_s=15.0,
    image_entrypoint="/tgi-entrypoint.sh",
)
