"""Failures of what every engine stands on, by the log: memory, driver, compilers, model hub, disk, port."""

from launchers.faults import Pattern
from tuner.errors import FailureKind

# Where an engine stops for one of these, what it says beside it is only what followed.
BROKEN_BOX = (
    Pattern(r"uncorrectable (?:ECC|NVLink) error|GPU is lost|fallen off the bus", FailureKind.GPU_LOST),
    Pattern(r"CUDA error: unknown error|Cuda failure (?:\d+ )?'unknown error'", FailureKind.GPU_LOST),
    Pattern(r"Unable to determine the device handle for GPU", FailureKind.GPU_LOST),
    Pattern(r"[Nn]o CUDA-capable device is detected|No CUDA GPUs are available", FailureKind.GPU_LOST),
    # The driver was taken away or exchanged, or the fabric manager of GPUs behind NVSwitch does not run.
    Pattern(r"Found no NVIDIA driver|[Dd]river/library version mismatch", FailureKind.GPU_LOST),
    Pattern(r"system not yet initialized", FailureKind.GPU_LOST),
    Pattern(r"CUDA-capable device\(s\) is/are busy or unavailable", FailureKind.GPU_IN_USE),
    Pattern(r"No space left on device|Disk quota exceeded", FailureKind.DISK_FULL),
    Pattern(r"exit code:? -9\b", FailureKind.KILLED),
)
MEMORY = (
    Pattern(r"torch\.(?:cuda\.)?OutOfMemoryError", FailureKind.OUT_OF_MEMORY),
    Pattern(r"CUDA out of memory|CUDA (?:driver )?[Ee]rror: out of memory", FailureKind.OUT_OF_MEMORY),
    Pattern(r"Triton Error \[CUDA\]: out of memory|CUBLAS_STATUS_ALLOC_FAILED", FailureKind.OUT_OF_MEMORY),
    # NCCL's own line; the exception above it only speaks of an unhandled CUDA error.
    Pattern(r"Cuda failure (?:\d+ )?'out of memory'", FailureKind.OUT_OF_MEMORY),
    Pattern(r"can't allocate memory|Cannot allocate memory", FailureKind.OUT_OF_MEMORY),
)
FLAGS = (Pattern(r"error: unrecognized arguments|error: argument .*(?:invalid|expected)", FailureKind.BAD_FLAG),)
PORT = (Pattern(r"\[Errno 98\]|[Aa]ddress already in use", FailureKind.PORT_IN_USE),)
MODEL = (
    Pattern(
        r"^[\w.]*(?:HFValidation|LocalEntryNotFound|RepositoryNotFound|GatedRepo|HfHubHTTP)Error",
        FailureKind.MODEL_MISSING,
    ),
    Pattern(r"^OSError: .*(?:is not a local folder|does not appear to have (?:a )?file)", FailureKind.MODEL_MISSING),
    Pattern(r"^OSError: (?:We couldn't connect to|There was a specific connection error)", FailureKind.MODEL_MISSING),
    Pattern(r"^OSError: You are trying to access a gated repo|OfflineModeIsEnabled", FailureKind.MODEL_MISSING),
    Pattern(r"Cannot find any model weights|No model weights found", FailureKind.MODEL_MISSING),
    # A download that was broken off.
    Pattern(r"SafetensorError: Error while deserializing header", FailureKind.MODEL_MISSING),
)
# A GPU may lack what one attention backend or format needs: the configuration's fault, unless nothing starts at all.
COMPILING = (
    Pattern(r"Failed to find C compiler|Python\.h: No such file|Ninja is required to load", FailureKind.NO_COMPILER),
    Pattern(r"CUDA_HOME environment variable is not set|nvcc: (?:command )?not found", FailureKind.NO_COMPILER),
    Pattern(r"No such file or directory: '(?:\S*/)?(?:ninja|nvcc|gcc)'", FailureKind.NO_COMPILER),
    Pattern(r"no kernel image is available|unsupported toolchain", FailureKind.UNSUPPORTED_GPU),
    Pattern(r"Bfloat16 is only supported on GPUs with compute capability", FailureKind.UNSUPPORTED_GPU),
    Pattern(
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old", FailureKind.UNSUPPORTED_GPU
    ),
    Pattern(r"^torch\._inductor\.exc\.|^torch\._dynamo\.exc\.|^\w*InductorError", FailureKind.COMPILE_FAILED),
    Pattern(r"^triton\.(?:compiler|runtime)\.errors\.", FailureKind.COMPILE_FAILED),
    Pattern(r"Ninja build failed|Error building extension|(?:nvcc|ptxas) fatal|NVRTC", FailureKind.COMPILE_FAILED),
)
# What one GPU waits for from another never came.
STUCK = (Pattern(r"Watchdog caught collective operation timeout", FailureKind.HUNG_UNDER_LOAD),)
