"""NVML on a box that the file `$FAKE_NVML` describes, anew at each question: whoever writes it plays the driver.

It is a list of GPUs, each `{"used_gib": 1, "processes": [[pid, gib]]}` (null: it does not tell) or `{"lost": true}`;
the word "broken" is a driver that answers nothing.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

GIB = 2**30
TOTAL_GIB = 79.6


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_NoPermission(NVMLError):
    pass


def nvmlInit() -> None:
    if "FAKE_NVML" not in os.environ:
        raise NVMLError("Driver Not Loaded")


def nvmlShutdown() -> None:
    pass


def _gpus() -> list[dict]:
    return json.loads(Path(os.environ["FAKE_NVML"]).read_text(encoding="utf-8"))


def nvmlDeviceGetCount() -> int:
    gpus = _gpus()
    if gpus == "broken":
        raise NVMLError("Unknown Error")
    return len(gpus)


def nvmlDeviceGetHandleByIndex(index: int) -> dict:
    gpu = _gpus()[index]
    if gpu.get("lost"):
        raise NVMLError("GPU is lost")
    return gpu


def nvmlDeviceGetMemoryInfo(gpu: dict) -> SimpleNamespace:
    return SimpleNamespace(total=TOTAL_GIB * GIB, used=gpu.get("used_gib", 0.5) * GIB)


def nvmlDeviceGetComputeRunningProcesses(gpu: dict) -> list[SimpleNamespace]:
    processes = gpu.get("processes", [])
    if processes is None:
        raise NVMLError_NotSupported("Not Supported")
    return [SimpleNamespace(pid=pid, usedGpuMemory=gib * GIB) for pid, gib in processes]


def nvmlDeviceGetName(gpu: dict) -> str:
    return "NVIDIA H100 80GB HBM3"
