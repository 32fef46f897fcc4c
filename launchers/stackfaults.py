"""Failures of what every engine stands on, by the log: memory, driver, compilers, model hub, disk, port."""

from launchers.faults import Pattern
from tuner.errors import FailureKind

# Where an engine stops for one of these, what it says beside it is only what followed.
BROKEN_BOX = (
    Pattern(r"uncorrectable ECC error|GPU is lost|fallen off the bus", FailureKind.GPU_LOST),
    Pattern(r"CUDA error: unknown error|Unable to determine the device handle for GPU", FailureKind.GPU_LOST),
    Pattern(r"[Nn]o CUDA-capable device is detected|No CUDA GPUs are available", FailureKind.GPU_LOST),
    Pattern(r"CUDA-capable device\(s\) is/are busy or unavailable", FailureKind.GPU_IN_USE),
    Pattern(r"No space left on device|Disk quota exceeded", FailureKind.DISK_FULL),
    Pattern(r"exit code:? -9\b", FailureKind.KILLED),
)
MEMORY = (
    Pattern(r"torch\.(?:cuda\.)?OutOfMemoryError", FailureKind.OUT_OF_MEMORY),
    Pattern(r"CUDA out of memory|CUDA error: out of memory|NCCL error.*out of memory", FailureKind.OUT_OF_MEMORY),
    Pattern(r"Triton Error \[CUDA\]: out of memory", FailureKind.OUT_OF_MEMORY),
    Pattern(r"can't allocate memory|Cannot allocate memory", FailureKind.OUT_OF_MEMORY),
)
FLAGS = (Pattern(r"error: unrecognized arguments|error: argument .*(?:invalid|expected)", FailureKind.BAD_FLAG),)
PORT = (Pattern(r"\[Errno 98\]|[Aa]ddress already in use", FailureKind.PORT_IN_USE),)
MODEL = (
    Pattern(
        r"^[\w.]*(?:HFValidation|LocalEntryNotFound|RepositoryNotFound|GatedRepo)Error", FailureKind.MODEL_MISSING
    ),
    Pattern(r"^OSError: .*(?:is not a local folder|does not appear to have a file)", FailureKind.MODEL_MISSING),
    Pattern(r"Cannot find any model weights|No model weights found", FailureKind.MODEL_MISSING),
)
# A GPU may lack what one attention backend or format needs: the configuration's fault, unless nothing starts at all.
COMPILING = (
    Pattern(r"Failed to find C compiler|Python\.h: No such file|Ninja is required to load", FailureKind.NO_COMPILER),
    Pattern(r"CUDA_HOME environment variable is not set|nvcc: (?:command )?not found", FailureKind.NO_COMPILER),
    Pattern(r"No such file or directory: '(?:\S*/)?(?:ninja|nvcc|gcc)'", FailureKind.NO_COMPILER),
    Pattern(r"no kernel image is available|unsupported toolchain", FailureKind.UNSUPPORTED_GPU),
    Pattern(
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old", FailureKind.UNSUPPORTED_GPU
    ),
    Pattern(r"^torch\._inductor\.exc\.|^torch\._dynamo\.exc\.|^\w*InductorError", FailureKind.COMPILE_FAILED),
    Pattern(r"^triton\.(?:compiler|runtime)\.errors\.", FailureKind.COMPILE_FAILED),
    Pattern(r"Ninja build failed|Error building extension|(?:nvcc|ptxas) fatal|NVRTC", FailureKind.COMPILE_FAILED),
)
