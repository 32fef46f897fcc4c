"""Workload: the shape of the requests and how they arrive, before a seed makes a list of them."""

from typing import Literal

from pydantic import Field, model_validator

from tuner.config.strict import Strict


class Lengths(Strict):
    """Token counts: lognormal through p50 and p90, lognormal of this mean and sd, or fixed; clipped to min and cap."""

    p50: float | None = Field(default=None, gt=0)
    p90: float | None = Field(default=None, gt=0)
    mean: float | None = Field(default=None, gt=0)
    sd: float | None = Field(default=None, ge=0)
    fixed: int | None = Field(default=None, gt=0)
    min: int = Field(default=1, ge=1)
    cap: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _exactly_one_shape(self) -> "Lengths":
        shapes = [
            self.p50 is not None and self.p90 is not None,
            self.mean is not None and self.sd is not None,
            self.fixed is not None,
        ]
        if sum(shapes) != 1:
            raise ValueError("give either p50 and p90, or mean and sd, or fixed")
        if self.p50 and self.p90 and self.p90 < self.p50:
            raise ValueError(f"p90 ({self.p90:g}) is below p50 ({self.p50:g})")
        return self


class Arrivals(Strict):
    """How requests come. `gamma` has coefficient of variation `cv`; `closed` is users who wait for their answer."""

    kind: Literal["poisson", "gamma", "closed", "at_once", "trace"] = "poisson"
    cv: float = Field(default=1.0, gt=0)


class SharedPrefix(Strict):
    """Tokens that several requests share: a system prompt, and documents drawn by a Zipf law.

    The system prompt comes on top of the prompt lengths; documents are part of them: as many whole ones as fit, at
    most `documents_per_request`.
    """

    system_tokens: int = Field(default=0, ge=0)
    documents: int = Field(default=0, ge=0)
    document_tokens: int = Field(default=0, ge=0)
    documents_per_request: int = Field(default=0, ge=0)
    zipf: float = Field(default=1.0, gt=0)


class Turns(Strict):
    """Sessions of up to `per_session` turns: each adds tokens to a growing prefix after a pause (lognormal, seconds).

    The first turn's tokens are the workload's `prompt`.
    """

    per_session: int = Field(ge=1)
    added_tokens: Lengths
    think_s_mean: float = Field(default=0.0, ge=0)
    think_s_sd: float = Field(default=0.0, ge=0)


class Workload(Strict):
    """A named workload. `acceptance` is the simulated chance that a speculated token is accepted (0–1).

    `prompt` counts tokens beyond `shared.system_tokens`. A session ends before a turn whose prompt and answer would
    not fit `max_model_len`. `trace` is a file of recorded requests, which takes the place of lengths.
    """

    name: str = ""
    title: str
    source: str
    prompt: Lengths | None = None
    output: Lengths | None = None
    arrivals: Arrivals = Arrivals()
    shared: SharedPrefix = SharedPrefix()
    turns: Turns | None = None
    trace: str | None = None
    acceptance: float = Field(default=0.6, ge=0, le=1)
    max_model_len: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _lengths_or_trace(self) -> "Workload":
        if self.trace is None and (self.prompt is None or self.output is None):
            raise ValueError("give prompt and output lengths, or a trace")
        return self
