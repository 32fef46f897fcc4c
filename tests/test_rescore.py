"""Rescore: a finished study under another SLO says what a study with that SLO would have said of the same loads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.builders import a_score, an_outcome, an_slo
from tests.quickstudies import QUICK_SLO, a_finished_study
from tuner import record
from tuner.config.plan import Plan
from tuner.config.slo import Limits, Slo
from tuner.confirm import values_of
from tuner.errors import ConfigError
from tuner.finalruns import FinalistRun
from tuner.outcome import Outcome
from tuner.probe import Prober
from tuner.rawlog import read_probes
from tuner.rescore import Rescored, long_enough, rescore
from tuner.score import Score
from tuner.summary import Summary
from tuner.target import OpenLoop
from tuner.trial import TrialOrder, open_for

OFFLINE = """
title: offline
source: a test
prompt: {p50: 200, p90: 500, cap: 1000}
output: {fixed: 12}
arrivals: {kind: at_once}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    plan, _, _ = a_finished_study(tmp_path_factory.mktemp("rescored"), trials=6)
    return plan


def seen(found: Score) -> Score:
    """All of a score but its index of fluidity, which needs the time of every chunk."""
    return replace(found, fluidity=None)


def conclusions(found: Rescored, plan: Plan) -> dict[str, Any]:
    """What a re-scoring concludes, but for what is the study's own."""
    return comparable(replace(found.summary, study=plan.study, dir=str(plan.out)))


def comparable(summary: Summary) -> dict[str, Any]:
    """A summary without its cost, and without the index of fluidity, which needs the time of every chunk."""
    told = record.summary_as_data(summary)
    for point in filter(None, (told["best"], told["default"], *told["frontier"])):
        if point["fluidity"]:
            point["fluidity"] |= {"mean_index": None, "fluid_frac": None}
    return {key: value for key, value in told.items() if key != "cost"}


def test_the_longer_limits_that_are_recommended_would_have_been_held(study: Plan) -> None:
    strict = study.slo.scaled(0.1)
    missed = [one for one in rescore(study.out, strict).outcomes if one.needed_scale]
    assert missed
    for one in missed:
        assert one.needed_scale and one.best
        (again,) = (a for a in rescore(study.out, strict.scaled(one.needed_scale)).outcomes if a.trial == one.trial)
        (same,) = (probe for probe in again.probes if probe.load == one.best.load)
        assert one.best.attainment < strict.attainment <= same.attainment


def test_under_its_own_slo_a_study_concludes_what_it_did(study: Plan) -> None:
    again = rescore(study.out, study.slo)
    assert conclusions(again, study) == comparable(record.read_summary(study.out))
    stored = record.read_outcomes(study.out)
    assert [
        replace(one, probes=tuple(map(seen, one.probes)), best=one.best and seen(one.best)) for one in stored
    ] == [
        replace(one, probes=tuple(map(seen, one.probes)), best=one.best and seen(one.best)) for one in again.outcomes
    ]


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param({"ttft_s": 0.05, "tpot_s": 0.009}, id="stricter"),
        pytest.param({"ttft_s": 2.0, "itl_s": 0.05}, id="looser, and of other kinds"),
        pytest.param({"e2e_s": 0.5}, id="the whole answer"),
        pytest.param({"ttft_s": 0.02, "ttft_s_per_prompt_token": 0.0002}, id="by the length of the prompt"),
    ],
)
def test_servers_measured_at_the_same_loads_for_the_new_slo_get_the_same_scores(
    study: Plan, limits: dict[str, float]
) -> None:
    slo = study.slo.model_copy(update={"limits": Limits(**limits), "attainment": 0.0})
    found = rescore(study.out, slo)
    assert found.scope.probes > 10
    for outcome in found.outcomes:
        for probe in outcome.probes:
            assert seen(probe) == seen(measured_for(study, slo, outcome, probe))
    for run in found.runs[::3]:
        outcome = found.outcomes[run.trial]
        assert seen(run.score) == seen(measured_for(study, slo, outcome, run.score, replicate=run.replicate))


def measured_for(plan: Plan, slo: Slo, outcome: Outcome, of: Score, replicate: int | None = None) -> Score:
    """The probe of a study with `slo` at the load of `of`, over a window as long, of the same requests."""
    folder = plan.out / "trials" / f"{outcome.trial:04d}"
    path = folder / "requests.parquet"
    if replicate is not None:
        assert isinstance(of.load, OpenLoop)
        path = folder / "confirm" / f"seed{replicate}-load{of.load.rate_rps:g}.parquet"
    stored = [probe for probe in read_probes(path) if probe.stage != "idle"]
    number = next(
        k for k, probe in enumerate(stored) if probe.load == of.load and int(probe.counted.sum()) == of.counted
    )
    with open_for(TrialOrder(plan, outcome.trial, outcome.configuration, (0, 1))) as target:
        prober = Prober(target, plan.workload, slo, stored[number].seed or 0)
        return prober.measure_for(of.load, stored[number].planned_s)


def offline(folder: Path, attainment: float, ttft_s: float) -> Plan:
    """A study of everything offered at once, its configurations proposed at random: no load depends on its SLO."""
    folder.mkdir()
    (folder / "offline.yaml").write_text(OFFLINE)
    slo = QUICK_SLO.replace("0.9", str(attainment)).replace("0.3", str(ttft_s)).replace("0.012", "0.5")
    plan, _, _ = a_finished_study(folder, slo, workload=str(folder / "offline.yaml"), sampler="random", trials=4)
    return plan


@pytest.fixture(scope="module")
def offline_study(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return offline(tmp_path_factory.mktemp("offline") / "before", 0.1, 3.0)


@pytest.mark.parametrize(("attainment", "ttft_s"), [(0.05, 0.5), (0.9, 60.0)], ids=["stricter", "looser"])
def test_a_study_whose_loads_do_not_depend_on_its_slo_concludes_what_one_for_the_new_slo_does(
    offline_study: Plan, tmp_path: Path, attainment: float, ttft_s: float
) -> None:
    new = offline(tmp_path / "new", attainment, ttft_s)
    found, told = rescore(offline_study.out, new.slo), record.read_summary(new.out)
    assert told.verdict != record.read_summary(offline_study.out).verdict
    assert conclusions(found, new) == comparable(told)
    measured = {one.trial: one for one in record.read_outcomes(new.out)}
    assert {one.trial: one.value_rps_per_gpu for one in found.outcomes} == {
        trial: one.value_rps_per_gpu for trial, one in measured.items()
    }
    for one in found.outcomes:
        assert [seen(probe) for probe in one.probes] == [seen(probe) for probe in measured[one.trial].probes]


def test_loads_that_were_not_offered_are_not_invented(study: Plan) -> None:
    loose = study.slo.model_copy(update={"limits": Limits(ttft_s=60.0)})
    found = rescore(study.out, loose)
    assert found.summary.verdict == "inconclusive"
    assert "not bracketed: the measured loads" in found.summary.why or "has no fresh windows" in found.summary.why
    assert found.scope.open_ended
    assert found.summary.how_sure == "low"


@pytest.mark.parametrize("attainment", [0.5, 0.8, 0.85, 0.95, 0.98])
def test_a_finalist_whose_windows_do_not_reach_its_new_edge_decides_nothing(study: Plan, attainment: float) -> None:
    slo = study.slo.model_copy(update={"attainment": attainment})
    found = rescore(study.out, slo)
    values = values_of(found.plan, {one.trial: one for one in found.outcomes}, found.runs)
    unsettled = [value for value in values.values() if not value.is_settled]
    if unsettled:
        assert (found.summary.verdict, found.summary.gain) == ("inconclusive", None)
    defaults = [one.trial for one in found.outcomes if one.configuration.is_default]
    if any(value.holds for value in unsettled if value.trial in defaults):
        assert found.summary.default is not None, "what it is worth at least is known"


def test_where_one_lonely_request_misses_the_new_slo_nothing_meets_it(study: Plan) -> None:
    impossible = study.slo.model_copy(update={"limits": Limits(ttft_s=1e-6)})
    found = rescore(study.out, impossible)
    assert not any(one.holds_slo for one in found.outcomes)
    assert found.summary.verdict in {"nothing-meets-slo", "inconclusive"}
    assert found.summary.best is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda path: path.unlink(), "cannot be read", id="gone"),
        pytest.param(lambda path: path.write_bytes(b"PAR1 cut off"), "cannot be read", id="cut off"),
        pytest.param(
            lambda path: pq.write_table(pq.read_table(path).drop_columns(["planned_s"]), path), "without planned_s",
            id="of an earlier version",
        ),
        pytest.param(
            lambda path: pq.write_table(pq.read_table(path).slice(0, 12), path), "other probes than",
            id="of other probes",
        ),
    ],
)  # fmt: skip
def test_raw_timings_that_do_not_suffice_are_one_message(tmp_path: Path, spoil: Any, message: str) -> None:
    plan, _, _ = a_finished_study(tmp_path, trials=1)
    spoil(plan.out / "trials" / "0000" / "requests.parquet")
    with pytest.raises(ConfigError, match=message):
        rescore(plan.out, plan.slo)


@pytest.mark.parametrize(
    ("expected", "default", "kept"),
    [
        pytest.param(1000.0, {}, 5, id="as many as the attainment takes"),
        pytest.param(850.0, {}, 5, id="nearly as many"),
        pytest.param(700.0, {}, 0, id="too few"),
        pytest.param(200.0, {}, 0, id="too few each"),
        pytest.param(200.0, {"value_rps_per_gpu": 0.0}, 5, id="a failed default's, enough together"),
        pytest.param(float("inf"), {}, 5, id="users"),
    ],
)
def test_a_level_is_kept_with_all_its_seeds_or_none_by_what_was_expected_of_them(
    expected: float, default: dict[str, Any], kept: int
) -> None:
    """Its windows happened to hold anything from a tenth of that to half as many more."""
    outcomes = {0: an_outcome(0, **default)}
    came = [int(min(expected, 1000.0) * luck) for luck in (0.1, 0.7, 0.9, 1.1, 1.5)]
    windows = [FinalistRun(0, seed, 7.0, a_score(7.0, counted=counted)) for seed, counted in enumerate(came)]
    other = FinalistRun(0, 0, 9.0, a_score(9.0))
    found = long_enough([*((one, expected) for one in windows), (other, 1.0)], outcomes, an_slo(attainment=0.99))
    assert found == windows[:kept]


def test_a_trace_at_a_given_speed_is_judged_at_that_speed_alone(tmp_path: Path) -> None:
    rows = [f"2023-11-16 18:17:{second:02d}.5,256,32" for second in range(41)]
    (tmp_path / "trace.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    (tmp_path / "replayed.yaml").write_text(
        f"title: w\nsource: a test\ntrace: {tmp_path / 'trace.csv'}\narrivals: {{kind: trace, speed: 2.5}}\n"
    )
    plan, _, _ = a_finished_study(tmp_path, workload=str(tmp_path / "replayed.yaml"), trials=2)
    strict = rescore(plan.out, plan.slo.model_copy(update={"limits": Limits(ttft_s=0.001)}))
    assert strict.summary.verdict == "nothing-meets-slo"
    same = rescore(plan.out, plan.slo)
    assert [one.value_rps_per_gpu for one in same.outcomes] == [
        one.value_rps_per_gpu for one in record.read_outcomes(plan.out)
    ]


def test_a_ramp_of_users_cannot_be_scored_again_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "ramp.yaml").write_text(
        "title: w\nsource: a test\nprompt: {fixed: 128}\noutput: {fixed: 16}\n"
        "arrivals: {kind: closed, ramp: {every_s: 1, users: 4}}\n"
    )
    plan, _, _ = a_finished_study(tmp_path, workload=str(tmp_path / "ramp.yaml"), trials=1)
    with pytest.raises(ConfigError, match="its users joined one by one, and such a ramp cannot be scored again"):
        rescore(plan.out, plan.slo)
