"""The lines are what vLLM 0.32 and SGLang 0.5.23 on a CPU said when provoked, and what users of GPUs reported."""

import pytest

from launchers.engines import ENGINES
from launchers.faults import classify
from tuner.errors import FailureKind, Fault

Kind = FailureKind
TORCH = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 786.00 MiB. GPU 0 is full"
UNKNOWN_FLAG = """\
usage: vllm [-h] [-v]
            {chat,complete,serve,launch,bench,collect-env,download-kernels,preload,run-batch,snapshot}
            ...
vllm: error: unrecognized arguments: --swap-space 4
"""
BAD_CHOICE = """\
usage: vllm serve [model_tag] [options]
vllm serve: error: argument --kv-cache-dtype: invalid choice: 'fp4' (choose from 'auto', 'bfloat16', 'fp8')
"""
BAD_VALUE = """\
(APIServer pid=8056) INFO 11-21 01:09:54 [arg_utils.py:1] non-default args: {'gpu_memory_utilization': 3.0}
Traceback (most recent call last):
  File "vllm/engine/arg_utils.py", line 2265, in create_engine_config
    cache_config = CacheConfig(
                   ^^^^^^^^^^^^
pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig
gpu_memory_utilization
  Input should be less than or equal to 1 [type=less_than_equal, input_value=3.0, input_type=float]
    For further information visit https://errors.pydantic.dev/2.14/v/less_than_equal
"""
BUDGET_BELOW_BATCH = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for SchedulerConfig
  Value error, max_num_batched_tokens (32) must be greater than or equal to max_num_seqs (64). [type=value_error]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
HEADS_NOT_DIVISIBLE = """\
pydantic_core._pydantic_core.ValidationError: 1 validation error for VllmConfig
  Value error, Total number of attention heads (4) must be divisible by tensor parallel size (3). [type=value_error]
"""
NO_KV_ROOM = """\
(EngineCore pid=8138) ERROR 11-21 01:10:41 [core.py:1510]     _check_enough_kv_cache_memory(
(EngineCore pid=8138) ERROR 11-21 01:10:41 [core.py:1510]     raise ValueError(
(EngineCore pid=8138) ERROR 11-21 01:10:41 [core.py:1510] ValueError: No available memory for the cache blocks. Try
ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""
CONTEXT_TOO_LONG = """\
(EngineCore_DP0 pid=1094) ValueError: To serve at least one request with the models's max seq len (262144), (24.0 GiB
"""
KV_ABOVE_RAM = """\
(Worker pid=8410) ERROR 11-21 01:11:02 [multiproc_executor.py:900] ValueError: Available memory on node 0 (7.19/8.96 \
GiB) on kv cache allocation is less than requested memory for kv (4000.0 GiB). Decrease --kv-cache-memory-bytes
"""
WEIGHTS_DO_NOT_FIT = """\
(EngineCore_DP0 pid=8884)   File "torch/nn/modules/module.py", line 1784, in _call_impl
(EngineCore_DP0 pid=8884) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 786.00 MiB. GPU 0 has a total
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
SAMPLER_WARM_UP = """\
(VllmWorker rank=7 pid=10948) ERROR 03-16 06:12:38 [multiproc_executor.py:375] RuntimeError: CUDA out of memory \
occurred when warming up sampler with 1024 dummy requests. Please try lowering `max_num_seqs`
"""
GPU_IN_USE = """\
(EngineCore_DP0 pid=17374) ERROR 09-28 15:47:24 [core.py:718] ValueError: Free memory on device (3.22/4.0 GiB) on \
startup is less than desired GPU memory utilization (0.9, 3.6 GiB).
"""
PORT_TAKEN = """\
(APIServer pid=8931) INFO 11-21 01:12:10 [entry.py:12] vLLM API server version 0.32.0
Traceback (most recent call last):
  File "vllm/entrypoints/launchers/launcher.py", line 348, in create_server_socket
    sock.bind(addr)
OSError: [Errno 98] Address already in use
"""
NO_SUCH_FOLDER = """\
huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/model'
"""
NO_SUCH_REPOSITORY = """\
huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the specified
"""
SGLANG_POOL = """\
[2025-09-22 10:25:22 TP0] Load weight end. type=Qwen2ForCausalLM, dtype=torch.bfloat16, avail mem=1.53 GB
[2025-09-22 10:25:23 TP0] Scheduler hit an exception: Traceback (most recent call last):
RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.
"""
SGLANG_GRAPHS = """\
[2025-09-22 10:25:22 TP0] Capture cuda graph begin. This can take up to several minutes. avail mem=8.73 GB
Exception: Capture cuda graph failed: CUDA out of memory. Tried to allocate 448.00 MiB. GPU 7 has a total capacity
Possible solutions:
1. set --mem-fraction-static to a smaller value (e.g., 0.8 or 0.7)
"""
SGLANG_WEIGHTS = """\
/env/sglang/fla/utils.py:223: UserWarning: Triton is not supported on current platform, roll back to CPU.
[2026-11-21 01:49:10] Scheduler hit an exception: Traceback (most recent call last):
    raise ValueError(
ValueError: Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=-0.049.

[2026-11-21 01:49:13] Received sigquit from a child process. It usually means the child failed.
[2026-11-21 01:49:13] kill_process_tree called: parent_pid=29628, include_parent=True, pid=29628
"""
SGLANG_CONTEXT = """\
ValueError: Warning: User-specified context_length (999999) is greater than the derived context_length (8192).
"""
SGLANG_PORT = """\
ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 18941): address already in use
"""


@pytest.mark.parametrize(
    ("engine", "log", "kind", "evidence"),
    [
        ("vllm", UNKNOWN_FLAG, FailureKind.BAD_FLAG, "vllm: error: unrecognized arguments: --swap-space 4"),
        (
            "vllm",
            BAD_CHOICE,
            FailureKind.BAD_FLAG,
            "vllm serve: error: argument --kv-cache-dtype: invalid choice: 'fp4'",
        ),
        ("vllm", BAD_VALUE, FailureKind.BAD_FLAG, "gpu_memory_utilization: Input should be less than or equal to 1"),
        ("vllm", BUDGET_BELOW_BATCH, FailureKind.BAD_COMBINATION, "max_num_batched_tokens (32) must be greater than"),
        ("vllm", HEADS_NOT_DIVISIBLE, FailureKind.BAD_COMBINATION, "Total number of attention heads (4) must be"),
        ("vllm", NO_KV_ROOM, FailureKind.KV_OUT_OF_MEMORY, "ValueError: No available memory for the cache blocks."),
        ("vllm", CONTEXT_TOO_LONG, FailureKind.KV_OUT_OF_MEMORY, "ValueError: To serve at least one request"),
        (
            "vllm",
            KV_ABOVE_RAM,
            FailureKind.KV_OUT_OF_MEMORY,
            "ValueError: Available memory on node 0 (7.19/8.96 GiB)",
        ),
        ("vllm", WEIGHTS_DO_NOT_FIT, FailureKind.OUT_OF_MEMORY, "torch.OutOfMemoryError: CUDA out of memory."),
        (
            "vllm",
            SAMPLER_WARM_UP,
            FailureKind.OUT_OF_MEMORY,
            "RuntimeError: CUDA out of memory occurred when warming",
        ),
        ("vllm", GPU_IN_USE, FailureKind.OUT_OF_MEMORY, "ValueError: Free memory on device (3.22/4.0 GiB)"),
        ("vllm", PORT_TAKEN, FailureKind.PORT_IN_USE, "OSError: [Errno 98] Address already in use"),
        ("vllm", NO_SUCH_FOLDER, FailureKind.MODEL_MISSING, "huggingface_hub.errors.HFValidationError: Repo id"),
        ("vllm", NO_SUCH_REPOSITORY, FailureKind.MODEL_MISSING, "huggingface_hub.errors.LocalEntryNotFoundError:"),
        ("sglang", SGLANG_POOL, FailureKind.KV_OUT_OF_MEMORY, "RuntimeError: Not enough memory. Please try"),
        ("sglang", SGLANG_WEIGHTS, FailureKind.KV_OUT_OF_MEMORY, "ValueError: Loaded weights leave no GPU memory"),
        ("sglang", SGLANG_CONTEXT, FailureKind.BAD_COMBINATION, "ValueError: Warning: User-specified context_length"),
        ("sglang", SGLANG_PORT, FailureKind.PORT_IN_USE, "ERROR:    [Errno 98] error while attempting to bind"),
        (
            "sglang",
            SGLANG_GRAPHS,
            FailureKind.GRAPHS_OUT_OF_MEMORY,
            "Exception: Capture cuda graph failed: CUDA out of memory.",
        ),
    ],
)
def test_the_log_of_a_failed_start_says_what_to_blame(engine, log, kind, evidence):
    fault = classify(1, log, ENGINES[engine].symptoms, FailureKind.EXITED_AT_START)
    assert fault.kind is kind
    assert fault.evidence.startswith(evidence)


@pytest.mark.parametrize(
    ("engine", "stage", "kind", "before"),
    [
        pytest.param(
            "vllm", "(EngineCore pid=7) INFO 11-21 01:00:00 [gpu_model_runner.py:5040] Starting to load model /m...",
            Kind.WEIGHTS_OUT_OF_MEMORY, "Starting to load model /m...", id="loading",
        ),
        pytest.param(
            "vllm", "(EngineCore pid=7) INFO 11-21 01:00:00 [x.py:1] Model loading took 14.25 GiB and 2 seconds",
            Kind.OUT_OF_MEMORY, "Model loading took 14.25 GiB and 2 seconds", id="profiling",
        ),
        pytest.param(
            "vllm", "(EngineCore pid=7) INFO 11-21 01:00:00 [gpu_worker.py:456] Available KV cache memory: 17.36 GiB",
            Kind.KV_OUT_OF_MEMORY, "Available KV cache memory: 17.36 GiB", id="KV cache",
        ),
        pytest.param(
            "vllm", "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  12%|█▏        | 8/67 [00:01<00:08]",
            Kind.GRAPHS_OUT_OF_MEMORY, "", id="graphs, by the bar of their progress",
        ),
        pytest.param(
            "sglang", "[2025-09-22 10:25:22 TP0] Load weight begin. avail mem=78.58 GB",
            Kind.WEIGHTS_OUT_OF_MEMORY, "Load weight begin. avail mem=78.58 GB", id="SGLang, loading",
        ),
        pytest.param(
            "sglang", "[2025-09-22 10:25:22 TP0] Load weight end. type=Qwen2ForCausalLM, avail mem=1.53 GB",
            Kind.KV_OUT_OF_MEMORY, "Load weight end. type=Qwen2ForCausalLM, avail mem=1.53 GB", id="SGLang, KV",
        ),
        pytest.param(
            "sglang", "[2025-09-22 10:25:22 TP0] Capture decode CUDA graph begin. backend=full, avail mem=8.73 GB",
            Kind.GRAPHS_OUT_OF_MEMORY, "Capture decode CUDA graph begin. backend=full, avail mem=8.73 GB",
            id="SGLang, graphs",
        ),
    ],
)  # fmt: skip
def test_memory_that_runs_out_is_named_by_the_part_of_the_start_it_ran_out_in(engine, stage, kind, before):
    traceback = "(EngineCore pid=7) ERROR 11-21 01:00:09 [core.py:1] Traceback (most recent call last):"
    fault = classify(1, f"{stage}\n{traceback}\n{TORCH}\n", ENGINES[engine].symptoms, Kind.EXITED_AT_START)
    assert fault == Fault(kind, TORCH, before)


@pytest.mark.parametrize(
    ("engine", "line", "kind"),
    [
        ("vllm", "RuntimeError: Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization",
         Kind.WEIGHTS_OUT_OF_MEMORY),
        ("vllm", "  Value error, Invalid repository ID or local directory specified: 'org/model'.",
         Kind.MODEL_MISSING),
        ("vllm", "  Value error, Bfloat16 is only supported on GPUs with compute capability of at least 8.0.",
         Kind.UNSUPPORTED_GPU),
        ("vllm", "RuntimeError: Failed to infer device type, please set VLLM_LOGGING_LEVEL", Kind.UNSUPPORTED_GPU),
        ("vllm", "TimeoutError: Timed out waiting for engine core processes to start.", Kind.START_TIMEOUT),
        ("sglang", "RuntimeError: SGLang only supports sm75 and above.", Kind.UNSUPPORTED_GPU),
        ("sglang", "Exception: Capture cuda graph failed: batch size 3 is too odd", Kind.BAD_COMBINATION),
    ],
)  # fmt: skip
def test_an_engines_own_words_at_its_start(engine, line, kind):
    assert classify(1, f"{line}\n", ENGINES[engine].symptoms, Kind.EXITED_AT_START).kind is kind


@pytest.mark.parametrize(
    ("engine", "line", "kind"),
    [
        ("vllm", "TimeoutError: RPC call to sample_tokens timed out.", Kind.HUNG_UNDER_LOAD),
        ("sglang", "[2026-08-03 01:00:00 TP0] Watchdog timeout (self.watchdog_timeout=300)",
         Kind.HUNG_UNDER_LOAD),
        ("sglang", "RuntimeError: Decode out of memory. Try to lower your batch size.", Kind.KV_OUT_OF_MEMORY),
        ("sglang", "[2026-11-21 01:00:00] Subprocess scheduler (pid=12) crashed with exit code -9.",
         Kind.KILLED),
        # A flag was good once the server had started, whatever a request is told.
        ("vllm", "ValueError: top_k is not supported", Kind.DIED_UNDER_LOAD),
    ],
)  # fmt: skip
def test_an_engines_words_under_load(engine, line, kind):
    symptoms = ENGINES[engine].symptoms.under_load()
    assert classify(1, f"{line}\n", symptoms, Kind.DIED_UNDER_LOAD).kind is kind


CORE_INITIALIZED = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): "
WORKER_INITIALIZED = """\
(EngineCore pid=9) Exception: WorkerProc initialization failed due to an exception in a background process. See \
stack trace for root cause.
"""


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        pytest.param(f"{CORE_INITIALIZED}{{'EngineCore_DP0': -9}}", Kind.KILLED, id="its core"),
        pytest.param(f"{WORKER_INITIALIZED}{CORE_INITIALIZED}{{'EngineCore': 1}}", Kind.KILLED, id="a worker"),
        pytest.param(
            f"(Worker pid=8) KeyError: 'x'\n{WORKER_INITIALIZED}{CORE_INITIALIZED}{{'EngineCore': 1}}",
            Kind.EXITED_AT_START, id="a worker that said why",
        ),
        pytest.param(
            f"{TORCH}\n{CORE_INITIALIZED}{{'EngineCore': -9}}", Kind.OUT_OF_MEMORY, id="not for its own fault",
        ),
        # As vLLM 0.32 said of a core that was killed: it had not been told of the exit code yet.
        pytest.param(f"{CORE_INITIALIZED}{{}}", Kind.KILLED, id="its core, without a code"),
        pytest.param(f"{CORE_INITIALIZED}{{'EngineCore': 1}}", Kind.EXITED_AT_START, id="nobody knows"),
    ],
)  # fmt: skip
def test_a_process_that_is_killed_while_vllm_starts_leaves_no_word_of_its_own(log, kind):
    assert classify(1, log, ENGINES["vllm"].symptoms, Kind.EXITED_AT_START).kind is kind
