"""Whole studies for tests of what users see: one for each way a study can end."""

from collections.abc import Callable
from dataclasses import replace

from tests.builders import (
    a_calibration,
    a_configuration,
    a_crash,
    a_miss,
    a_plan,
    a_point,
    a_prediction,
    a_summary,
    an_outcome,
)
from tuner.config.plan import Plan
from tuner.outcome import Outcome
from tuner.summary import Comparison, Gain, Summary, TrialCounts

Ending = tuple[Summary, list[Outcome], Plan]

WINNER = a_configuration(token_budget=512, max_batch_size=128)


def deploy() -> Ending:
    """The challenger wins."""
    outcomes = [an_outcome(), a_miss(), a_crash(2, a_configuration(tp=8)), an_outcome(21, WINNER)]
    return a_summary(), outcomes, a_plan()


def deploy_without_default() -> Ending:
    """The default holds the SLO at no load."""
    outcomes = [a_miss(0), an_outcome(21, WINNER)]
    why = "the engine's default holds the SLO at no load worth having; this configuration held it on fresh seeds"
    return a_summary(default=None, gain=None, why=why, how_sure="medium"), outcomes, a_plan()


def unseen_latencies() -> Ending:
    """No percentile was observed."""
    blind = a_point(ttft_s=None, itl_s=None, tpot_s=None, e2e_s=None, ci95=None, capacity_rps_per_gpu=None)
    return a_summary(best=blind), [an_outcome(), an_outcome(21, WINNER)], a_plan()


def deploy_as_predicted() -> Ending:
    """Measured on real servers, and compared with their simulation."""
    summary, outcomes, plan = deploy()
    best = a_point(predicted=a_prediction(goodput_rps_per_gpu=7.4, attainment=0.995))
    comparison = Comparison(
        "vllm", 24, 0.11, 0.034, 0.2, 0.08, a_calibration(), kept="/home/x/.local/share/goodtune/vllm_0.32.0.json"
    )
    box = replace(plan.box, simulation=None)
    summary = replace(summary, best=best, simulation=(comparison,), simulated=False)
    return summary, outcomes, replace(plan, box=box)


def keep_default() -> Ending:
    """The default wins against a rival."""
    point = a_point(0, goodput_rps_per_gpu=5.66)
    summary = a_summary(verdict="keep-default", default=point, best=point, gain=Gain(1.004, (0.98, 1.02)))
    return summary, [an_outcome(), an_outcome(21, WINNER)], a_plan()


def one_trial() -> Ending:
    """Only the default was measured."""
    point = a_point(0, ci95=None)
    summary = a_summary(
        verdict="keep-default", default=point, best=point, gain=None, frontier=(point,), how_sure="medium",
        why="no other one held the SLO", trials=TrialCounts(1, 1, 0, 0, 0),
    )  # fmt: skip
    return summary, [an_outcome()], a_plan()


def inconclusive() -> Ending:
    """The interval includes no gain."""
    why = "it beat the default on 3 of 5 fresh seeds, but the interval of the gain includes no gain"
    gain = Gain(1.03, (0.97, 1.09))
    return a_summary(verdict="inconclusive", gain=gain, why=why, how_sure="low"), deploy()[1], a_plan()


def inconclusive_without_best() -> Ending:
    """What held the SLO did not hold it again."""
    summary = a_summary(verdict="inconclusive", best=None, gain=None, how_sure="low")
    return summary, [an_outcome()], a_plan()


def nothing() -> Ending:
    """All trials ran, none holds the SLO."""
    summary = replace(
        a_summary(trials=TrialCounts(2, 2, 0, 0, 0)), verdict="nothing-meets-slo", default=None, best=None, gain=None
    )
    return summary, [a_miss(0), a_miss(1, WINNER)], a_plan()


def all_infeasible() -> Ending:
    """No server started."""
    summary = a_summary(
        verdict="nothing-meets-slo", default=None, best=None, gain=None, frontier=(),
        why="no server could be measured; see the failures", how_sure="low", trials=TrialCounts(2, 0, 0, 2, 0),
    )  # fmt: skip
    return summary, [a_crash(0), a_crash(1, WINNER)], a_plan()


def interrupted() -> Ending:
    """Ctrl-C in the middle."""
    summary = a_summary(verdict="interrupted", gain=None, how_sure="low", why="stopped after 4 trials")
    return summary, deploy()[1], a_plan(trials=None, budget_s=7200.0)


def interrupted_at_once() -> Ending:
    """Ctrl-C before the first trial ended."""
    summary = a_summary(
        verdict="interrupted", default=None, best=None, gain=None, frontier=(), how_sure="low",
        why="stopped after 0 trials", trials=TrialCounts(0, 0, 0, 0, 0),
    )  # fmt: skip
    return summary, [], a_plan()


ENDINGS: dict[str, Callable[[], Ending]] = {
    ending.__name__: ending
    for ending in (
        deploy_as_predicted, deploy, deploy_without_default, unseen_latencies, keep_default, one_trial, inconclusive,
        inconclusive_without_best, nothing, all_infeasible, interrupted, interrupted_at_once,
    )
}  # fmt: skip
