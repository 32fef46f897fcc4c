"""Rescore: a finished study under another SLO says what a study with that SLO would have said of the same loads."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import a_score, an_slo
from tests.logs import a_log
from tests.test_cli import tune
from tuner import record
from tuner.cli.planning import Options, plan_from
from tuner.config.plan import Plan
from tuner.config.slo import Limits, Slo
from tuner.confirm import values_of
from tuner.errors import ConfigError
from tuner.outcome import Outcome
from tuner.probe import Prober, Recorded
from tuner.rawlog import RawProbe, read_probes, write_requests
from tuner.requestlog import RequestLog, Status
from tuner.rescore import Rescored, is_usable, rescore
from tuner.score import Score, score, scored_again
from tuner.study import StudyOptions, run_study
from tuner.summary import Summary
from tuner.target import ClosedLoop, Load, OpenLoop
from tuner.trial import TrialOrder, open_for

SLO = """
title: quick
source: a test
workload: 256x32
attainment: 0.9
limits: {ttft_s: 0.3, tpot_s: 0.012}
warmup_s: 1
window_s: 4
timeout_s: 20
"""
OFFLINE = """
title: offline
source: a test
prompt: {p50: 200, p90: 500, cap: 1000}
output: {fixed: 12}
arrivals: {kind: at_once}
"""


def a_study(folder: Path, slo: str = SLO, **overrides: Any) -> Plan:
    """A finished study of qwen-7b on a simulated box of two H100s."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quick.yaml").write_text(slo)
    typed = {"model": "qwen-7b", "slo": str(folder / "quick.yaml"), "workload": "256x32", "simulate": "virtual"}
    options = Options(**typed | {"gpus": "2", "trials": 6, "out": folder / "study"} | overrides)  # type: ignore[arg-type]
    plan = plan_from(options).plan
    run_study(plan, StudyOptions(workers=1, resume=False, seeds=2), lambda event: None)
    return plan


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return a_study(tmp_path_factory.mktemp("rescored"))


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


# One probe: what was written is judged like what was seen.

LIMITS = st.builds(
    Limits,
    ttft_s=st.none() | st.sampled_from([0.05, 0.1, 0.3]),
    tpot_s=st.none() | st.sampled_from([0.02, 0.05]),
    itl_s=st.none() | st.sampled_from([0.05, 0.1]),
    e2e_s=st.none() | st.sampled_from([0.5, 2.0]),
) | st.builds(Limits, ttft_s=st.just(0.05), ttft_s_per_prompt_token=st.sampled_from([1e-4, 1e-3]))
GAPS = st.lists(st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.101]), min_size=0, max_size=130)


@st.composite
def logs(draw: st.DrawFn) -> RequestLog:
    """Requests of every fate, some with several tokens a chunk, some never sent."""
    answers = draw(st.lists(st.tuples(st.floats(0.0, 0.4), GAPS), min_size=1, max_size=30))
    n = len(answers)
    rows = [
        (i * 0.1, (i * 0.1 + first + np.cumsum([0.0, *gaps])).tolist()) for i, (first, gaps) in enumerate(answers)
    ]
    chunks = np.array([len(times) for _, times in rows])
    status = np.array(draw(st.lists(st.sampled_from(list(Status)), min_size=n, max_size=n)))
    lag_s = np.array(draw(st.lists(st.sampled_from([0.0, 0.01, np.nan]), min_size=n, max_size=n)))
    return a_log(
        rows,
        status=status,
        counted=np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n))),
        output_tokens=chunks * draw(st.sampled_from([1, 3])),
        prompt_tokens=np.array(draw(st.lists(st.integers(1, 5000), min_size=n, max_size=n))),
        sent_s=np.arange(n) * 0.1 + lag_s,
        window_s=draw(st.floats(0.5, 20.0)),
        stopped=draw(st.none() | st.just("hopeless")),
    )


@given(logs(), st.sampled_from([OpenLoop(7.3), ClosedLoop(5)]), LIMITS, LIMITS)
@settings(max_examples=150)
def test_a_stored_probe_is_judged_under_any_limits_exactly_like_its_log(
    log: RequestLog, load: Load, before: Limits, after: Limits
) -> None:
    assert scored_again(score(log, load, before), stored(log, load).answers, after) == score(log, load, after)


@pytest.mark.parametrize(
    ("load", "late", "attainment", "limit_s", "usable"),
    [
        pytest.param(OpenLoop(10.0), 40, 0.9, 0.2, True, id="the new SLO would have stopped it too"),
        pytest.param(OpenLoop(10.0), 40, 0.9, 9.0, False, id="nothing was bad under the new SLO"),
        pytest.param(OpenLoop(10.0), 20, 0.9, 0.2, False, id="the new SLO would have looked on"),
        pytest.param(OpenLoop(10.0), 20, 0.99, 0.2, True, id="stricter, so fewer bad ones are enough"),
        pytest.param(OpenLoop(10.0), 40, 0.0, 0.2, False, id="a free peak never stops a probe"),
        pytest.param(ClosedLoop(10), 40, 0.9, 0.2, False, id="a closed loop is never stopped"),
    ],
)
def test_a_probe_that_was_stopped_counts_only_where_the_new_slo_would_have_stopped_it(
    load: Load, late: int, attainment: float, limit_s: float, usable: bool
) -> None:
    rows = [(0.0, (5.0,)) for _ in range(late)] + [(0.0, (0.1,)) for _ in range(50 - late)]
    slo = an_slo(attainment=attainment, limits=Limits(ttft_s=limit_s))
    assert is_usable(stored(a_log(rows, stopped="hopeless"), load), slo) is usable
    assert is_usable(stored(a_log(rows), load), slo), "it ran on, so all that happened is known"


def stored(log: RequestLog, load: Load) -> RawProbe:
    """`log` written to a file, as a probe of ten seconds, and read again."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "requests.parquet"
        write_requests(
            path, [Recorded("search", 0, a_score(load=load), log, planned_s=10.0, seed=1)], with_chunks=False
        )
        return read_probes(path)[0]


# A study: what is concluded.


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
    slo = SLO.replace("0.9", str(attainment)).replace("0.3", str(ttft_s)).replace("0.012", "0.5")
    return a_study(folder, slo, workload=str(folder / "offline.yaml"), sampler="random", trials=4)


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
    plan = a_study(tmp_path, trials=1)
    spoil(plan.out / "trials" / "0000" / "requests.parquet")
    with pytest.raises(ConfigError, match=message):
        rescore(plan.out, plan.slo)


# The command.


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rescoring(
    words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    code = tune(["rescore", *words], monkeypatch)
    return code, capsys.readouterr().out


def test_it_says_first_that_it_is_a_re_scoring_of_which_study_and_writes_nothing_there(
    study: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(study.out)
    code, out = rescoring([str(study.out), "--slo", "content-gen"], monkeypatch, capsys)
    assert out.startswith("a re-scoring of ")
    assert "measured for SLO quick" in " ".join(out.split()) and "nothing was measured again" in " ".join(out.split())
    assert "report.html" not in out
    assert code in {0, 3, 4}
    assert contents(study.out) == before


def test_as_json_it_is_a_study_s_object_with_what_it_rests_on(
    study: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = rescoring([str(study.out), "--slo", "chat", "--attainment", "0.5", "--json"], monkeypatch, capsys)
    told = json.loads(out)
    assert set(json.loads((study.out / "summary.json").read_text())) < set(told)
    assert told["slo"] == {"name": "chat", "attainment": 0.5, "ttft_s": 0.2, "itl_s": 0.05}
    assert told["rescored"]["dir"] == str(study.out)
    assert told["rescored"]["slo"]["name"] == "quick"
    low, high = told["rescored"]["loads_per_gpu"]
    assert 0 < low < high


def test_with_out_the_result_is_a_folder_like_a_study_s(
    study: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    rescoring([str(study.out), "--slo", "chat", "--slo-scale", "2", "--out", str(out)], monkeypatch, capsys)
    assert {path.name for path in out.iterdir()} >= {"plan.yaml", "summary.json", "trials.csv", "report.html"}
    assert record.read_plan(out).slo.limits == Limits(ttft_s=0.4, itl_s=0.1)
    assert len(record.read_outcomes(out)) == 6
    assert "rescored" in json.loads((out / "summary.json").read_text())
    assert f"tune rescore {study.out}" in (out / "report.html").read_text(), "what made it, to be made again"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["nowhere", "--slo", "chat"], "nowhere: no plan.yaml here", id="no study"),
        pytest.param(["{study}", "--slo", "chta"], "did you mean 'chat'?", id="no such SLO"),
        pytest.param(["{study}"], "Missing option '--slo'", id="no SLO"),
        pytest.param(["{study}", "--slo", "chat", "--out", "{study}"], "there is a study here already", id="over it"),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(
    study: Plan,
    words: Sequence[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(study.out)
    assert tune(["rescore", *(word.format(study=study.out) for word in words)], monkeypatch) == 2
    assert message in capsys.readouterr().err
    assert contents(study.out) == before


def test_a_trace_at_a_given_speed_is_judged_at_that_speed_alone(tmp_path: Path) -> None:
    rows = [f"2023-11-16 18:17:{second:02d}.5,256,32" for second in range(41)]
    (tmp_path / "trace.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    (tmp_path / "replayed.yaml").write_text(
        f"title: w\nsource: a test\ntrace: {tmp_path / 'trace.csv'}\narrivals: {{kind: trace, speed: 2.5}}\n"
    )
    plan = a_study(tmp_path, workload=str(tmp_path / "replayed.yaml"), trials=2)
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
    plan = a_study(tmp_path, workload=str(tmp_path / "ramp.yaml"), trials=1)
    with pytest.raises(ConfigError, match="its users joined one by one, and such a ramp cannot be scored again"):
        rescore(plan.out, plan.slo)
