"""Workload: the shape of the requests and how they arrive, before a seed makes a list of them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from tuner.config.strict import Strict
from tuner.errors import ConfigError

ONLY_TEXTS_END = "a model ends its answers naturally to real text only, not to drawn token ids; write planned"


class Lengths(Strict):
    """Token counts, clipped to `min` and `cap`: lognormal through `p50` and `p90`, lognormal of that `mean` and
    standard deviation `sd`, or all the same (`fixed`).
    """

    p50: float | None = Field(default=None, gt=0)
    p90: float | None = Field(default=None, gt=0)
    mean: float | None = Field(default=None, gt=0)
    sd: float | None = Field(default=None, ge=0)
    fixed: int | None = Field(default=None, gt=0)
    min: int = Field(default=1, ge=1)
    cap: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _exactly_one_shape(self) -> "Lengths":
        given = {name for name in ("p50", "p90", "mean", "sd", "fixed") if getattr(self, name) is not None}
        if given not in ({"p50", "p90"}, {"mean", "sd"}, {"fixed"}):
            raise ValueError("give either p50 and p90, or mean and sd, or fixed")
        if self.p50 and self.p90 and self.p90 < self.p50:
            raise ValueError(f"p90 ({self.p90:g}) is below p50 ({self.p50:g})")
        if self.cap is not None and self.cap < max(self.min, self.fixed or 1):
            raise ValueError(f"cap ({self.cap}) is below {'fixed' if self.fixed else 'min'}")
        return self


class Ramp(Strict):
    """One more user every `every_s` seconds, until there are `users`."""

    every_s: float = Field(default=10.0, gt=0)
    users: int = Field(default=60, ge=1)


class Arrivals(Strict):
    """How requests come. `gamma` has coefficient of variation `cv`; `closed` is users who wait for their answer;
    `trace` takes the times of the workload's trace.

    How many users is searched, by probes of a fixed number or by a `ramp`. A trace is replayed at every speed that
    the search asks for, or with `speed` only at that multiple of its own, by each server.
    """

    kind: Literal["poisson", "gamma", "closed", "at_once", "trace"] = "poisson"
    cv: float | None = Field(default=None, gt=0)
    ramp: Ramp | None = None
    speed: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _gamma_has_a_cv(self) -> "Arrivals":
        if (self.kind == "gamma") != (self.cv is not None):
            raise ValueError("gamma arrivals need cv, and only they have one")
        if self.ramp is not None and self.kind != "closed":
            raise ValueError("only closed arrivals have a ramp: it is one of users")
        if self.speed is not None and self.kind != "trace":
            raise ValueError("only arrivals of kind trace have a speed")
        return self


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

    @model_validator(mode="after")
    def _documents_are_complete(self) -> "SharedPrefix":
        sizes = (self.documents, self.document_tokens, self.documents_per_request)
        if any(sizes) and not all(sizes):
            raise ValueError("documents, document_tokens and documents_per_request go together")
        return self


class Turns(Strict):
    """Sessions of up to `per_session` turns: each adds tokens to a growing prefix after a pause (lognormal, seconds).

    The first turn's tokens are the workload's `prompt`.
    """

    per_session: int = Field(ge=1)
    added_tokens: Lengths
    think_s_mean: float = Field(default=0.0, ge=0)
    think_s_sd: float = Field(default=0.0, ge=0)


def _chance_or_chances(value: object) -> object:
    given = value if isinstance(value, list | tuple) else [value]
    if not given or not all(_is_chance(one) for one in given):
        raise ValueError(f"give a chance from 0 to 1, or a list of one for each guess, found {value!r}")
    return value


def _is_chance(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


Chances = Annotated[float | tuple[float, ...], BeforeValidator(_chance_or_chances)]
"""One chance for every guess of a step, or one for each in turn, of which the last holds for all behind it."""


class Acceptance(Strict):
    """The simulated chance (0–1) that a guessed token is accepted if the one before it was, by who guessed it.

    A list says it for the first guess of a step, the second, and so on. Engines report the shares of all first,
    second, ... guesses that were accepted: divide each of those by the one before it.

    Assumptions, not measurements: n-gram lookup finds little to copy in chat and more where answers repeat their
    prompt; a trained draft model does well on both. They are printed with a verdict that rests on them.
    """

    ngram: Chances = 0.25
    draft: Chances = 0.65

    def of(self, speculation: str) -> Chances:
        """The chances for a choice of the knob `speculation`, such as `ngram-3`."""
        return self.ngram if speculation.startswith("ngram") else self.draft


class Workload(Strict):
    """A named workload. `acceptance` counts in simulations only.

    `prompt` counts tokens beyond `shared.system_tokens`. No request has more than `max_model_len` tokens, prompt and
    answer together: prompts are clipped, sessions end sooner, recorded requests that do not fit are left out.
    `trace` is a file of recorded requests, which takes the place of lengths. Found in it are `real_text`, that it
    holds the prompts themselves, and `trace_rate_rps`, how many requests a second it recorded.

    `answer_ends`: `planned`, each answer has exactly the tokens that the workload gives it; `natural`, it ends where
    the model ends it, and has at most so many. None: natural where prompts are real text, else planned.
    """

    name: str = ""
    title: str
    source: str = "not given"
    prompt: Lengths | None = None
    output: Lengths | None = None
    arrivals: Arrivals = Arrivals()
    shared: SharedPrefix = SharedPrefix()
    turns: Turns | None = None
    trace: str | None = None
    real_text: bool = False
    trace_rate_rps: float | None = None
    answer_ends: Literal["planned", "natural"] | None = None
    acceptance: Acceptance = Acceptance()
    max_model_len: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _lengths_or_trace(self) -> "Workload":
        if self.trace is None and (self.prompt is None or self.output is None):
            raise ValueError("give prompt and output lengths, or a trace")
        if self.trace is not None and (self.prompt or self.output or self.turns):
            raise ValueError("a trace has its own lengths and turns: leave out prompt, output and turns")
        if self.trace is None and self.arrivals.kind == "trace":
            raise ValueError("arrivals of kind trace need a trace")
        if self.trace is None and self.answer_ends == "natural":
            raise ValueError(f"answer_ends: {ONLY_TEXTS_END}")
        return self

    @property
    def ends_naturally(self) -> bool:
        """Whether the model ends its answers."""
        return self.real_text if self.answer_ends is None else self.answer_ends == "natural"

    def fitted(self, max_context: int) -> "Workload":
        """This workload for a model that takes `max_context` tokens. Raises ConfigError if nothing of it fits."""
        least = self.shared.system_tokens + sum(
            lengths.fixed or lengths.min for lengths in (self.prompt, self.output) if lengths is not None
        )
        if least > max_context:
            raise ConfigError(
                f"workload '{self.name}': a request has at least {least:,} tokens, the model takes {max_context:,}"
            )
        return self.model_copy(update={"max_model_len": min(self.max_model_len or max_context, max_context)})
