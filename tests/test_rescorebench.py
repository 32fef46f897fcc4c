"""Rescoring a bench: its raw timings under another SLO say what a bench with that SLO would have said of them."""

import json
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from launchers.remote import Described
from tests.builders import a_score, a_workload, an_slo
from tests.logs import a_log
from tests.simulated import a_virtual_server
from tests.test_cli import tune
from tests.test_rescore_command import contents
from tuner.bench import bench
from tuner.benched import Benched
from tuner.benchfolder import as_data, begin, keep, read_bench
from tuner.benchorder import Bench
from tuner.config.slo import Limits, Slo
from tuner.config.workload import Arrivals, Lengths, Ramp
from tuner.errors import ConfigError
from tuner.outcome import Outcome
from tuner.probe import Recorded
from tuner.rescorebench import rescore_bench
from tuner.target import ClosedLoop, Load, OpenLoop
from tuner.terminal.benched import benched_text

SLO = an_slo(limits=Limits(ttft_s=0.3, tpot_s=0.012), attainment=0.9, warmup_s=1.0, window_s=4.0, timeout_s=20.0)
STRICT = SLO.model_copy(update={"limits": Limits(ttft_s=0.05, tpot_s=0.009)})
LOOSE = SLO.model_copy(update={"limits": Limits(ttft_s=3.0)})
IMPOSSIBLE = SLO.model_copy(update={"limits": Limits(ttft_s=0.001)})
SERVER = Described("http://127.0.0.1:8000", "m", "vllm", 32000, 4096)


def measured(folder: Path, slo: Slo, load: Load | None = None) -> Benched:
    """A bench in virtual time, kept in `folder`."""
    workload = a_workload(prompt=Lengths(fixed=256), output=Lengths(fixed=32))
    order = Bench(workload, slo, load=load, requests=400 if load else None)
    begin(folder, order, SERVER)
    numbers = count()
    return bench(order, a_virtual_server(), "vllm", lambda probe: keep(folder, next(numbers), probe))


def seen(outcome: Outcome) -> Outcome:
    """All of an outcome but the index of fluidity, which needs the time of every chunk."""
    scores = [replace(probe, fluidity=None) for probe in outcome.probes]
    best = outcome.best and replace(outcome.best, fluidity=None)
    return replace(outcome, probes=tuple(scores), best=best)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched") / "bench"
    measured(folder, SLO)
    return folder


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single") / "bench"
    measured(folder, SLO, OpenLoop(30.0))
    return folder


def test_under_its_own_slo_a_search_is_worth_what_it_was(tmp_path: Path) -> None:
    found = measured(tmp_path / "bench", SLO)
    again = rescore_bench(tmp_path / "bench", SLO)
    assert found.outcome.holds_slo
    assert (seen(again.found.outcome), again.found.edge) == (seen(found.outcome), found.edge)
    assert (again.unusable, again.is_open_ended) == (0, False)


@pytest.mark.parametrize("load", [OpenLoop(30.0), ClosedLoop(8)], ids=["a rate", "users"])
@pytest.mark.parametrize("slo", [STRICT, LOOSE, IMPOSSIBLE], ids=["strict", "loose", "impossible"])
def test_one_load_is_worth_what_a_bench_with_the_other_slo_finds_there(tmp_path: Path, load: Load, slo: Slo) -> None:
    measured(tmp_path / "before", SLO, load)
    asked = measured(tmp_path / "asked", slo, load)
    again = rescore_bench(tmp_path / "before", slo)
    assert seen(again.found.outcome) == seen(asked.outcome)
    assert not again.is_open_ended, "no other load was asked for"


def test_loads_that_were_not_offered_stay_unknown(searched: Path) -> None:
    assert rescore_bench(searched, LOOSE).is_open_ended
    nothing = rescore_bench(searched, IMPOSSIBLE)
    assert not nothing.found.outcome.holds_slo


def test_a_probe_that_was_stopped_too_soon_for_the_new_slo_does_not_count(tmp_path: Path) -> None:
    begin(tmp_path, Bench(a_workload(), SLO), SERVER)
    late = [(0.0, (5.0,)) for _ in range(40)] + [(0.0, (0.1,)) for _ in range(10)]
    log = a_log(late, stopped="hopeless")
    keep(tmp_path, 0, Recorded("search", 0, a_score(load=OpenLoop(10.0)), log, planned_s=10.0, seed=1))
    again = rescore_bench(tmp_path, SLO.model_copy(update={"limits": Limits(ttft_s=9.0)}))
    assert (again.unusable, again.bench.probes, again.found.outcome.best) == (1, (), None)
    assert rescore_bench(tmp_path, SLO).unusable == 0, "it would have been stopped under this one too"


def test_timings_of_another_probe_are_refused(searched: Path, tmp_path: Path) -> None:
    begin(tmp_path, read_bench(searched).order, SERVER)
    (tmp_path / "probes.jsonl").write_bytes((searched / "probes.jsonl").read_bytes())
    with pytest.raises(ConfigError, match=r"0000.parquet: the raw timings cannot be read"):
        rescore_bench(tmp_path, SLO)
    (tmp_path / "probes").mkdir()
    (tmp_path / "probes" / "0000.parquet").write_bytes((searched / "probes" / "0003.parquet").read_bytes())
    with pytest.raises(ConfigError, match=r"0000.parquet: it does not hold the probe that probes.jsonl speaks of"):
        rescore_bench(tmp_path, SLO)


@pytest.mark.parametrize("attainment", [0.5, 0.9, 0.95, 0.99, 0.995])
@pytest.mark.parametrize("load", [None, OpenLoop(30.0), OpenLoop(100.0)], ids=["a search", "a rate", "a high rate"])
def test_no_goodput_is_more_than_what_was_good_at_the_load_that_it_is_stated_at(
    tmp_path: Path, load: Load | None, attainment: float
) -> None:
    slo = SLO.model_copy(update={"attainment": attainment})
    found = measured(tmp_path, SLO, load)
    again = rescore_bench(tmp_path, slo)
    for one, order in ((found, read_bench(tmp_path).order), (again.found, again.bench.order)):
        for point in points_of(as_data(one, order, SERVER)):
            most_rps = point["load"].get("rate_rps", math.inf) * point["attainment"]
            assert point["goodput_rps_per_gpu"] <= most_rps + 1e-9
        best = one.best
        if best and isinstance(best.load, OpenLoop):
            stated = re.search(r"goodput +([0-9.]+) req/s", benched_text(one, order))
            assert stated is None or float(stated[1]) <= best.load.rate_rps * best.attainment * 1.005, "three digits"


def points_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Every point of a bench's JSON."""
    if "probes" not in told:
        return [told]
    return [*told["probes"], *told["frontier"], *([told["best"]] if told["best"] else [])]


def test_what_was_to_watch_in_its_probes_still_is(tmp_path: Path) -> None:
    begin(tmp_path, Bench(a_workload(), SLO), SERVER)
    log = a_log([(0.1 * n, (0.1 * n + 0.1, 0.1 * n + 0.12)) for n in range(40)], errors=("out of luck",))
    keep(tmp_path, 0, Recorded("search", 0, a_score(load=OpenLoop(10.0)), log, planned_s=10.0, seed=1))
    again = rescore_bench(tmp_path, LOOSE)
    assert again.found.watch == ("some requests failed: out of luck",)
    assert again.found.best is not None
    own = again.found.own_itl_s(again.found.best)
    assert own is not None and own.p99 == pytest.approx(0.02)


def test_a_folder_of_an_earlier_version_is_read(searched: Path, tmp_path: Path) -> None:
    shutil.copytree(searched, tmp_path / "older")
    lines = [json.loads(line) for line in (searched / "probes.jsonl").read_text().splitlines()]
    kept = [{name: line[name] for name in ("number", "stage", "score")} for line in lines]
    (tmp_path / "older" / "probes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    older, now = rescore_bench(tmp_path / "older", SLO).found, rescore_bench(searched, SLO).found
    assert (older.outcome, older.best, older.edge) == (now.outcome, now.best, now.edge)
    assert now.best is not None and older.own_itl_s(now.best) == now.own_itl_s(now.best) is not None


def test_a_ramp_is_not_scored_again(tmp_path: Path) -> None:
    begin(tmp_path, Bench(a_workload(arrivals=Arrivals(kind="closed", ramp=Ramp())), SLO), SERVER)
    with pytest.raises(ConfigError, match="its users joined one by one, and such a ramp cannot be scored again"):
        rescore_bench(tmp_path, LOOSE)


# The command.


def run(words: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = tune(["rescore", *words], monkeypatch)
    return code, capsys.readouterr().out


def test_the_command_says_which_bench_it_is_of_and_writes_nothing(
    single: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(single)
    code, out = run([str(single), "--slo", "chat"], monkeypatch, capsys)
    told = " ".join(out.split())
    assert code == 0
    assert told.startswith("a re-scoring of ") and "nothing was measured again" in told
    assert "m at http://127.0.0.1:8000 · chat SLO" in out
    assert "at a load of        30.0 req/s" in out
    assert max(map(len, out.splitlines())) <= 80 or str(single) in out
    assert contents(single) == before


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        pytest.param("{ttft_s: 0.3, tpot_s: 0.012}", 0, id="held"),
        pytest.param("{ttft_s: 0.0001}", 3, id="lonely requests miss it"),
        pytest.param("{ttft_s: 0.3, tpot_s: 0.0076}", 4, id="no load that was offered was low enough"),
    ],
)
def test_its_exit_code_is_that_of_the_bench_but_where_a_search_would_have_gone_on(
    searched: Path, limits: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = searched.parent / f"{code}.yaml"
    other.write_text(f"title: t\nworkload: chat\nattainment: 0.9\nlimits: {limits}\n")
    assert tune(["rescore", str(searched), "--slo", str(other)], monkeypatch) == code


def test_as_json_it_is_a_bench_s_object_with_what_it_rests_on(
    searched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = run([str(searched), "--slo", "chat", "--json"], monkeypatch, capsys)
    told = json.loads(out)
    assert {"best", "holds_up_to", "probes", "frontier", "rescored"} <= set(told)
    assert told["slo"]["name"] == "chat" and told["rescored"]["dir"] == str(searched)


def test_with_out_the_result_is_a_folder_like_a_bench_s(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    _, shown = run([str(single), "--slo", "chat", "--out", str(out)], monkeypatch, capsys)
    again = read_bench(out)
    assert again.order.slo.name == "chat" and again.probes[-1].score.load == OpenLoop(30.0)
    assert json.loads((out / "summary.json").read_text())["rescored"]["dir"] == str(single)
    assert shown.splitlines()[-1].split() == ["written", "to", str(out)]


def test_a_stored_re_scoring_is_no_bench_to_score_again(
    single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    run([str(single), "--slo", "chat", "--out", str(out)], monkeypatch, capsys)
    assert tune(["rescore", str(out), "--slo", "chat"], monkeypatch) == 2
    assert f"no raw timings of its own; give what it was made from, {single}" in capsys.readouterr().err
