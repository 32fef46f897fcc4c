"""NVML on a box that the file `$FAKE_NVML` describes, anew at each question: whoever writes it plays the driver.

It is a list of GPUs, each `{"used_gib": 1, "processes": [[pid, gib]]}` or `{"lost": true}`.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace

GIB = 2**30
TOTAL_GIB = 79.6


class NVMLError(Exception):
    pass


def nvmlInit() -> None:
    if "FAKE_NVML" not in os.environ:
        raise NVMLError("Driver Not Loaded")


def nvmlShutdown() -> None:
    pass


def _gpus() -> list[dict]:
    return json.loads(Path(os.environ["FAKE_NVML"]).read_text(encoding="utf-8"))


def nvmlDeviceGetCount() -> int:
    return len(_gpus())


def nvmlDeviceGetHandleByIndex(index: int) -> dict:
    gpu = _gpus()[index]
    if gpu.get("lost"):
        raise NVMLError("GPU is lost")
    return gpu


def nvmlDeviceGetMemoryInfo(gpu: dict) -> SimpleNamespace:
    return SimpleNamespace(total=TOTAL_GIB * GIB, used=gpu.get("used_gib", 0.5) * GIB)


def nvmlDeviceGetComputeRunningProcesses(gpu: dict) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=gib * GIB) for pid, gib in gpu.get("processes", [])]


def nvmlDeviceGetName(gpu: dict) -> str:
    return "NVIDIA H100 80GB HBM3"
