"""Bench: a server that somebody else runs is measured as a trial's is, and nothing else is done to it."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from launchers.access import Access, access_of
from launchers.remote import GONE_AFTER, SAFE_VOCAB, Described, RemoteTarget, describe, open_remote
from tests.builders import a_score
from tests.fakes import openai_server as fake
from tests.processes import marked, until
from tests.replays import PLAIN, journal, requests_for
from tests.simulated import free_port, serving
from tests.test_cli import tune
from tuner.bench import Bench, bench, concluded
from tuner.benchfolder import read_bench
from tuner.cli.planning import Options, plan_from
from tuner.config.catalog import load
from tuner.config.model import Model
from tuner.config.plan import Plan
from tuner.config.workload import Arrivals
from tuner.errors import BoxUnusable, ConfigError, ServerFailed
from tuner.probe import ProbeStage
from tuner.requests import Message, Segment
from tuner.score import Score
from tuner.space import spaces_of
from tuner.target import ClosedLoop, OpenLoop, Window
from tuner.terminal.benched import benched_text, idle_line, progress_line
from tuner.trial import TrialOrder, open_for, run_trial
from tuner.workload.chats import chat_segments

SLO = """
title: quick
source: a test
workload: 128x8
attainment: 0.9
limits: {ttft_s: 2.0, tpot_s: 0.5}
warmup_s: 0.2
window_s: 1
timeout_s: 20
"""
MARK = "GOODTUNE_TEST_BENCH"
NOBODY = Access()


# Measured as a trial is: in virtual time.


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    slo = tmp_path / "quick.yaml"
    slo.write_text(SLO.replace("2.0", "0.3").replace("0.5", "0.02").replace("window_s: 1", "window_s: 4"))
    return plan_from(Options("qwen-7b", str(slo), simulate="virtual", gpus="2", out=tmp_path / "study")).plan


def an_order(plan: Plan) -> TrialOrder:
    default = spaces_of(plan)["vllm"].default
    return TrialOrder(plan, 0, default, plan.box.gpus[: default.gpus])


def test_the_load_search_gives_what_a_trial_on_the_same_server_gives(plan: Plan) -> None:
    order = an_order(plan)
    trial = run_trial(order, lambda event: None)
    with open_for(order) as target:
        found = bench(Bench(plan.workload, plan.slo, plan.seed), target, "vllm", lambda probe: None)
    assert trial.value_rps_per_gpu > 0
    assert found.outcome.value_rps_per_gpu == trial.value_rps_per_gpu
    assert (found.outcome.best, found.outcome.capacity_rps) == (trial.best, trial.capacity_rps)
    assert found.outcome.probes == trial.probes


def test_a_searched_goodput_says_that_it_is_not_confirmed_and_how_to_confirm_it(plan: Plan) -> None:
    order = Bench(plan.workload, plan.slo, seed=3)
    with open_for(an_order(plan)) as target:
        found = bench(order, target, "vllm", lambda probe: None)
    assert found.outcome.best is not None and isinstance(found.outcome.best.load, OpenLoop)
    told = benched_text(found, order)
    assert f"one search, unconfirmed; to confirm: --rate {found.outcome.best.load.rate_rps:.3g} --seed 4" in told
    assert "unconfirmed" not in benched_text(found, replace(order, load=found.outcome.best.load))
    assert max(len(line) for line in told.splitlines() if "--rate" in line) <= 80


def test_a_probe_under_way_says_how_far_it_is() -> None:
    assert progress_line(a_score(8.0, 0.995), 0.25).startswith("8.00 req/s: 25 % of the window, 99.50 % of ")
    idle = replace(a_score(8.0, 0.5), load=ClosedLoop(1), counted=6)
    assert idle_line(idle) == "one at a time: 6 of 12 requests, 50.0 % in SLO so far"


def test_figures_are_for_each_gpu_that_the_server_is_said_to_have(plan: Plan) -> None:
    values = []
    for gpus in (1, 2):
        with open_for(an_order(plan)) as target:
            order = Bench(plan.workload, plan.slo, gpus=gpus, load=OpenLoop(20.0), requests=200)
            values.append(bench(order, target, "vllm", lambda probe: None).outcome.value_rps_per_gpu)
    assert values[1] == pytest.approx(values[0] / 2)


@pytest.mark.parametrize("load_", [OpenLoop(40.0), ClosedLoop(8)], ids=["rate", "users"])
def test_one_load_is_one_whole_probe_of_about_as_many_requests_as_asked_for(
    plan: Plan, load_: OpenLoop | ClosedLoop
) -> None:
    heard: list[str] = []
    with open_for(an_order(plan)) as target:
        order = Bench(plan.workload, plan.slo, load=load_, requests=300)
        found = bench(order, target, "vllm", lambda probe: heard.append(probe.stage))
    assert heard == ["idle", "confirm"]
    (only,) = found.outcome.probes
    assert only.load == load_ and only.stopped is None
    assert only.counted == pytest.approx(300, rel=0.35)


def test_where_no_load_meets_the_slo_the_closest_is_shown(plan: Plan) -> None:
    slo = plan.slo.model_copy(update={"limits": plan.slo.limits.model_copy(update={"ttft_s": 1e-6})})
    order = Bench(plan.workload, slo)
    with open_for(an_order(plan)) as target:
        found = bench(order, target, "vllm", lambda probe: None)
    assert not found.outcome.holds_slo
    assert "no load met the SLO" in benched_text(found, order)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        pytest.param(
            {"load": OpenLoop(2.0), "workload": "batch"}, "all its requests at once", id="offline at a rate"
        ),
        pytest.param({"requests": 10}, "--rate or --users", id="requests of which load"),
    ],
)
def test_orders_that_make_no_sense_are_refused(plan: Plan, order: dict[str, Any], message: str) -> None:
    from tuner.workload.named import load_workload

    workload = load_workload(order.pop("workload", "128x8"))
    with pytest.raises(ConfigError, match=message):
        Bench(workload, plan.slo, **order).check()


# What a server says of itself.


@contextmanager
def saying(answers: dict[str, tuple[int, Any]]) -> Iterator[str]:
    """A server that answers each path with a status and JSON, and 404 to the others."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = answers.get(self.path, (404, {}))
            body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


MODELS, COMPLETIONS = "/v1/models", "/v1/completions"
ONE = {"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]}
TWO = {"data": [{"id": "m"}, {"id": "lora"}]}
OK: tuple[int, Any] = (200, {})


@pytest.mark.parametrize(
    ("answers", "model", "message"),
    [
        pytest.param({}, None, "no list of models", id="no such path"),
        pytest.param({MODELS: (200, "<html>")}, None, "no list of models", id="no JSON"),
        pytest.param({MODELS: (200, {"data": []})}, None, "no list of models", id="no model"),
        pytest.param({MODELS: (200, TWO)}, None, "several models; name one with --model: m, lora", id="which model"),
        pytest.param({MODELS: (200, ONE)}, "x", "does not serve it; it serves: m", id="another model"),
        pytest.param({MODELS: (200, ONE)}, None, "completions: not offered", id="no completions"),
        pytest.param(
            {MODELS: (200, ONE), COMPLETIONS: (400, {"error": "no token ids"})}, None, "refused .400.*no token ids",
            id="no token ids",
        ),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_measured_is_one_message(
    answers: dict[str, tuple[int, Any]], model: str | None, message: str
) -> None:
    with saying(answers) as url, pytest.raises((BoxUnusable, ConfigError), match=message):
        describe(url, model)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        pytest.param(None, "it wants a key; give --api-key or set OPENAI_API_KEY", id="none was given"),
        pytest.param("wr0ng", "it does not accept --api-key", id="another one was given"),
    ],
)
def test_a_server_that_wants_a_key_says_so(key: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    refusal = (401, {"error": f"Incorrect API key provided: {key}"})
    with saying({MODELS: refusal}) as url, pytest.raises(BoxUnusable, match=message) as refused:
        describe(url, None, key)
    assert "wr0ng" not in str(refused.value)


def test_a_key_that_the_server_repeats_is_not_shown() -> None:
    answers = {MODELS: (200, ONE), COMPLETIONS: (400, {"error": "no quota for s3cr3t"})}
    with saying(answers) as url, pytest.raises(BoxUnusable, match=r"no quota for \*\*\*"):
        describe(url, None, "s3cr3t")


def test_where_nobody_listens_it_says_so() -> None:
    with pytest.raises(BoxUnusable, match="no server answers there"):
        describe(f"http://127.0.0.1:{free_port()}", None)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "https://127.0.0.1:8000", "http://", "localhost"])
def test_an_address_is_written_with_http_and_a_host(url: str) -> None:
    with pytest.raises(ConfigError, match="write http://HOST:PORT"):
        describe(url, None)


@pytest.mark.parametrize(
    ("entry", "vocab"),
    [
        pytest.param({"id": "Qwen/Qwen2.5-7B-Instruct"}, load(Model, "qwen-7b").architecture.vocab, id="its hub id"),
        pytest.param(
            {"id": "x", "root": "qwen-7b"}, load(Model, "qwen-7b").architecture.vocab, id="where it is from"
        ),
        pytest.param({"id": "somebody/else"}, SAFE_VOCAB, id="not known here"),
    ],
)
def test_the_vocabulary_is_the_model_s_where_it_is_known_and_else_a_safe_small_one(
    entry: dict[str, str], vocab: int
) -> None:
    with saying({MODELS: (200, {"data": [entry]}), COMPLETIONS: OK}) as url:
        found = describe(f"{url}/v1/", None)
    assert (found.url, found.vocab, found.max_model_len, found.engine) == (url, vocab, None, "unknown")


@pytest.mark.parametrize(
    ("exported", "engine"),
    [
        pytest.param("vllm:num_requests_running 3\n", "vllm", id="vLLM behind any owner"),
        pytest.param("sglang:num_running_reqs 3\n", "sglang", id="SGLang"),
        pytest.param("http_requests_total 3\n", "me", id="somebody else's metrics"),
        pytest.param("<html>hello</html>", "me", id="no metrics"),
    ],
)
def test_an_engine_is_known_by_its_metrics(exported: str, engine: str) -> None:
    owned = {"data": [{"id": "m", "owned_by": "me"}]}
    with saying({MODELS: (200, owned), COMPLETIONS: OK, "/metrics": (200, exported)}) as url:
        assert describe(url, None).engine == engine


def test_a_folder_s_config_json_says_the_vocabulary(tmp_path: Path) -> None:
    sizes = {
        "vocab_size": 300, "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 128, "max_position_embeddings": 2048,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    entry = {"id": "tiny", "root": str(tmp_path), "max_model_len": 1024}
    with saying({MODELS: (200, {"data": [entry]}), COMPLETIONS: OK}) as url:
        found = describe(url, "tiny")
    assert (found.vocab, found.max_model_len) == (300, 1024)


# The server is not touched.


@contextmanager
def remote_fake(access: Access = NOBODY) -> Iterator[tuple[str, RemoteTarget]]:
    """A fake server that somebody else runs, which exports no metrics: its address, and what measures it."""
    with (
        fake.running() as (url, _),
        open_remote(Described(url, "m", "vllm", SAFE_VOCAB, None, access), send_lag_limit_s=5.0) as target,
    ):
        yield url, target


def test_no_probe_repeats_a_prompt_of_another_and_what_was_shared_is_still_shared() -> None:
    shared = Segment(7, 6)
    requests = requests_for(PLAIN, PLAIN, PLAIN)
    requests = type(requests)(**vars(requests) | {"segments": tuple((shared, Segment(i, 4)) for i in range(3))})
    with remote_fake() as (url, target):
        probes = []
        for _ in range(2):
            target.reset_cache()
            target.replay(requests, ClosedLoop(1), Window(0.0, 60.0, 20.0), lambda log: None)
            probes.append([tuple(entry["body"]["prompt"]) for entry in journal(url)["entries"]])
    assert [len(prompts) for prompts in probes] == [3, 3]
    assert all(len({prompt[:6] for prompt in prompts}) == 1 for prompts in probes)
    assert len({prompt for prompts in probes for prompt in prompts}) == 6
    assert len({prompt[:6] for prompts in probes for prompt in prompts}) == 2


def test_every_request_of_a_probe_says_who_asks() -> None:
    with remote_fake(access_of("http://127.0.0.1", "s3cr3t")[1]) as (url, target):
        target.replay(requests_for(PLAIN, PLAIN), ClosedLoop(1), Window(0.0, 60.0, 20.0), lambda log: None)
        assert [entry["authorization"] for entry in journal(url)["entries"]] == ["Bearer s3cr3t"] * 2


def test_real_text_is_marked_anew_for_each_probe() -> None:
    chats = ((Message("system", "Be brief."), Message("user", "Why?")), (Message("user", "How?"),))
    requests = replace(requests_for(5, 3), segments=chat_segments(chats), chats=chats)
    with remote_fake() as (url, target):
        begun = []
        for _ in range(2):
            target.reset_cache()
            target.replay(requests, ClosedLoop(1), Window(0.0, 60.0, 20.0), lambda log: None)
            begun.append([entry["body"]["messages"][0]["content"] for entry in journal(url)["entries"]])
    assert all(texts[0].endswith(" Be brief.") and texts[1].endswith(" How?") for texts in begun)
    assert len({text.split()[0] for texts in begun for text in texts}) == 2


def test_a_trace_at_a_given_speed_is_benched_at_that_speed_alone(plan: Plan) -> None:
    replayed = plan.workload.model_copy(update={"arrivals": Arrivals(kind="trace", speed=2.0), "trace_rate_rps": 5.0})
    with open_for(an_order(plan)) as target:
        found = bench(Bench(replayed, plan.slo), target, "vllm", lambda probe: None)
    assert [probe.load for probe in found.outcome.probes] == [OpenLoop(10.0)]


def test_a_server_that_is_gone_ends_the_measurement() -> None:
    with open_remote(Described(f"http://127.0.0.1:{free_port()}", "m", "vllm", SAFE_VOCAB, None)) as target:
        for _ in range(GONE_AFTER - 1):
            target.check_alive()
        with pytest.raises(ServerFailed, match="the server is gone"):
            target.check_alive()


def test_a_server_that_refuses_every_request_is_one_message_that_says_why(plan: Plan) -> None:
    """The fake refuses prompts of this length with HTTP 500."""
    from tuner.workload.named import load_workload

    workload = load_workload(f"{fake.HTTP_500}x4")
    refused = pytest.raises(BoxUnusable, match=r"answers no request .*out of luck")
    with remote_fake() as (_, target), refused:
        bench(Bench(workload, plan.slo, load=OpenLoop(5.0)), target, "vllm", lambda probe: None)


# The command.


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
    assert tune([*command, "--users", "2"], monkeypatch) == 0
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
    assert "stopped             after 2 probes; the search had not ended" in benched_text(
        replace(concluded(read_bench(Path("mine")).order, "vllm", stored(Path("mine"))[:3]), interrupted=True),
        read_bench(Path("mine")).order,
    )


def interrupted(command: Sequence[str], folder: Path, when: Callable[[], bool]) -> tuple[str, str]:
    """What `tune` printed on stdout and stderr that got Ctrl-C at this moment."""
    typed, environment = [sys.executable, "-m", "tuner", *command], {**os.environ, MARK: str(folder)}
    with subprocess.Popen(typed, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        until(when)
        one.send_signal(signal.SIGINT)
        out, err = one.communicate(timeout=60)
    assert one.returncode == 130
    return out, err


def kept(folder: Path) -> int:
    """How many probes are on disk."""
    return len(stored(folder))


def stored(folder: Path) -> list[tuple[ProbeStage, Score]]:
    probes = read_bench(folder).probes if (folder / "bench.yaml").exists() else ()
    return [(probe.stage, probe.score) for probe in probes]


def requests_running(server: str) -> float:
    lines = httpx.get(f"{server}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running"))
