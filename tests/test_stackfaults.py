"""The lines are what PyTorch, CUDA, NCCL, Triton and the model hub's client say, in whatever engine they are."""

import pytest

from launchers.engines import ENGINES
from launchers.faults import classify
from tuner.errors import FailureKind as Kind


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", Kind.GPU_LOST),
        ("torch.AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable", Kind.GPU_IN_USE),
        ("RuntimeError: No CUDA GPUs are available", Kind.GPU_LOST),
        ("RuntimeError: CUDA error: uncorrectable NVLink error detected during the execution", Kind.GPU_LOST),
        (
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before? "
            "Error 802: system not yet initialized", Kind.GPU_LOST,
        ),
        ("RuntimeError: Found no NVIDIA driver on your system. Please check that you have one", Kind.GPU_LOST),
        (
            "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:77, unhandled cuda error, NCCL "
            "version 2.27.3\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
            "Cuda failure 2 'out of memory'", Kind.OUT_OF_MEMORY,
        ),
        ("RuntimeError: CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:62", Kind.OUT_OF_MEMORY),
        (
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            Kind.OUT_OF_MEMORY,
        ),
        (
            "[rank1]:[E1001 16:06:04.54 ProcessGroupNCCL.cpp:607] [Rank 1] Watchdog caught collective operation "
            "timeout: WorkNCCL(SeqNum=1, OpType=ALLREDUCE) ran for 600012 milliseconds", Kind.HUNG_UNDER_LOAD,
        ),
        (
            "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in "
            "the cached files.", Kind.MODEL_MISSING,
        ),
        ("OSError: You are trying to access a gated repo.", Kind.MODEL_MISSING),
        (
            "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully "
            "covered", Kind.MODEL_MISSING,
        ),
        ("OSError: [Errno 28] No space left on device: '/cache/vllm/torch_compile_cache'", Kind.DISK_FULL),
        (
            "(Worker pid=9) ERROR 11-21 01:00:00 [x.py:316] Worker proc VllmWorker-1 died unexpectedly "
            "(exit code: -9), shutting down executor.", Kind.KILLED,
        ),
        (
            "RuntimeError: Rank 0 scheduler died during initialization (exit code: -9). If exit code is -9 "
            "(SIGKILL), a common cause is the OS OOM killer.", Kind.KILLED,
        ),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", Kind.UNSUPPORTED_GPU),
        ("RuntimeError: The NVIDIA driver on your system is too old (found version 12020).", Kind.UNSUPPORTED_GPU),
        ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable.", Kind.NO_COMPILER),
        ("/tmp/tmpn8c04nql/main.c:4:10: fatal error: Python.h: No such file or directory", Kind.NO_COMPILER),
        (
            "torch._inductor.exc.InductorError: CalledProcessError: Command '['/usr/bin/gcc', 'main.c']' returned "
            "non-zero exit status 1.", Kind.COMPILE_FAILED,
        ),
        ("triton.runtime.errors.OutOfResources: out of resource: shared memory", Kind.COMPILE_FAILED),
        ("Exception: Capture cuda graph failed: Ninja build failed. Ninja output:", Kind.COMPILE_FAILED),
    ],
)  # fmt: skip
def test_what_every_engine_stands_on_fails_by_the_same_words(engine, line, kind):
    assert classify(1, f"{line}\n", ENGINES[engine].symptoms, Kind.EXITED_AT_START).kind is kind
