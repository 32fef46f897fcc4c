"""SGLang, as described by its own parser and logs (0.5.14–0.5.23)."""

from launchers.cpu import SGLANG_KV_TOKENS, engine_threads, usable_cores
from launchers.engine import Engine, EngineMetrics, Metric
from launchers.facts import OFF_ON, ON_OFF, Fact, FactSheet
from launchers.faults import Pattern, Symptoms
from launchers.stackfaults import BROKEN_BOX, COMPILING, FLAGS, MEMORY, MODEL, PORT, STUCK
from tuner.errors import FailureKind

PATTERNS = (
    *BROKEN_BOX,
    Pattern(r"Capture .*graph failed:.*memory", FailureKind.GRAPHS_OUT_OF_MEMORY),
    Pattern(r"^\w*Error: Loaded weights leave no GPU memory", FailureKind.KV_OUT_OF_MEMORY),
    Pattern(r"Not enough memory\. Please try to increase --mem-fraction-static", FailureKind.KV_OUT_OF_MEMORY),
    Pattern(r"(?:Prefill|Decode) out of memory\.", FailureKind.KV_OUT_OF_MEMORY),
    *MEMORY,
    *FLAGS,
    Pattern(r"error: ambiguous option", FailureKind.BAD_FLAG),
    *PORT,
    Pattern(r"[Pp]ort \d+ is (?:already in use|not available)", FailureKind.PORT_IN_USE),
    *MODEL,
    *COMPILING,
    *STUCK,
    Pattern(r"SGLang only supports sm\d+", FailureKind.UNSUPPORTED_GPU),
    Pattern(r"[Ww]atchdog timeout \(self\.watchdog_timeout", FailureKind.HUNG_UNDER_LOAD),
    Pattern(r"Capture .*graph failed", FailureKind.BAD_COMBINATION),
    Pattern(r"User-specified context_length .* is greater than the derived", FailureKind.BAD_COMBINATION),
    Pattern(r"^AssertionError: .+|^NotImplementedError", FailureKind.BAD_COMBINATION),
    Pattern(r"^\w*Error: .*(?:must be|is not) divisible by", FailureKind.BAD_COMBINATION),
    Pattern(r"^\w*Error: .*is not (?:supported|compatible)", FailureKind.BAD_COMBINATION),
)
STAGES = (
    Pattern(r"Load weight begin", FailureKind.WEIGHTS_OUT_OF_MEMORY),
    Pattern(r"Load weight end", FailureKind.KV_OUT_OF_MEMORY),
    Pattern(r"Memory pool end", FailureKind.OUT_OF_MEMORY),
    Pattern(r"Capture .*(?:CUDA|cuda) ?[Gg]raph.* begin", FailureKind.GRAPHS_OUT_OF_MEMORY),
    Pattern(r"Capture .* end", FailureKind.OUT_OF_MEMORY),
)

# Retracted requests are prefilled again: newer versions count the cache's hits without them.
EFFECTIVE, REALTIME = "sglang:prefill_effective_tokens_total", "sglang:realtime_tokens_total"
HITS = ("device_hit", "host_hit", "storage_hit")

# Gauges are renewed with each prompt and with every 40th step of answers: of short probes they say little.
METRICS = EngineMetrics(
    values={
        "running": (Metric("sglang:num_running_reqs"),),
        "waiting": (Metric("sglang:num_queue_reqs"),),
        "kv_used_frac": (Metric("sglang:token_usage"),),
        "prompt_tokens": (Metric("sglang:prompt_tokens_total"),),
        "generated_tokens": (Metric("sglang:generation_tokens_total"),),
        "looked_up_tokens": (Metric(EFFECTIVE), Metric(REALTIME, "mode", ("prefill_compute", "prefill_cache"))),
        "hit_tokens": (Metric(EFFECTIVE, "mode", HITS), Metric(REALTIME, "mode", ("prefill_cache",))),
        "preemptions": (Metric("sglang:num_retracted_requests_total"),),
        "steps": (Metric("sglang:cuda_graph_passes_total"),),
        "step_tokens": (Metric(REALTIME, "mode", ("prefill_compute", "decode")),),
        "accepted_frac": (Metric("sglang:spec_accept_rate"),),
    },
    queue_time="sglang:queue_time_seconds",
    ranks=("tp_rank", "pp_rank"),
    unsaid_zeros=("preemptions",),
)

FACTS = FactSheet(
    path="/server_info",
    knobs={
        "max_batch_size": Fact("internal_states.0.effective_max_running_requests_per_dp"),
        "token_budget": Fact("chunked_prefill_size"),
        "tp": Fact("tp_size"),
        "pp": Fact("pp_size"),
        "dp": Fact("dp_size"),
        "max_prefill_tokens": Fact("max_prefill_tokens"),
        "mixed_chunk": Fact("enable_mixed_chunk", ON_OFF),
        "prefill_decode_interval": Fact("prefill_decode_interval"),
        "prefix_caching": Fact("disable_radix_cache", OFF_ON),
        "gpu_memory_utilization": Fact("mem_fraction_static"),
        "eviction_policy": Fact("radix_eviction_policy"),
        "schedule_policy": Fact("schedule_policy"),
        "schedule_conservativeness": Fact("schedule_conservativeness"),
        "overlap_schedule": Fact("disable_overlap_schedule", OFF_ON),
        "decode_steps": Fact("num_continuous_decode_steps"),
        "cuda_graph_max_batch": Fact("cuda_graph_config.decode.max_bs"),
        "stream_interval": Fact("stream_interval"),
    },
    kv_tokens="max_total_num_tokens",
    version="version",
)

SGLANG = Engine(
    name="sglang",
    executable="sglang",
    variable="GOODTUNE_SGLANG",
    distribution="sglang",
    install="tune engines install sglang",
    serve=("serve",),
    help=("serve", "--help"),
    context_flag="--context-length",
    reset_path="/flush_cache",
    symptoms=Symptoms(PATTERNS, STAGES),
    metrics=METRICS,
    facts=FACTS,
    model_flag=("--model-path",),
    cpu_flags=("--device", "cpu", "--max-total-tokens", str(SGLANG_KV_TOKENS)),
    cpu_env={"OMP_NUM_THREADS": str(engine_threads(usable_cores()))},
    measuring_flags=("--enable-metrics", "--enable-cache-report"),
    # It drains for as long as any client stays; all clients have been closed when it is stopped.
    stop_grace_s=5.0,
)
