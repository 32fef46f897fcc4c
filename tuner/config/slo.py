"""SLO: the limits one request must meet, and the share of requests that must meet them."""

from pydantic import Field, field_validator, model_validator

from tuner.config.strict import Strict


class Limits(Strict):
    """Limits of one request, seconds. A limit that is None does not exist.

    `itl_s` limits the nearest-rank P99 of the request's own chunk gaps (below 100 gaps: their maximum),
    `tpot_s` their mean. The limit on TTFT is `ttft_s + ttft_s_per_prompt_token * prompt_tokens`.
    """

    ttft_s: float | None = Field(default=None, gt=0)
    ttft_s_per_prompt_token: float = Field(default=0.0, ge=0)
    tpot_s: float | None = Field(default=None, gt=0)
    itl_s: float | None = Field(default=None, gt=0)
    e2e_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _length_aware_needs_a_base(self) -> "Limits":
        if self.ttft_s_per_prompt_token and self.ttft_s is None:
            raise ValueError("ttft_s_per_prompt_token needs ttft_s beside it")
        return self

    def present(self) -> dict[str, float]:
        """The limits that exist, by name, in the order of a request's life."""
        named = {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "itl_s": self.itl_s, "e2e_s": self.e2e_s}
        return {name: limit for name, limit in named.items() if limit is not None}


KEEPS_UP_TTFT_S = 10.0
"""The limit on TTFT of an SLO that limits neither it nor E2E: an assumption. Without one, an overloaded server whose
tokens come at a good pace would be called good at any load, and goodput would be what was offered.
"""


class Slo(Strict):
    """A named service-level objective. `attainment` is the share (0–1) of requests that must meet all limits.

    An SLO that limits only the pace of tokens gets KEEPS_UP_TTFT_S as its limit on TTFT.
    """

    name: str = ""
    title: str = ""
    source: str = "not given"
    note: str = ""
    workload: str
    attainment: float = Field(ge=0, lt=1)
    limits: Limits = Limits()
    min_throughput_rps: float | None = Field(default=None, gt=0)
    min_rate_rps_per_gpu: float = Field(default=0.5, ge=0)
    warmup_s: float = Field(default=15.0, ge=0)
    window_s: float = Field(default=120.0, gt=0)
    timeout_s: float = Field(default=120.0, gt=0)

    @field_validator("limits")
    @classmethod
    def _somebody_waits(cls, limits: Limits) -> Limits:
        paced_only = limits.present() and limits.ttft_s is None and limits.e2e_s is None
        return limits.model_copy(update={"ttft_s": KEEPS_UP_TTFT_S}) if paced_only else limits

    def scaled(self, factor: float) -> "Slo":
        """Every limit multiplied by `factor` (DistServe sweeps 0.4–1.6)."""
        limits = {name: limit * factor for name, limit in self.limits.present().items()}
        per_token = self.limits.ttft_s_per_prompt_token * factor
        return self.model_copy(update={"limits": Limits(**limits, ttft_s_per_prompt_token=per_token)})

    @property
    def deciding_requests(self) -> int:
        """Counted requests a load needs before it may decide: at least 10/(1 − attainment), never under 100."""
        return max(100, round(10 / (1 - self.attainment)))
