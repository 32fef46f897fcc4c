"""Verdict: what a study concludes from the finalists' fresh runs, by printed rules. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tuner.finalvalue import ENOUGH_SEEDS, LEAST_SEEDS, Value, common_seeds, paired_ratio
from tuner.outcome import Outcome
from tuner.summary import Gain, HowSure, VerdictWord
from tuner.target import ClosedLoop

# A gain below this is not worth a change of configuration.
WORTHWHILE_RATIO = 1.02
ENOUGH_TRIALS = 10
# A challenger worth so many times the load at which a default did best is better whether that holds there or not.
FAR_BETTER = 2.0


@dataclass(frozen=True)
class Verdict:
    """`best` is the trial to deploy, None where there is none. `why` is one sentence."""

    word: VerdictWord
    why: str
    how_sure: HowSure
    best: int | None
    gain: Gain | None


def decide(outcomes: Sequence[Outcome], default: Value | None, challenger: Value | None) -> Verdict:
    """Default against challenger; None where a search found no load that holds the SLO (or nobody was measured)."""
    default_holds = default is not None and default.holds
    challenger_holds = challenger is not None and challenger.holds
    if default_holds and challenger_holds:
        assert default and challenger
        return _compared(default, challenger)
    if challenger_holds:
        assert challenger
        return _unopposed(outcomes, default, challenger)
    if default_holds:
        assert default
        refuted = challenger is not None and len(challenger.per_seed) >= ENOUGH_SEEDS
        sure: HowSure = "medium" if refuted else "low"
        return Verdict("keep-default", _without_rival(outcomes, challenger), sure, default.trial, None)
    if default or challenger:
        why = "what held the SLO during the search did not hold it again on fresh seeds"
        return Verdict("inconclusive", why, "low", None, None)
    return _nothing(outcomes)


def _compared(default: Value, challenger: Value) -> Verdict:
    common = len(common_seeds(challenger, default))
    if common < LEAST_SEEDS:
        why = f"both held the SLO, but only {common} of the fresh seeds saw both; a gain takes {LEAST_SEEDS} at least"
        return Verdict("inconclusive", why, "low", challenger.trial, None)
    ratio, (low, high), per_seed = paired_ratio(challenger, default)
    gain = Gain(ratio, (low, high))
    seeds = f"{int((per_seed > 1).sum())} of {len(per_seed)} fresh seeds"
    if high < WORTHWHILE_RATIO:
        why = f"the best challenger's gain is below {WORTHWHILE_RATIO - 1:.0%}, too little to leave the default for"
        sure: HowSure = "high" if len(per_seed) >= ENOUGH_SEEDS else "medium"
        return Verdict("keep-default", why, sure, default.trial, gain)
    if low > 1:
        clear = low > WORTHWHILE_RATIO and len(per_seed) >= ENOUGH_SEEDS and bool((per_seed > 1).all())
        why = f"it beat the default on {seeds}, and the interval of the gain excludes no gain"
        return Verdict("deploy", why, "high" if clear else "medium", challenger.trial, gain)
    why = f"it beat the default on {seeds}, but the interval of the gain includes no gain"
    return Verdict("inconclusive", why, "low", challenger.trial if ratio >= 1 else default.trial, gain)


def _unopposed(outcomes: Sequence[Outcome], default: Value | None, challenger: Value) -> Verdict:
    """No default to compare with: because it holds the SLO nowhere, does not start, or was not measured.

    That it holds nowhere is sure only where fresh seeds (`default`) have said so too.
    """
    ended = {outcome.state for outcome in outcomes if outcome.configuration.is_default}
    sure = _sure(challenger)
    if default is not None and default.may_hold:
        load, most_rps = _best_load(outcomes, default)
        doubt = f"at {load}, where it did best, fresh seeds cannot tell whether the default holds the SLO"
        why = f"{doubt}; this configuration serves {challenger.mean:.3g} req/s per GPU inside it"
        is_far = challenger.ci95 is not None and challenger.ci95[0] > FAR_BETTER * most_rps
        sure = sure if is_far else "medium"
    elif default is not None:
        why = "the default missed the SLO on fresh seeds even where it did best, and this configuration held it"
    elif "infeasible" in ended and len(ended) > 1:
        why = "no engine's default ran and held the SLO when it was searched; this one held it on fresh seeds"
        sure = "medium"
    elif "measured" in ended or "pruned" in ended:
        why = "the default held the SLO at no load when it was searched; this configuration held it on fresh seeds"
        sure = "medium"
    elif "infeasible" in ended:
        why = "the engine's default does not run here; this configuration held the SLO on fresh seeds"
    else:
        why = "the engine's default could not be measured, so there is nothing to compare with"
        return Verdict("inconclusive", why, "low", challenger.trial, None)
    return Verdict("deploy", why, sure, challenger.trial, None)


def _best_load(outcomes: Sequence[Outcome], default: Value) -> tuple[str, float]:
    """The load at which a default may hold the SLO, in words and in requests/s per GPU; inf where users make it."""
    searched = next(outcome for outcome in outcomes if outcome.trial == default.trial)
    per_gpu = default.level / searched.configuration.gpus
    if searched.best and isinstance(searched.best.load, ClosedLoop):
        return f"{per_gpu:.3g} users per GPU", math.inf
    return f"{per_gpu:.3g} req/s per GPU", per_gpu


def _without_rival(outcomes: Sequence[Outcome], challenger: Value | None) -> str:
    if challenger:
        return "no other configuration held the SLO again on fresh seeds"
    stopped = sum(outcome.state == "pruned" for outcome in outcomes)
    if stopped:
        return f"{stopped} others could not beat the default and were stopped early"
    return "no other configuration held the SLO"


def _sure(value: Value) -> HowSure:
    """High where the seeds agree about the value: enough of them, and their interval is clear of half the mean."""
    clear = value.ci95 is not None and value.ci95[0] > value.mean / 2
    return "high" if clear and len(value.per_seed) >= ENOUGH_SEEDS else "medium"


def _nothing(outcomes: Sequence[Outcome]) -> Verdict:
    measured = [outcome for outcome in outcomes if outcome.best is not None]
    if not measured:
        return Verdict("nothing-meets-slo", "no server could be measured; see the failures", "low", None, None)
    closest = max(measured, key=lambda outcome: outcome.best.attainment if outcome.best else 0.0)
    assert closest.best
    missed = {name: count for name, count in closest.best.missed.items() if count}
    breaks = max(missed, key=lambda name: missed[name]) if missed else "attainment"
    why = (
        f"no load worth having holds the SLO; closest is t{closest.trial} with {closest.best.attainment:.1%} "
        f"of requests inside it, and {breaks.removesuffix('_s').upper()} breaks first"
    )
    return Verdict("nothing-meets-slo", why, "high" if len(measured) >= ENOUGH_TRIALS else "medium", None, None)
