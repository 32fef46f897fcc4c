"""vLLM, as described by its own parser and logs (0.24–0.33)."""

from launchers.cpu import VLLM_KV_BYTES, engine_threads, usable_cores
from launchers.engine import Engine, EngineMetrics, Metric
from launchers.facts import OFF_ON, ON_OFF, Fact, FactSheet
from launchers.faults import Pattern, Symptoms
from launchers.stackfaults import BROKEN_BOX, COMPILING, FLAGS, MEMORY, MODEL, PORT, STUCK
from tuner.errors import FailureKind

PATTERNS = (
    *BROKEN_BOX,
    Pattern(r"Failed to load model - not enough GPU memory", FailureKind.WEIGHTS_OUT_OF_MEMORY),
    Pattern(r"No available memory for the cache blocks", FailureKind.KV_OUT_OF_MEMORY),
    Pattern(r"To serve at least one request with the model", FailureKind.KV_OUT_OF_MEMORY),
    Pattern(r"max seq len \(\d+\) is larger than the maximum number of tokens", FailureKind.KV_OUT_OF_MEMORY),
    Pattern(r"^\w*Error: Available memory on node \d+ .*is less than requested", FailureKind.KV_OUT_OF_MEMORY),
    Pattern(r"^\w*Error: Free memory on device", FailureKind.OUT_OF_MEMORY),
    *MEMORY,
    *FLAGS,
    *PORT,
    *MODEL,
    *COMPILING,
    *STUCK,
    Pattern(r"Invalid repository ID or local directory specified", FailureKind.MODEL_MISSING),
    Pattern(r"Failed to infer device type", FailureKind.UNSUPPORTED_GPU),
    Pattern(r"Timed out waiting for engine core processes to start", FailureKind.START_TIMEOUT),
    Pattern(r"^TimeoutError: RPC call to \w+ timed out", FailureKind.HUNG_UNDER_LOAD),
    Pattern(r"^Value error, ", FailureKind.BAD_COMBINATION),
    Pattern(r"^Input should be ", FailureKind.BAD_FLAG),
    Pattern(r"World size \(\d+\) is larger than the number of", FailureKind.BAD_COMBINATION),
    Pattern(r"^\w*Error: .*(?:must be|is not) divisible by", FailureKind.BAD_COMBINATION),
    Pattern(r"^NotImplementedError|^\w*Error: .*is not supported", FailureKind.BAD_COMBINATION),
)
STAGES = (
    Pattern(r"Starting to load model", FailureKind.WEIGHTS_OUT_OF_MEMORY),
    # Behind the weights comes a trial run with the whole token budget, then the KV cache.
    Pattern(r"Model loading took", FailureKind.OUT_OF_MEMORY),
    Pattern(r"Available KV cache memory|KV cache size", FailureKind.KV_OUT_OF_MEMORY),
    Pattern(r"Capturing CUDA graphs|Profiling CUDA graph memory", FailureKind.GRAPHS_OUT_OF_MEMORY),
    Pattern(r"Graph capturing finished", FailureKind.OUT_OF_MEMORY),
)

METRICS = EngineMetrics(
    values={
        "running": (Metric("vllm:num_requests_running"),),
        "waiting": (Metric("vllm:num_requests_waiting"),),
        "kv_used_frac": (Metric("vllm:kv_cache_usage_perc"),),
        "prompt_tokens": (Metric("vllm:prompt_tokens_total"),),
        "generated_tokens": (Metric("vllm:generation_tokens_total"),),
        "looked_up_tokens": (Metric("vllm:prefix_cache_queries_total"),),
        "hit_tokens": (Metric("vllm:prefix_cache_hits_total"),),
        "preemptions": (Metric("vllm:num_preemptions_total"),),
        # A histogram in spite of its name. A prompt counts whole in the step that ends it.
        "steps": (Metric("vllm:iteration_tokens_total_count"),),
        "step_tokens": (Metric("vllm:iteration_tokens_total_sum"),),
        "guessed_tokens": (Metric("vllm:spec_decode_num_draft_tokens_total"),),
        "accepted_tokens": (Metric("vllm:spec_decode_num_accepted_tokens_total"),),
    },
    queue_time="vllm:request_queue_time_seconds",
)

# The endpoint is one of development mode.
FACTS = FactSheet(
    path="/server_info?config_format=json",
    knobs={
        "max_batch_size": Fact("vllm_config.scheduler_config.max_num_seqs"),
        "token_budget": Fact("vllm_config.scheduler_config.max_num_batched_tokens"),
        "tp": Fact("vllm_config.parallel_config.tensor_parallel_size"),
        "pp": Fact("vllm_config.parallel_config.pipeline_parallel_size"),
        "dp": Fact("vllm_config.parallel_config.data_parallel_size"),
        "chunked_prefill": Fact("vllm_config.scheduler_config.enable_chunked_prefill", ON_OFF),
        "long_prefill_token_threshold": Fact("vllm_config.scheduler_config.long_prefill_token_threshold", {0: "off"}),
        "prefix_caching": Fact("vllm_config.cache_config.enable_prefix_caching", ON_OFF),
        "gpu_memory_utilization": Fact("vllm_config.cache_config.gpu_memory_utilization"),
        "kv_watermark": Fact("vllm_config.scheduler_config.watermark"),
        "reserve_full_prompt": Fact("vllm_config.scheduler_config.scheduler_reserve_full_isl", ON_OFF),
        "schedule_policy": Fact("vllm_config.scheduler_config.policy"),
        "async_scheduling": Fact("vllm_config.scheduler_config.async_scheduling", ON_OFF),
        "performance_mode": Fact("vllm_config.performance_mode"),
        "cuda_graphs": Fact("vllm_config.model_config.enforce_eager", OFF_ON),
        "cuda_graph_max_batch": Fact("vllm_config.compilation_config.max_cudagraph_capture_size"),
        "stream_interval": Fact("vllm_config.scheduler_config.stream_interval"),
    },
    kv_tokens="vllm_config.cache_config.kv_cache_size_tokens",
    log_version=r"engine \(v([\w.+]+)\)",
)

VLLM = Engine(
    name="vllm",
    executable="vllm",
    variable="GOODTUNE_VLLM",
    distribution="vllm",
    install="tune engines install vllm",
    serve=("serve",),
    help=("serve", "--help=all"),
    context_flag="--max-model-len",
    reset_path="/reset_prefix_cache",
    symptoms=Symptoms(PATTERNS, STAGES),
    metrics=METRICS,
    facts=FACTS,
    # Compiling for a CPU takes as long as starting twice and is not what a study on a CPU is about.
    cpu_flags=("--enforce-eager", "--kv-cache-memory-bytes", str(VLLM_KV_BYTES)),
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
