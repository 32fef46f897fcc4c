"""What the page is made from: a study's values, and who plays the leading parts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tuner.config.plan import Plan
from tuner.finalvalue import Value
from tuner.outcome import Outcome
from tuner.summary import Summary
from tuner.wording.comparison import deployed
from tuner.wording.naming import trial_name

Role = Literal["deploy", "default", "other", "failed"]


@dataclass(frozen=True)
class Cast:
    """Which trials play the leading parts; None where nobody does. `word`: what the best is called."""

    best: int | None
    default: int | None
    word: str

    def role(self, trial: int) -> Role:
        """The part of `trial`: a default that is deployed counts as the default."""
        if trial == self.default:
            return "default"
        return "deploy" if trial == self.best else "other"

    def name(self, trial: int) -> str:
        """`t21, deploy`."""
        match self.role(trial):
            case "deploy":
                return f"{trial_name(trial)}, {self.word}"
            case "default":
                return f"{trial_name(trial)}, default"
        return trial_name(trial)

    @property
    def leads(self) -> frozenset[int]:
        """The trials in leading parts."""
        return frozenset(trial for trial in (self.best, self.default) if trial is not None)


@dataclass(frozen=True)
class Study:
    """A finished (or interrupted) study. `values`: what the finalists' fresh runs said, by trial; may be empty."""

    summary: Summary
    outcomes: Sequence[Outcome]
    plan: Plan
    values: Mapping[int, Value]

    @property
    def cast(self) -> Cast:
        """Who is deployed (or best so far) and who is the default, whether or not it holds the SLO."""
        point = self.summary.best or deployed(self.summary)
        defaults = [outcome.trial for outcome in self.outcomes if outcome.configuration.is_default]
        default = self.summary.default.trial if self.summary.default else next(iter(defaults), None)
        word = "deploy" if self.summary.verdict == "deploy" else "best"
        return Cast(point.trial if point else None, default, word)
