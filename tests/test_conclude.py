"""Conclude: what the summary says of what was measured."""

import pytest

from tests.builders import a_configuration, a_crash, a_miss, a_plan, a_score, a_workload, an_outcome, an_slo
from tuner.conclude import conclude, frontier
from tuner.config.workload import Arrivals
from tuner.confirm import finalists
from tuner.finalruns import FinalistRun
from tuner.fluidity import Fluidity
from tuner.goodput import level_of
from tuner.outcome import Outcome
from tuner.summary import Session, Summary
from tuner.target import ClosedLoop

DEFAULT = an_outcome(0, value_rps_per_gpu=6.0)
CHALLENGER = an_outcome(3, a_configuration(token_budget=512), value_rps_per_gpu=7.5)


def runs(trial: int, edge_rps: float) -> list[FinalistRun]:
    """Five seeds at a level that holds and at one that fails; the edge lies half-way."""
    return [
        FinalistRun(trial, seed, rate, a_score(rate, attainment, goodput_rps=rate * attainment), 10.0, 20.0)
        for seed in range(5)
        for rate, attainment in ((edge_rps / 1.02, 0.995), (edge_rps * 1.02, 0.985))
    ]


def concluded(*outcomes: Outcome, measured: list[FinalistRun] | None = None, interrupted: bool = False) -> Summary:
    by_trial = {outcome.trial: outcome for outcome in outcomes}
    return conclude(a_plan(), by_trial, measured or [], [Session(1.0)], interrupted=interrupted)


def test_a_finalist_is_stated_at_the_edge_from_its_fresh_runs() -> None:
    summary = concluded(DEFAULT, CHALLENGER, measured=runs(0, 6.0) + runs(3, 8.0))
    assert summary.verdict == "deploy" and summary.best and summary.default and summary.gain
    assert (summary.best.trial, summary.best.load) == (3, {"rate_rps": pytest.approx(8.0, rel=0.01)})
    assert summary.best.goodput_rps_per_gpu == pytest.approx(7.92, rel=0.01)
    assert round(summary.gain.ratio, 3) == 1.333
    assert summary.best.goodput_rps_per_gpu <= summary.best.load["rate_rps"] / summary.best.gpus


def test_a_finalist_that_could_not_be_measured_again_leaves_it_open() -> None:
    summary = concluded(DEFAULT, CHALLENGER, measured=runs(0, 6.0))
    assert (summary.verdict, summary.how_sure) == ("inconclusive", "low")
    assert "t3 could not be followed to the edge" in summary.why


@pytest.mark.parametrize(
    "level", [pytest.param(0.7, id="both levels pass"), pytest.param(1.3, id="both levels miss")]
)
def test_a_finalist_whose_edge_was_not_reached_leaves_it_open(level: float) -> None:
    """As when the budget is spent, or the box gives up, in the middle of the confirmation."""
    attainment = 0.999 if level < 1 else 0.9
    short = [
        FinalistRun(3, seed, 8 * level * step, a_score(8 * level * step, attainment))
        for seed in range(5)
        for step in (1, 1.05)
    ]
    summary = concluded(DEFAULT, CHALLENGER, measured=runs(0, 6.0) + short)
    assert (summary.verdict, summary.how_sure, summary.gain) == ("inconclusive", "low", None)


def test_a_finalist_whose_edge_was_not_reached_is_stated_by_what_fresh_seeds_saw_of_it() -> None:
    """Its search promised 7.5 req/s at 7; fresh windows held the SLO at 6 and 6.3."""
    short = [FinalistRun(3, seed, rate, a_score(rate, 0.999)) for seed in range(5) for rate in (6.0, 6.3)]
    summary = concluded(DEFAULT, CHALLENGER, measured=runs(0, 6.0) + short)
    assert (summary.verdict, summary.how_sure, summary.gain) == ("inconclusive", "low", None)
    assert summary.best and summary.best.load == {"rate_rps": 6.3} and summary.best.ci95 is None
    assert summary.best.goodput_rps_per_gpu == pytest.approx(0.999 * 6.3, rel=1e-4)
    assert "at least 6.29 req/s per GPU of t3" in summary.why


def test_one_seed_of_an_unfinished_confirmation_states_nothing() -> None:
    first = [FinalistRun(3, 0, rate, a_score(rate, 0.999)) for rate in (6.0, 6.3)]
    summary = concluded(DEFAULT, CHALLENGER, measured=runs(0, 6.0) + first)
    assert summary.best and summary.best.load == {"rate_rps": 7.0} and "at least" not in summary.why


def test_a_level_that_only_some_seeds_saw_does_not_count() -> None:
    one_more = FinalistRun(3, 0, 8.0 * 1.01, a_score(8.0 * 1.01, 0.2))
    summary = concluded(DEFAULT, CHALLENGER, measured=[*runs(0, 6.0), *runs(3, 8.0), one_more])
    assert summary.best and summary.best.load == {"rate_rps": pytest.approx(8.0, rel=0.01)}


A_MISSING_DEFAULT = a_miss(0, a_configuration(is_default=True))


def test_beside_a_challenger_a_default_that_missed_is_measured_again_at_its_lowest_load() -> None:
    lowest = min(level_of(probe.load) for probe in A_MISSING_DEFAULT.probes)
    by_trial = {0: A_MISSING_DEFAULT, 3: CHALLENGER}
    default, challenger = finalists(a_plan(), by_trial)
    enough = a_plan().slo.deciding_requests
    assert (default.trial, default.level, default.least) == (0, lowest, lowest)
    assert default.counted == enough / 5, "five seeds together count what one window has to elsewhere"
    assert (challenger.trial, challenger.counted) == (3, enough)
    assert finalists(a_plan(), {0: A_MISSING_DEFAULT}) == [], "there is nothing to compare it with"


@pytest.mark.parametrize(("attainment", "has_default"), [(0.9, False), (0.995, True)])
def test_fresh_seeds_say_whether_a_default_that_missed_holds_the_slo(attainment: float, has_default: bool) -> None:
    again = [
        FinalistRun(0, seed, rate, a_score(rate, share, goodput_rps=rate * share))
        for seed in range(5)
        for rate, share in ((1.0, attainment), (1.05, 0.9))
    ]
    summary = concluded(A_MISSING_DEFAULT, CHALLENGER, measured=again + runs(3, 8.0))
    assert (summary.verdict, summary.how_sure) == ("deploy", "high")
    assert (summary.default is not None, summary.gain is not None) == (has_default, has_default)


@pytest.mark.parametrize("default", [DEFAULT, a_miss(0)], ids=["a default that holds", "a default that missed"])
def test_a_trace_at_a_given_speed_is_measured_again_at_that_speed_alone(default: Outcome) -> None:
    replayed = a_workload(prompt=None, output=None, trace="t.csv", arrivals=Arrivals(kind="trace", speed=2.0))
    chosen = finalists(a_plan(workload=replayed), {0: default, 3: CHALLENGER})
    assert [one.trial for one in chosen] == [0, 3]
    assert all(one.steps == "none" for one in chosen)


def test_a_finalist_s_fluidity_is_the_mean_of_its_windows_at_its_edge() -> None:
    def window(seed: int, rate: float, fluid: Fluidity) -> FinalistRun:
        return FinalistRun(3, seed, rate, a_score(rate, 0.99 if rate < 8 else 0.5, fluidity=fluid))

    steady, stuttering = Fluidity(1.0, 1.0, 80.0), Fluidity(0.9, 0.6, None)
    windows = [window(seed, rate, steady if seed else stuttering) for seed in range(2) for rate in (7.9, 8.0)]
    best = concluded(DEFAULT, CHALLENGER, measured=[*runs(0, 6.0), *windows]).best
    assert best and best.fluidity == Fluidity(pytest.approx(0.95), pytest.approx(0.8), pytest.approx(80.0))
    unseen = concluded(DEFAULT, CHALLENGER, measured=runs(0, 6.0) + runs(3, 8.0)).best
    assert unseen and unseen.fluidity is None


def test_an_interrupted_confirmation_states_what_the_search_found_and_no_more_than_it_saw() -> None:
    """Its curve promised 7.5 req/s; the best probe offered 7.0, of which 99.3 % were good."""
    first_window = [FinalistRun(3, 0, 8.0, a_score(8.0, 0.5))]
    summary = concluded(DEFAULT, CHALLENGER, measured=first_window, interrupted=True)
    assert summary.best and (summary.best.trial, summary.best.goodput_rps_per_gpu) == (3, pytest.approx(6.951))


def test_an_interrupted_study_names_its_best_so_far_without_a_gain() -> None:
    summary = concluded(DEFAULT, CHALLENGER, interrupted=True)
    assert summary.verdict == "interrupted" and summary.best and summary.best.trial == 3
    assert (summary.gain, summary.best.ci95) == (None, None)


def test_an_interrupted_study_does_not_name_what_fresh_seeds_refuted() -> None:
    refuted = [
        FinalistRun(3, seed, rate, a_score(rate, 0.5), 10.0, 20.0) for seed in range(5) for rate in (7.9, 7.5, 5.0)
    ]
    summary = concluded(DEFAULT, CHALLENGER, measured=[*runs(0, 6.0), *refuted], interrupted=True)
    assert summary.best and summary.best.trial == 0


def test_a_study_without_a_single_trial_concludes_too() -> None:
    summary = concluded(interrupted=True)
    assert (summary.trials.total, summary.best, summary.default, summary.frontier) == (0, None, None, ())


def test_every_way_a_trial_ends_is_counted() -> None:
    counts = concluded(DEFAULT, a_miss(1), a_crash(2), an_outcome(3, state="pruned")).trials
    assert (counts.total, counts.measured, counts.pruned, counts.infeasible, counts.failed) == (4, 2, 1, 1, 0)


def test_cost_counts_gpu_seconds_of_search_and_confirmation() -> None:
    cost = concluded(DEFAULT, CHALLENGER, measured=runs(0, 6.0) + runs(3, 8.0)).cost
    assert cost.startup_gpu_s == 2 * 58.0 + 20 * 10.0
    assert cost.measuring_gpu_s == 2 * 400.0 + 20 * 20.0
    assert cost.gpu_s == cost.startup_gpu_s + cost.measuring_gpu_s


def test_every_gpu_of_a_server_is_paid_for_while_it_starts_and_is_measured() -> None:
    wide = an_outcome(3, a_configuration(tp=4), value_rps_per_gpu=2.0)
    cost = concluded(DEFAULT, wide, measured=runs(0, 6.0) + runs(3, 32.0)).cost
    assert cost.startup_gpu_s == (1 + 4) * 58.0 + 10 * (1 + 4) * 10.0
    assert cost.measuring_gpu_s == (1 + 4) * 400.0 + 10 * (1 + 4) * 20.0


@pytest.mark.parametrize(("wanted_rps", "word"), [(60.0, "deploy"), (64.0, "nothing-meets-slo")])
def test_a_throughput_the_box_must_reach_is_a_limit_too(wanted_rps: float, word: str) -> None:
    plan = a_plan(slo=an_slo(min_throughput_rps=wanted_rps))
    by_trial = {0: DEFAULT, 3: CHALLENGER}
    summary = conclude(plan, by_trial, runs(0, 6.0) + runs(3, 8.0), [Session(1.0)], interrupted=False)
    assert summary.verdict == word  # 8 GPUs of 7.92 req/s


@pytest.mark.parametrize(("wanted_rps", "word"), [(60.0, "deploy"), (64.0, "nothing-meets-slo")])
def test_a_box_holds_as_many_servers_as_have_all_their_gpus(wanted_rps: float, word: str) -> None:
    plan = a_plan(slo=an_slo(min_throughput_rps=wanted_rps))
    wide = an_outcome(3, a_configuration(tp=4), value_rps_per_gpu=7.5)
    by_trial = {0: DEFAULT, 3: wide}
    summary = conclude(plan, by_trial, runs(0, 6.0) + runs(3, 32.0), [Session(1.0)], interrupted=False)
    assert summary.verdict == word  # 2 servers of 4 GPUs, 7.92 req/s each GPU


def test_the_frontier_holds_open_loop_probes_that_no_other_beats_in_both_ways() -> None:
    def probe(per_gpu: float, per_user: float, **overrides: object) -> Outcome:
        score = a_score(1.0, throughput_tok_s=per_gpu, tok_s_per_user=per_user, **overrides)
        return an_outcome(probes=(score,))

    points = frontier(
        [
            probe(100, 50),
            probe(90, 60, attainment=0.2),
            probe(90, 40),
            probe(100, 50),
            probe(500, 500, load=ClosedLoop(4)),
            probe(500, 500, stopped="hopeless"),
        ]
    )
    assert [(point.throughput_tok_s_per_gpu, point.tok_s_per_user) for point in points] == [(100, 50), (90, 60)]
