"""Calibration: how an engine's measured steps differ from the step times of its simulation."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from tuner.config.strict import Strict

StepSource = Literal["table", "roofline"]


class Calibration(Strict):
    """What a simulated step takes: `per_step_s` + `prefill_scale` × (all of a step with a prompt in it, but for the
    attention of its answers) + `decode_scale` × (pure decode steps, and the attention of answers).

    `engine`, `version`, `model` and `gpu` are names of what was measured. The scales hold over step times from `over`
    only. `probes` of `measured` were fitted by `rule` at `fitted`.
    """

    engine: str
    version: str
    model: str
    gpu: str
    over: StepSource
    per_step_s: float = Field(gt=0)
    prefill_scale: float = Field(gt=0)
    decode_scale: float = Field(gt=0)
    probes: int = Field(ge=0)
    measured: str
    rule: str
    fitted: datetime

    @property
    def title(self) -> str:
        """As a note says it: `calibrated on 34 probes of 2026-11-21-qwen-7b-chat`."""
        return f"calibrated on {self.probes} probes of {self.measured}"
