"""How measurements lie, provoked on simulated servers in virtual time: what docs/measurement.md says of it holds."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from tests.builders import a_score, an_slo
from tuner.cli.planning import Options, plan_from
from tuner.conclude import conclude
from tuner.config.engine import KnobValue
from tuner.config.plan import Plan
from tuner.config.slo import Limits, Slo
from tuner.configuration import Configuration
from tuner.confirm import finalists, values_of
from tuner.curve import dispersion
from tuner.finalists import Cell, Finalist, next_cells, value_of
from tuner.finalruns import FinalistRun
from tuner.finalvalue import interval
from tuner.goodput import find_goodput
from tuner.outcome import Cost, Outcome
from tuner.probe import Prober
from tuner.requests import FloatArray
from tuner.score import Score
from tuner.summary import Session
from tuner.target import OpenLoop
from tuner.trial import TrialOrder, measured, open_for, question_of

SLO = an_slo(limits=Limits(ttft_s=0.5), attainment=0.9, warmup_s=5.0, window_s=60.0, timeout_s=30.0)
TIES = an_slo(limits=Limits(ttft_s=0.5), attainment=0.9, warmup_s=2.0, window_s=10.0, timeout_s=30.0)
BATCH = 64


@cache
def attainments(batch: int, rate_rps: float, window_s: float, traces: int = 8) -> tuple[float, ...]:
    return tuple(score.attainment for score in windows(batch, rate_rps, window_s, traces))


def planned() -> Plan:
    """One simulated H100."""
    options = Options("qwen-7b", "chat", workload="256x64", simulate="virtual", gpus="1", out=Path("study"))
    return plan_from(options).plan


def windows(batch: int, rate_rps: float, window_s: float, traces: int, slo: Slo = SLO) -> Iterator[Score]:
    """Whole windows on one server, every one with a trace of its own."""
    plan = planned()
    knobs = {"max_batch_size": batch, "token_budget": 2048, "tp": 1}
    with open_for(TrialOrder(plan, 0, Configuration("vllm", knobs), (0,))) as target:
        for trace in range(traces):
            prober = Prober(target, plan.workload, slo, seed=trace, stage="confirm")
            yield prober.measure_for(OpenLoop(rate_rps), window_s)


def test_a_short_window_overstates_what_an_overloaded_server_holds() -> None:
    short, long = (np.mean(attainments(BATCH, 80.0, window_s, traces=3)) for window_s in (3.0, 60.0))
    assert short > 0.85 and long < 0.6


def test_near_capacity_requests_share_their_fate_and_a_probe_says_so() -> None:
    """Six windows differ by far more than as many independent requests would, and the batches of one window tell."""
    scores = list(windows(BATCH, 80.0, 10.0, traces=6))
    shares = np.array([score.attainment for score in scores])
    binomial = shares.mean() * (1 - shares.mean()) / scores[0].counted
    assert shares.var(ddof=1) > 5 * binomial
    assert dispersion(scores) > 5


def test_an_interval_as_of_independent_requests_is_a_lie_and_one_from_seeds_is_not() -> None:
    """One server near its capacity, 40 windows: hardly one's own 95 % interval holds what they are on average."""
    scores = list(windows(BATCH, 80.0, 10.0, traces=40))
    shares = np.array([score.attainment for score in scores])
    counted = np.array([score.counted for score in scores])
    wrong = 1.96 * np.sqrt(shares * (1 - shares) / counted)
    assert np.mean(np.abs(shares - shares.mean()) <= wrong) < 0.1
    from_seeds = [interval(five) for five in shares.reshape(-1, 5)]
    assert np.mean([low <= shares.mean() <= high for low, high in from_seeds]) > 0.7


def test_a_finalist_s_interval_holds_the_truth_though_all_requests_of_a_seed_share_their_luck() -> None:
    """The odds of a bad request grow with the 8th power of the load; a seed's luck multiplies them by about 1.6."""
    wanted, power, requests = 0.9, 8.0, 1000
    luck = np.random.default_rng(1).normal(0.0, 0.5, 100_000)

    def attainment(level: float, seed_luck: FloatArray | float) -> FloatArray:
        return np.asarray(expit(np.log(wanted / (1 - wanted)) - power * np.log(level / 10.0) - seed_luck))

    true_edge = float(brentq(lambda level: attainment(level, luck).mean() - wanted, 5.0, 20.0))
    held, held_naively = [], []
    for replication in range(200):
        rng = np.random.default_rng(replication)
        finalist = Finalist(0, float(f"{10 * np.exp(rng.normal(0, 0.05)):.3g}"), 1)
        seeds, runs = rng.normal(0.0, 0.5, 5), list[FinalistRun]()
        while cells := next_cells(finalist, runs, len(seeds), wanted):
            for cell in cells:
                good = rng.binomial(requests, attainment(cell.level, seeds[cell.replicate])) / requests
                runs.append(FinalistRun(0, cell.replicate, cell.level, a_score(cell.level, good, counted=requests)))
        low, high = value_of(finalist, runs, wanted).ci95 or (0.0, 0.0)
        held.append(low <= wanted * true_edge <= high)
        share = np.mean([run.score.attainment for run in runs if run.rate == finalist.level])
        half = 1.96 * np.sqrt(share * (1 - share) / (requests * len(seeds)))
        held_naively.append(abs(share - attainment(finalist.level, luck).mean()) <= half)
    assert np.mean(held_naively) < 0.4
    assert 0.9 <= np.mean(held) <= 0.99


def test_the_best_of_many_equal_servers_claims_too_much_and_fresh_seeds_take_it_back() -> None:
    """Twelve trials are one server, each with the luck of its own traces; the luckiest meets the default again."""
    plan = replace(planned(), slo=TIES)
    knobs = {"max_batch_size": 16, "token_budget": 2048, "tp": 1}
    with open_for(TrialOrder(plan, 0, Configuration("vllm", knobs), (0,))) as target:
        outcomes = {
            trial: searched(Prober(target, plan.workload, TIES, seed=trial), trial, knobs) for trial in range(12)
        }

        def fresh(cell: Cell, first_seed: int) -> FinalistRun:
            prober = Prober(target, plan.workload, TIES, seed=first_seed + cell.replicate, stage="confirm")
            window = prober.measure_for(OpenLoop(cell.level), TIES.window_s)
            return FinalistRun(cell.trial, cell.replicate, cell.level, window)

        def confirmed(seeds: int, first_seed: int) -> list[FinalistRun]:
            runs: list[FinalistRun] = []
            for one in finalists(plan, outcomes):
                while cells := next_cells(one, runs, seeds, TIES.attainment):
                    runs += [fresh(cell, first_seed) for cell in cells]
            return runs

        truth = np.mean([value.mean for value in values_of(plan, outcomes, confirmed(30, first_seed=2000)).values()])
        told = conclude(plan, outcomes, confirmed(5, first_seed=1000), [Session()], interrupted=False)
    claims = [outcome.value_rps_per_gpu for outcome in outcomes.values()]
    assert max(claims) > 1.08 * truth and max(claims) > 1.05 * claims[0]
    assert told.verdict != "deploy"
    winner = told.best if told.best and told.best.trial else told.default
    assert winner and winner.ci95 and winner.ci95[0] <= truth <= winner.ci95[1]
    assert winner.goodput_rps_per_gpu < max(claims) / 1.04


def searched(prober: Prober, trial: int, knobs: dict[str, KnobValue]) -> Outcome:
    """A trial's search of its server's load; trial 0 is the default."""
    prober.idle()
    question = question_of(prober.slo, prober.workload, 1, prober.idle_e2e_s)
    answer = find_goodput(question, prober.measure)
    blank = Outcome(trial, Configuration("vllm", knobs, is_default=trial == 0), (), "measured")
    return measured(blank, answer, Cost(), prober.slo.limits)


def test_the_same_traces_show_a_difference_that_other_traces_would_hide() -> None:
    better, worse = (np.array(attainments(batch, 84.0, 10.0, traces=6)) for batch in (BATCH, BATCH - 4))
    assert np.var(better - worse) < np.var(better - np.roll(worse, 1)) / 2
