"""The (configuration, SLO) cases that `goodput_search.py` searches: presets of the product, several servers each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from launchers.open import open_target
from tuner.cli.planning import Options, plan_from
from tuner.config.engine import KnobValue
from tuner.config.plan import Plan
from tuner.configuration import Configuration
from tuner.space import spaces_of
from tuner.target import Target


@dataclass(frozen=True)
class Case:
    """A server under an SLO: presets by name, knobs that differ from the engine's default."""

    model: str
    slo: str
    attainment: float
    knobs: Mapping[str, KnobValue] = field(default_factory=dict, hash=False)
    engine: str = "vllm"
    slo_scale: float = 1.0
    workload: str | None = None

    @property
    def name(self) -> str:
        """What a table calls it; also its key in the cache."""
        scale = f" ×{self.slo_scale:g}" if self.slo_scale != 1 else ""
        workload = f" on {self.workload}" if self.workload else ""
        knobs = " ".join(f"{name}={value}" for name, value in self.knobs.items()) or "default"
        return f"{self.model} {self.slo}{scale}{workload} {self.attainment:g} · {self.engine} {knobs}"

    @property
    def key(self) -> str:
        """The name of its file in the cache."""
        return re.sub(r"[^a-z0-9.=]+", "-", self.name)

    @property
    def gpus(self) -> int:
        """GPUs of one server."""
        return int(self.knobs.get("tp", 1))


SMALL = {"token_budget": 512, "max_batch_size": 128}
MEDIUM = {"token_budget": 1024, "max_batch_size": 256}
TP2 = {"tp": 2, "token_budget": 2048}
TP4 = {"tp": 4, "token_budget": 2048}
TP8 = {"tp": 8, "token_budget": 4096}

EDGES_99 = (
    Case("qwen-7b", "chat", 0.99, TP2),
    Case("qwen-7b", "chat", 0.99, TP4),
    Case("qwen-7b", "code-gen", 0.99, SMALL),
    Case("qwen-7b", "content-gen", 0.99),
    Case("qwen-7b", "content-gen", 0.99, SMALL),
    Case("qwen-7b", "summarization", 0.99),
    Case("qwen-7b", "mlperf-8b-server", 0.99),
    Case("qwen-7b", "mlperf-8b-server", 0.99, engine="sglang"),
    Case("llama-8b", "chat", 0.99, TP2),
    Case("llama-8b", "code-gen", 0.99, MEDIUM),
    Case("llama-8b", "mlperf-8b-server", 0.99),
    Case("llama-8b", "mlperf-8b-interactive", 0.99, SMALL),
    Case("llama-8b", "mlperf-8b-interactive", 0.99, MEDIUM),
    Case("qwen3-8b", "chat", 0.99, TP2),
    Case("qwen3-8b", "code-gen", 0.99, SMALL),
    Case("mistral-7b", "sarathi-strict", 0.99, SMALL),
    Case("mistral-7b", "sarathi-relaxed", 0.99),
    Case("llama-70b", "mlperf-70b-server", 0.99, TP4),
    Case("llama-70b", "mlperf-70b-interactive", 0.99, TP8),
)
EDGES_90 = (
    Case("qwen-7b", "chat", 0.9, SMALL),
    Case("qwen-7b", "chat", 0.9, MEDIUM),
    Case("qwen-7b", "chat", 0.9, TP2),
    Case("qwen-7b", "code", 0.9),
    Case("qwen-7b", "code", 0.9, SMALL),
    Case("qwen-7b", "code-gen", 0.9, SMALL),
    Case("qwen-7b", "summarization", 0.9),
    Case("qwen-7b", "chat", 0.9, engine="sglang"),
    Case("llama-8b", "mlperf-8b-interactive", 0.9, MEDIUM),
    Case("llama-8b", "code-gen", 0.9, MEDIUM),
    Case("llama-8b", "rag", 0.9, MEDIUM, slo_scale=2.0),
    Case("qwen3-8b", "chat", 0.9, MEDIUM),
    Case("mistral-7b", "sarathi-strict", 0.9, SMALL),
    Case("llama-70b", "mlperf-70b-interactive", 0.9, TP8),
)
PEAKS = (
    Case("qwen-7b", "chat", 0.0, MEDIUM),
    Case("qwen-7b", "code", 0.0, SMALL),
    Case("qwen-7b", "code-gen", 0.0, SMALL),
    Case("qwen-7b", "chat", 0.0, engine="sglang"),
    Case("llama-8b", "mlperf-8b-interactive", 0.0, MEDIUM),
    Case("llama-8b", "chat", 0.0, MEDIUM),
    Case("mistral-7b", "sarathi-strict", 0.0, SMALL),
)
CASES = (*EDGES_99, *EDGES_90, *PEAKS)

# Not searched: attainment falls so slowly that even the truth below is not known to 2 %.
SOFT = (
    Case("qwen-7b", "chat", 0.99, MEDIUM),
    Case("qwen-7b", "code", 0.99, SMALL),
    Case("qwen-7b", "code", 0.99, TP2),
    Case("qwen-7b", "code-gen", 0.99),
)


@cache
def plan_of(case: Case) -> Plan:
    """The plan of a study of this server's box."""
    options = Options(
        model=case.model, slo=case.slo, simulate="virtual", engines=case.engine, gpus=str(case.gpus),
        out=Path("study"), attainment=case.attainment, slo_scale=case.slo_scale, workload=case.workload,
    )  # fmt: skip
    return plan_from(options).plan


def configuration_of(case: Case) -> Configuration:
    """The engine's default with the case's knobs."""
    default = spaces_of(plan_of(case))[case.engine].default
    return Configuration(case.engine, {**default.knobs, **case.knobs})


def open_case(case: Case) -> Target:
    """A fresh simulated server."""
    with open_target(plan_of(case), configuration_of(case), tuple(range(case.gpus)), Path()) as target:
        return target
