"""`tune bench`: what it prints and keeps, and how it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from tests.fakes import openai_server as fake
from tests.processes import marked, until
from tests.remotes import remote_fake
from tests.replays import PLAIN, journal, requests_for
from tests.simulated import serving
from tests.test_bench import SLO
from tests.test_cli import tune
from tuner.benched import Cut, concluded
from tuner.benchfolder import StoredProbe, read_bench
from tuner.target import ClosedLoop, OpenLoop, Window
from tuner.terminal.benched import benched_text

MARK = "GOODTUNE_TEST_BENCH"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder) as running:
        yield str(running.client.base_url)


@pytest.fixture
def command(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command without a load, in a folder with its SLO."""
    (tmp_path / "quick.yaml").write_text(SLO)
    monkeypatch.chdir(tmp_path)
    return ["bench", "--url", server, "--slo", "quick.yaml"]


def test_one_rate_as_json_is_a_point(
    server: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune([*command, "--rate", "10", "--requests", "20", "--json"], monkeypatch) == 0
    out = capsys.readouterr()
    point = json.loads(out.out)
    assert point["load"] == {"rate_rps": 10.0}
    assert (point["model"], point["url"], point["workload"]) == ("qwen-7b", server, "128x8")
    assert point["slo"] == {"name": "quick", "attainment": 0.9, "ttft_s": 2.0, "tpot_s": 0.5}
    assert point["attainment"] == 1.0 and point["requests"] > 8
    assert point["goodput_rps_per_gpu"] == pytest.approx(10, rel=0.6)
    assert point["ttft_s"]["p50"] > 0 and point["fluidity"]["rate_tok_s"] > 0
    assert "one at a time" in out.err
    assert httpx.get(f"{server}/health").status_code == 200, "it still runs"


def test_a_server_of_chats_alone_is_benched_with_real_text(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fake completes no token ids but of lengths that it knows."""
    Path("prompts.jsonl").write_text("".join(f'{{"prompt": "Why {n}?", "output_tokens": 4}}\n' for n in range(9)))
    with fake.running() as (url, _):
        words = [
            "bench",
            "--url",
            url,
            *command[3:],
            "--workload",
            "prompts.jsonl",
            "--rate",
            "20",
            "--requests",
            "20",
        ]
        assert tune([*words, "--json"], monkeypatch) == 0
        asked = [entry["body"] for entry in journal(url)["entries"]]
    assert json.loads(capsys.readouterr().out)["attainment"] == 1.0
    assert asked[0]["max_tokens"] == 1, "tried out"
    assert all("messages" in body for body in asked)


def test_what_the_engine_says_of_itself_is_in_every_probe(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune([*command, "--rate", "20", "--requests", "20", "--json"], monkeypatch) == 0
    point = json.loads(capsys.readouterr().out)
    engine = point["engine_view"]
    assert point["engine"] == "vllm" and engine["scrapes"] >= 2
    assert engine["generated_tokens"] >= 8 * 10 and engine["cache_hit_frac"] == 0.0
    assert engine["queue_p50_s"] is not None


def test_a_server_without_metrics_is_measured_all_the_same() -> None:
    with remote_fake() as (_, target):
        log = target.replay(requests_for(PLAIN, PLAIN), ClosedLoop(1), Window(0.0, 60.0, 20.0), lambda log: None)
    assert log.engine is None and log.scrapes == ()
    assert len(log) == 2


def test_users_are_printed_for_people(
    server: str, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune([*command, "--users", "2", "--requests", "200"], monkeypatch) == 0
    shown = capsys.readouterr()
    out = shown.out
    heading = f"qwen-7b at {server} · quick SLO · workload 128x8\n"
    assert out.startswith(heading) and heading not in shown.err, "a terminal shows both: once is enough"
    for words in (
        "goodput ",
        "at a load of        2 users",
        "✓ need 90 %",
        "limit 2 s",
        "tok/s, ",
        "fluidity",
        "the engine itself   ",
        "tokens per step ",
    ):
        assert words in out
    assert max(map(len, out.splitlines())) <= 80


def test_every_probe_is_kept_where_the_output_says(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune([*command, "--rate", "10", "--requests", "20", "--json"], monkeypatch) == 0
    shown = capsys.readouterr()
    (folder,) = Path("results").iterdir()
    assert folder.name.endswith("-bench-qwen-7b-quick")
    assert json.loads(shown.out)["dir"] == str(folder) and f"kept in {folder}" in shown.err
    assert json.loads((folder / "summary.json").read_text()) == json.loads(shown.out)
    kept = read_bench(folder)
    assert [probe.stage for probe in kept.probes] == ["idle", "confirm"]
    assert kept.order.load == OpenLoop(10.0) and kept.described.model == "qwen-7b"
    assert {path.name for path in (folder / "probes" / "metrics").iterdir()} == {"0000.parquet", "0001.parquet"}


def test_out_names_the_folder_and_nothing_is_measured_into_it_twice(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command += ["--users", "1", "--requests", "8", "--out", "mine"]
    assert tune(command, monkeypatch) == 0
    assert capsys.readouterr().out.endswith("\n  timings             mine\n")
    assert tune(command, monkeypatch) == 2
    assert "mine: something was measured into this folder before" in capsys.readouterr().err


def test_what_was_found_is_printed_though_it_cannot_be_kept(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for taken in ("probes.jsonl", "summary.json"):
        Path("mine", taken).mkdir(parents=True)
    assert tune([*command, "--users", "1", "--requests", "8", "--out", "mine"], monkeypatch) == 2
    shown = capsys.readouterr()
    assert "this probe is not kept: mine/probes.jsonl: cannot be written" in shown.err
    assert "goodput " in shown.out and "mine/summary.json: cannot be written" in shown.err


@pytest.fixture
def curt(tmp_path: Path, fake_server: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command for a gateway that heeds no `ignore_eos`, and chats that it answers with a few tokens."""
    (tmp_path / "chats.jsonl").write_text(json.dumps({"prompt": fake.CURT, "max_tokens": 40}) + "\n")
    (tmp_path / "planned.yaml").write_text(f"title: chats\ntrace: {tmp_path}/chats.jsonl\nanswer_ends: planned\n")
    (tmp_path / "quick.yaml").write_text(SLO)
    monkeypatch.chdir(tmp_path)
    return ["bench", "--url", fake_server, "--slo", "quick.yaml", "--rate", "20", "--requests", "20", "--json"]


def test_real_text_is_answered_as_far_as_the_model_goes(
    curt: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune([*curt, "--workload", "chats.jsonl"], monkeypatch) == 0
    point = json.loads(capsys.readouterr().out)
    assert point["attainment"] == 1.0 and point["missed"]["failed"] == 0
    n = point["requests"]
    assert (point["health"]["wanted_tokens"], point["health"]["received_tokens"]) == (40 * n, fake.CURT_TOKENS * n)
    assert point["throughput_tok_s_per_gpu"] < 20 * 2 * fake.CURT_TOKENS


def test_real_text_whose_lengths_are_planned_is_not_answered_by_who_ends_it_sooner(
    curt: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune([*curt, "--workload", "planned.yaml"], monkeypatch) == 2
    told = capsys.readouterr().err
    assert "answers no request of this workload: finish_reason 'stop' with a wrong number of tokens\n" in told
    assert told.count("finish_reason 'stop'") == 1, "once is enough"


def test_every_probe_says_once_what_was_not_right_about_it(
    curt: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("chats.jsonl").write_text(json.dumps({"prompt": fake.KNOWN, "max_tokens": 4}) + "\n")
    assert tune([*curt, "--workload", "chats.jsonl"], monkeypatch) == 0
    told = capsys.readouterr().err
    assert told.count("  the prefix cache had 60% of the prompt tokens that nothing in the probe had put there") == 2
    assert "some requests failed" not in told


def test_requests_that_failed_are_told_by_kind_once(
    curt: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": text, "max_tokens": 9} for text in (fake.CURT, "Why?")]
    Path("chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tune([*curt, "--workload", "planned.yaml"], monkeypatch) == 0
    told = capsys.readouterr().err
    assert told.count("  some requests failed: finish_reason 'stop' with a wrong number of tokens\n") == 2


def test_a_key_is_neither_shown_nor_kept(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cr3t")
    assert tune([*command, "--users", "1", "--requests", "8"], monkeypatch) == 0
    shown = capsys.readouterr()
    assert "every request carries $OPENAI_API_KEY" in shown.err
    kept = [path.read_bytes() for path in Path("results").rglob("*") if path.is_file()]
    assert len(kept) > 5
    assert not any(b"s3cr3t" in text for text in (*kept, shown.out.encode(), shown.err.encode()))


def test_where_one_lonely_request_misses_the_slo_the_search_ends_there(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("quick.yaml").write_text(SLO.replace("2.0", "0.000001"))
    assert tune([*command, "--json"], monkeypatch) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["meets_slo"], told["best"], told["holds_up_to"]) == (False, None, None)
    assert [probe["missed"]["ttft_s"] for probe in told["probes"]] == [12]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["--rate", "2", "--users", "2"], "give one of them", id="two loads"),
        pytest.param(["--workload", "8000x8"], "the model takes 4,096", id="prompts longer than it takes"),
        pytest.param(["--model", "other"], "it serves: qwen-7b", id="another model"),
        pytest.param(["--rate", "nan"], "not a finite number", id="no number"),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(
    command: list[str],
    words: Sequence[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tune([*command, *words], monkeypatch) == 2
    assert message in capsys.readouterr().err


def test_ctrl_c_stops_the_load_and_leaves_the_server(server: str, command: list[str], tmp_path: Path) -> None:
    typed = [*command, "--rate", "4", "--requests", "4000", "--out", "mine"]
    out, err = interrupted(typed, tmp_path, lambda: kept(Path("mine")) == 1 and requests_running(server) > 0)
    assert "goodput             —, no load was measured to its end" in out and "Traceback" not in err
    until(lambda: not marked(MARK, str(tmp_path)))
    until(lambda: requests_running(server) == 0)


def test_ctrl_c_keeps_and_concludes_from_what_finished_probes_found(command: list[str], tmp_path: Path) -> None:
    out, _ = interrupted([*command, "--out", "mine", "--json"], tmp_path, lambda: kept(Path("mine")) >= 3)
    told = json.loads(out)
    assert told["interrupted"] and told["meets_slo"]
    assert len(told["probes"]) == kept(Path("mine")) - 1
    assert json.loads(Path("mine", "summary.json").read_text()) == told
    order, probes = read_bench(Path("mine")).order, stored(Path("mine"))[:3]
    stop = Cut("user", "Ctrl-C", OpenLoop(65.6))
    shown = benched_text(replace(concluded(order, "vllm", probes), cut=stop), order)
    assert "stopped             at 65.6 req/s, after 2 probes; the search had not ended" in shown


def test_a_server_that_dies_in_mid_search_leaves_what_was_found_and_where_it_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "quick.yaml").write_text(SLO)
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path) as server:
        url = str(server.client.base_url)
        command = ["bench", "--url", url, "--slo", "quick.yaml", "--out", "mine"]

        def dies() -> None:
            until(lambda: kept(Path("mine")) >= 3)
            server.process.kill()

        code, out, _ = ended([*command], tmp_path, dies)
    told = json.loads(Path("mine", "summary.json").read_text())
    assert code == 4 and not told["interrupted"]
    assert told["cut_short"]["by"] == "server" and "the server is gone" in told["cut_short"]["why"]
    assert len(told["probes"]) == kept(Path("mine")) - 1 >= 2
    assert f"  the server died     at {told['cut_short']['load']['rate_rps']:.3g}" in out.replace(",", "")
    assert "goodput " in out and out.endswith("\n  timings             mine\n")


def test_what_is_to_come_is_said_first_and_one_load_says_whether_it_meets_the_slo(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("quick.yaml").write_text(SLO.replace("2.0", "0.000001"))
    assert tune([*command, "--users", "1", "--requests", "8", "--json"], monkeypatch) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["meets_slo"] is False
    assert shown.err.index("to come: 12 requests one at a time, then about 8") < shown.err.index("one at a time: ")
    assert "in place of poisson arrivals" in shown.err


def interrupted(command: Sequence[str], folder: Path, when: Callable[[], bool]) -> tuple[str, str]:
    """What `tune` printed on stdout and stderr that got Ctrl-C at this moment."""
    code, out, err = ended(command, folder, lambda: until(when), signal.SIGINT)
    assert code == 130
    return out, err


def ended(command: Sequence[str], folder: Path, wait: Callable[[], None], number: int = 0) -> tuple[int, str, str]:
    """The exit code of `tune`, and what it printed on stdout and stderr, that gets this signal after this wait."""
    typed, environment = [sys.executable, "-m", "tuner", *command], {**os.environ, MARK: str(folder)}
    with subprocess.Popen(typed, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        wait()
        one.send_signal(number)
        out, err = one.communicate(timeout=60)
    return one.returncode, out, err


def kept(folder: Path) -> int:
    """How many probes are on disk."""
    return len(stored(folder))


def stored(folder: Path) -> tuple[StoredProbe, ...]:
    return read_bench(folder).probes if (folder / "bench.yaml").exists() else ()


def requests_running(server: str) -> float:
    lines = httpx.get(f"{server}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))
