"""Builders of values for tests: each gives a plausible whole, and takes what the test is about."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.config.calibration import Calibration
from tuner.config.engine import EngineSpec, Knob, KnobValue
from tuner.config.gpu import Gpu
from tuner.config.model import Architecture, Model
from tuner.config.plan import Box, Plan
from tuner.config.slo import Limits, Slo
from tuner.config.workload import Lengths, Workload
from tuner.configuration import Configuration
from tuner.errors import FailureKind
from tuner.latencies import Percentiles
from tuner.outcome import Cost, Failure, Outcome
from tuner.score import Score
from tuner.summary import Gain, Point, Predicted, StudyCost, Summary, TrialCounts
from tuner.target import OpenLoop

DEFAULT_KNOBS: Mapping[str, KnobValue] = {
    "max_batch_size": 1024,
    "token_budget": 8192,
    "tp": 1,
    "kv_cache_dtype": "auto",
}


def an_engine(**overrides: Any) -> EngineSpec:
    """vLLM with four knobs."""
    why = "A sentence that is long enough to count as a reason."
    knobs = {
        "max_batch_size": Knob(why=why, flag="--max-num-seqs", range=(8, 1024), scale="log2", default=1024),
        "token_budget": Knob(why=why, flag="--max-num-batched-tokens", range=(128, 8192), scale="log2", default=8192),
        "tp": Knob(why=why, flag="--tensor-parallel-size", range=(1, 8), scale="log2", default="smallest-that-fits"),
        "kv_cache_dtype": Knob(why=why, choices={"auto": [], "fp8": []}, default="auto", changes_answers=True),
    }
    values = {"name": "vllm", "title": "vLLM", "source": "test", "tuned_versions": "0.24–0.33", "knobs": knobs}
    return EngineSpec(**values | overrides)


def a_gpu(**overrides: Any) -> Gpu:
    """An H100 at $2.50 an hour."""
    values = {
        "name": "h100", "title": "H100", "source": "test", "memory_gib": 79.6, "bandwidth": 3.35e12,
        "bf16_flops": 9.9e14, "dollars_per_hour": 2.5,
    }  # fmt: skip
    return Gpu(**values | overrides)


def a_calibration(**overrides: Any) -> Calibration:
    """2 ms a step, kernels as they are, over tables."""
    values = {
        "engine": "vllm", "version": "0.32.0", "model": "qwen-7b", "gpu": "h100", "over": "table",
        "per_step_s": 0.002, "prefill_scale": 1.0, "decode_scale": 1.0, "probes": 34, "measured": "a-study",
        "rule": "a rule", "fitted": "2026-11-21T12:00:00Z",
    }  # fmt: skip
    return Calibration.model_validate(values | overrides)


def an_slo(**overrides: Any) -> Slo:
    """The chat SLO."""
    values = {
        "name": "chat", "title": "chat", "source": "test", "workload": "chat", "attainment": 0.99,
        "limits": Limits(ttft_s=0.2, itl_s=0.05),
    }  # fmt: skip
    return Slo(**values | overrides)


def a_workload(**overrides: Any) -> Workload:
    """Fixed lengths."""
    values = {
        "name": "chat", "title": "chat", "source": "test", "prompt": Lengths(fixed=1024),
        "output": Lengths(fixed=128),
    }  # fmt: skip
    return Workload(**values | overrides)


def a_model(**overrides: Any) -> Model:
    """Qwen2.5-7B."""
    sizes = Architecture(
        layers=28,
        hidden=3584,
        heads=28,
        kv_heads=4,
        head_dim=128,
        intermediate=18944,
        vocab=152064,
        max_context=32768,
    )
    values = {"name": "qwen-7b", "title": "Qwen2.5 7B", "path": "Qwen/Qwen2.5-7B-Instruct", "architecture": sizes}
    return Model(**values | overrides)


def a_plan(**overrides: Any) -> Plan:
    """A virtual study of 40 trials on 8 × H100."""
    values = {
        "model": a_model(), "slo": an_slo(), "workload": a_workload(), "engines": (an_engine(),),
        "box": Box(a_gpu(), tuple(range(8)), "virtual"),
        "out": Path("results/qwen-7b-chat"), "trials": 40,
    }  # fmt: skip
    return Plan(**values | overrides)


def a_configuration(engine: str = "vllm", is_default: bool = False, **knobs: KnobValue) -> Configuration:
    """The default's knobs with some of them turned."""
    return Configuration(engine, {**DEFAULT_KNOBS, **knobs}, is_default)


def percentiles(p50: float, p90: float, p99: float) -> Percentiles:
    """Three numbers in a row."""
    return Percentiles(p50, p90, p99)


def a_score(rate_rps: float = 7.0, attainment: float = 0.993, **overrides: Any) -> Score:
    """A probe of 1000 requests at `rate_rps`; latencies rise with the rate."""
    slow = 1 + rate_rps / 20
    good = round(1000 * attainment)
    values = {
        "load": OpenLoop(rate_rps), "counted": 1000, "good": good, "attainment": good / 1000,
        "goodput_rps": rate_rps * attainment, "request_rps": rate_rps, "throughput_tok_s": 128 * rate_rps,
        "tok_s_per_user": 100 / slow, "ttft_s": percentiles(0.06 * slow, 0.11 * slow, 0.14 * slow),
        "itl_s": percentiles(0.010 * slow, 0.015 * slow, 0.030 * slow),
        "tpot_s": percentiles(0.010 * slow, 0.013 * slow, 0.020 * slow), "e2e_s": percentiles(1.4, 2.2, 3.3),
        "normalized_s": percentiles(0.012, 0.014, 0.02), "missed": {"failed": 0, "ttft_s": 1000 - good, "itl_s": 0},
        "batch_attainment": (attainment,) * 10,
    }  # fmt: skip
    return Score(**values | overrides)


def an_outcome(trial: int = 0, configuration: Configuration | None = None, **overrides: Any) -> Outcome:
    """A measured trial of three probes, the middle one its best."""
    chosen = configuration or a_configuration(is_default=trial == 0)
    gpus = chosen.gpus
    best = a_score(7.0 * gpus)
    values = {
        "trial": trial, "configuration": chosen, "command": ("vllm", "serve", "Qwen/Qwen2.5-7B-Instruct"),
        "state": "measured", "probes": (a_score(3.5 * gpus, 1.0), best, a_score(9.0 * gpus, 0.61)),
        "value_rps_per_gpu": best.goodput_rps / gpus, "best": best, "cost": Cost(58.0, 400.0),
    }  # fmt: skip
    return Outcome(**values | overrides)


def a_miss(trial: int = 1, configuration: Configuration | None = None, **overrides: Any) -> Outcome:
    """A trial that ran and held the SLO at no load."""
    near = a_score(1.0, 0.62)
    values = {"probes": (near, a_score(4.0, 0.1)), "best": near, "value_rps_per_gpu": 0.0, "needed_scale": 1.7}
    return an_outcome(trial, configuration, **values | overrides)


def a_crash(trial: int = 2, configuration: Configuration | None = None, **overrides: Any) -> Outcome:
    """A trial whose server ran out of memory at start."""
    failure = Failure(FailureKind.OUT_OF_MEMORY, "server exited with code 1", "torch.OutOfMemoryError", "server.log")
    values = {"state": "infeasible", "probes": (), "best": None, "value_rps_per_gpu": 0.0, "failure": failure}
    return an_outcome(trial, configuration, **values | overrides)


def a_point(trial: int = 21, load: Mapping[str, float] | None = None, **overrides: Any) -> Point:
    """A confirmed configuration at its best load."""
    knobs = {**DEFAULT_KNOBS, "token_budget": 512, "max_batch_size": 128} if trial else DEFAULT_KNOBS
    command = ("vllm", "serve", "Qwen/Qwen2.5-7B-Instruct", "--served-model-name", "qwen-7b")
    turned = ("--max-num-batched-tokens", "512", "--max-num-seqs", "128") if trial else ()
    values = {
        "trial": trial, "engine": "vllm", "configuration": knobs, "command": command + turned, "gpus": 1,
        "load": load or {"rate_rps": 7.3}, "goodput_rps_per_gpu": 7.22, "ci95": (7.02, 7.42), "attainment": 0.993,
        "throughput_tok_s_per_gpu": 934.0, "tok_s_per_user": 73.5, "ttft_s": percentiles(0.08, 0.15, 0.19),
        "itl_s": percentiles(0.013, 0.02, 0.041), "tpot_s": percentiles(0.0136, 0.018, 0.027),
        "e2e_s": percentiles(1.8, 2.9, 4.1), "capacity_rps_per_gpu": 7.9,
    }  # fmt: skip
    return Point(**values | overrides)


def a_prediction(**overrides: Any) -> Predicted:
    """What the simulation says of `a_point`."""
    values = {
        "goodput_rps_per_gpu": 7.4, "attainment": 0.995, "throughput_tok_s_per_gpu": 950.0, "tok_s_per_user": 75.0,
        "ttft_s": percentiles(0.07, 0.14, 0.18), "itl_s": None, "tpot_s": percentiles(0.013, 0.017, 0.026),
        "e2e_s": None, "by": "table x, calibrated on 34 probes of a-study",
    }  # fmt: skip
    return Predicted(**values | overrides)


def a_summary(**overrides: Any) -> Summary:
    """A study that found something to deploy."""
    default = a_point(0, goodput_rps_per_gpu=5.66, ci95=(5.5, 5.82), load={"rate_rps": 5.7},
                      throughput_tok_s_per_gpu=730.0, tok_s_per_user=81.0)  # fmt: skip
    best = a_point()
    frontier = tuple(
        a_point(trial, throughput_tok_s_per_gpu=tok_s, tok_s_per_user=user, ci95=None)
        for trial, tok_s, user in [(9, 1400.0, 31.0), (21, 1210.0, 44.0), (21, 934.0, 73.5), (4, 520.0, 95.0)]
    )
    values = {
        "study": "qwen-7b-chat", "dir": "results/qwen-7b-chat", "model": "qwen-7b", "engines": ("vllm",),
        "slo": {"name": "chat"}, "workload": "chat", "seed": 0, "simulated": True,
        "trials": TrialCounts(40, 30, 6, 3, 1), "default": default, "best": best, "gain": Gain(1.276, (1.23, 1.32)),
        "verdict": "deploy", "why": "it beat the default in 5 of 5 fresh interleaved pairs", "how_sure": "high",
        "frontier": frontier, "cost": StudyCost(42.0, 19400.0, 3100.0, 16300.0),
    }  # fmt: skip
    return Summary(**values | overrides)
