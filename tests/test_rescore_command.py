"""`tune rescore`: what it says, and what it writes."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.quickstudies import a_finished_study
from tests.test_cli import tune
from tuner import record
from tuner.config.plan import Plan
from tuner.config.slo import Limits


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    plan, _, _ = a_finished_study(tmp_path_factory.mktemp("rescored"), trials=6)
    return plan


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


def test_a_stored_re_scoring_is_no_study_to_score_again(
    study: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    _, shown = rescoring([str(study.out), "--slo", "chat", "--out", str(out)], monkeypatch, capsys)
    assert str(out) in "".join(shown.split()), "it says what it wrote"
    assert tune(["rescore", str(out), "--slo", "chat"], monkeypatch) == 2
    assert f"no raw timings of its own; give what it was made from, {study.out}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            ["nowhere", "--slo", "chat"],
            "nowhere: no plan.yaml or bench.yaml here; give the folder of a study or of a bench",
            id="no study",
        ),
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
