"""The command line: one clear message for each mistake, instant help, and a contract on stdout."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from launchers.sim.calibration import store
from tests.builders import a_calibration
from tuner import record
from tuner.cli import main
from tuner.cli.planning import Options, duration_s, plan_from
from tuner.errors import ConfigError

HEAVY = {"numpy", "pandas", "optuna", "pyarrow", "pydantic", "rich", "altair", "scipy", "httpx", "yaml"}
CHAT = ["--model", "qwen-7b", "--slo", "chat"]
SLO = "title: t\nsource: a test\nworkload: 256x32\nattainment: 0.9\nlimits: {ttft_s: 0.3}\nwarmup_s: 1\nwindow_s: 4\n"


def tune(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run `tune` here and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["tune", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with an SLO file, a broken one, and no engine on PATH."""
    (tmp_path / "quick.yaml").write_text(SLO)
    (tmp_path / "typo.yaml").write_text(SLO.replace("ttft_s", "tftt_s"))
    (tmp_path / "taken").write_text("a file where a folder should be")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("GOODTUNE_VLLM", "GOODTUNE_SGLANG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        pytest.param(["--model", "qwen-77b", "--slo", "chat"], ["no model named 'qwen-77b' (did you mean 'qwen-7b'?)",
                     "there is: ", "llama-8b"], id="wrong model name"),
        pytest.param(["--model", "some/model", "--slo", "chat"], ["some/model", "HF_HUB_OFFLINE"],
                     id="unknown hub id"),
        pytest.param(["--model", "qwen-7b", "--slo", "chta"], ["no slo named 'chta' (did you mean 'chat'?)"],
                     id="wrong SLO name"),
        pytest.param(["--model", "qwen-7b", "--slo", "typo.yaml"], ["typo.yaml", "unknown key 'tftt_s'",
                     "did you mean 'ttft_s'?", "allowed: "], id="wrong YAML key"),
        pytest.param([*CHAT, "--knob", "token_budget=8192..256"],
                     ["--knob token_budget=8192..256", "write the smaller bound first"], id="impossible knob range"),
        pytest.param([*CHAT, "--knob", "tp=3"], ["tp", "28 heads", "1, 2, 4"],
                     id="impossible knob value"),
        pytest.param([*CHAT, "--knob", "token_bugdet=512"],
                     ["no such knob", "did you mean 'token_budget'?"], id="wrong knob"),
        pytest.param([*CHAT, "--engine", "vlm"], ["--engine vlm", "there is: ", "vllm"],
                     id="wrong engine name"),
        pytest.param([*CHAT, "--gpu", "cpu"], ["vllm is not installed", "GOODTUNE_VLLM",
                     "--simulate"], id="missing engine"),
        pytest.param([*CHAT, "--engine-bin", "nowhere"], ["nowhere", "there is no vllm"],
                     id="wrong engine path"),
        pytest.param([*CHAT, "--out", "taken/study"], ["taken/study", "cannot be written"],
                     id="unwritable folder"),
        pytest.param([*CHAT, "--workload", "trace.csv"], ["trace.csv"],
                     id="missing trace"),
        pytest.param([*CHAT, "--budget", "soon"], ["--budget soon", "2h, 90m"],
                     id="no duration"),
        pytest.param([*CHAT, "--budget", "0"], ["--budget 0", "no time at all"], id="no budget at all"),
        pytest.param([*CHAT, "--slo-scale", "nan"], ["--slo-scale", "not a finite number"], id="no scale"),
        pytest.param([*CHAT, "--attainment", "nan"], ["--attainment", "not a finite number"], id="no attainment"),
        pytest.param([*CHAT, "--engine", "vllm,vllm"], ["--engine vllm,vllm", "once"], id="an engine twice"),
        pytest.param([*CHAT, "--set", "max-num-seqs=64"], ["the knob max_batch_size", "--knob max_batch_size="],
                     id="a knob set behind its back"),
        pytest.param([*CHAT, "--knob", "tp=1", "--knob", "tp=2"], ["tp was given before"], id="a knob twice"),
        pytest.param([*CHAT, "--gpus", "0,0"], ["--gpus 0,0", "each named once"],
                     id="one GPU twice"),
        pytest.param([*CHAT, "--sampler", "magic"], ["no such sampler", "tpe, random"],
                     id="wrong sampler"),
        pytest.param([*CHAT, "--resume"], ["no study", "--out"], id="nothing to resume"),
        pytest.param(["--model", "llama-70b", "--slo", "chat", "--gpus", "1"], ["131 GiB", "do not fit on 1 × H100"],
                     id="a model too large for the box"),
        pytest.param(["--model", "qwen-7b"], ["--slo missing"], id="no SLO"),
        pytest.param(["--modle", "qwen-7b"], ["'--modle'", "--model", "tune --help"], id="wrong option"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_message_and_exit_2(
    words: list[str],
    messages: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert tune(words, monkeypatch) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert shown.err.startswith("tune: ")
    for message in messages:
        assert message in " ".join(shown.err.split())


def test_a_study_that_is_refused_is_told_by_its_one_message_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "study").mkdir()
    (folder / "study" / "plan.yaml").write_text("study: another\n")
    assert tune([*CHAT, "--plain", "--out", "study"], monkeypatch) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("tune: study: there is a study here already")


def test_a_busy_port_is_told_before_a_server_is_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        words = [*CHAT, "--simulate", "served", "--port", str(port)]
        assert tune(words, monkeypatch) == 2
    assert f"port {port} of 127.0.0.1 cannot be used" in capsys.readouterr().err


def test_json_puts_exactly_one_object_on_stdout_and_progress_on_stderr(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--model",
        "qwen-7b",
        "--slo",
        "quick.yaml",
        "--gpus",
        "1",
        "--trials",
        "3",
        "--seeds",
        "2",
        "--workers",
        "1",
    ]
    page = folder / "page.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert tune([*words, "--json", "--out", "study"], monkeypatch) in {0, 3, 4}
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert summary == json.loads((folder / "study" / "summary.json").read_text())
    assert summary["schema"] == 1 and summary["simulated"] is True and summary["trials"]["total"] == 3
    assert "\x1b" not in shown.err and "\r" not in shown.err
    assert "study.start" in shown.err.splitlines()[0] and "simulated=virtual" in shown.err.splitlines()[0]
    assert page.read_text().startswith("```text\n") and "3 tried" in page.read_text()
    assert (folder / "study" / "report.html").exists()


def test_help_names_every_option_with_an_example_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['tune', '--help']\n"
        "from tuner.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "tune --model qwen-7b --slo chat" in done.stdout
    for option in ("--engine", "--knob", "--budget", "--resume", "--json", "--simulate"):
        assert option in done.stdout
    assert not HEAVY & set(done.stderr.split())


@pytest.mark.parametrize("kind", ["models", "slos", "workloads", "engines", "knobs", "gpus"])
def test_list_shows_every_name(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(["list", kind], monkeypatch) == 0
    expected = {"models": "qwen-7b", "slos": "chat", "workloads": "rag", "engines": "sglang", "knobs": "token_budget",
                "gpus": "h100"}  # fmt: skip
    assert expected[kind] in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["engines", "knobs"])
@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_default_engine_is_listed_first(
    kind: str, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert tune(["list", kind], monkeypatch) == 0
    shown = [line.split()[0].partition(".")[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert shown.index("vllm") < min(shown.index("sglang"), shown.index("tgi"))


LISTED = pytest.mark.parametrize(
    "words", [["list", "knobs"], ["list", "models"], ["--help"]], ids=["long", "short", "help"]
)


@LISTED
def test_a_reader_that_has_gone_ends_a_command_quietly(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "tuner", *words], stdout=closed, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")


@LISTED
def test_a_full_disk_under_stdout_is_one_message(words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tuner", *words], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (2, b"tune: stdout cannot be written: No space left on device\n")


def test_doctor_says_what_this_machine_can_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(["doctor"], monkeypatch) in {0, 1}
    shown = capsys.readouterr().out
    assert "CPU core" in shown and "vllm is not installed" in shown


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("45", 45), ("0.5h", 1800)]
)
def test_a_budget_is_a_duration(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2 hours", "-1h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no duration"):
        duration_s(text)


def test_options_scale_limits_and_set_attainment(folder: Path) -> None:
    plan = plan_from(Options(model="qwen-7b", slo="chat", slo_scale=0.5, attainment=0.9)).plan
    assert (plan.slo.limits.ttft_s, plan.slo.limits.itl_s, plan.slo.attainment) == (0.1, 0.025, 0.9)


def test_without_a_gpu_a_box_of_eight_h100s_is_simulated(folder: Path) -> None:
    plan = plan_from(Options(model="qwen-7b", slo="chat")).plan
    assert (plan.box.title, plan.box.simulation, plan.trials) == ("8 × H100", "virtual", 64)


def test_a_default_that_cannot_start_is_noted_and_the_study_may_go_on(folder: Path) -> None:
    """llama-70b's weights fit on two H100s, but not the KV cache of its longest context as well."""
    planned = plan_from(Options(model="llama-70b", slo="summarization", engines="vllm,sglang"))
    assert any("default will not start on this box" in note for note in planned.notes)


def test_the_model_for_cpus_is_simulated_only_with_a_word_on_what_was_probably_meant(folder: Path) -> None:
    notes = plan_from(Options(model="tiny", slo="tiny", out=folder / "study")).notes
    assert any("none was found: name one with --engine-bin" in note for note in notes)
    asked = plan_from(Options(model="tiny", slo="tiny", simulate="virtual", out=folder / "study")).notes
    assert not any("--engine-bin" in note for note in asked)


@pytest.mark.parametrize(
    ("engine", "flag", "longest"),
    [("vllm", "max-model-len", 4096), ("sglang", "context-length", 4096), ("sglang", "max-total-tokens", 32768)],
)
def test_only_an_engines_own_flag_limits_the_context(folder: Path, engine: str, flag: str, longest: int) -> None:
    """TGI calls by --max-total-tokens what SGLang calls the size of its KV cache."""
    options = Options(model="qwen-7b", slo="chat", workload="1024x128", engines=engine, flags=(f"{flag}=4096",))
    assert plan_from(options).plan.workload.max_model_len == longest


def test_any_engine_flag_can_be_passed_on(folder: Path) -> None:
    plan = plan_from(Options(model="qwen-7b", slo="chat", flags=("max-model-len=8192", "enforce-eager"))).plan
    assert plan.extra_flags == ("--max-model-len", "8192", "--enforce-eager")


def test_a_limited_context_limits_the_prompts_too(folder: Path) -> None:
    plan = plan_from(Options(model="qwen-7b", slo="chat", flags=("max-model-len=4096",))).plan
    assert plan.workload.max_model_len == 4096


def test_resume_takes_the_latest_study_of_this_model_and_slo_only(folder: Path) -> None:
    for name in ("2026-01-01-qwen-7b-code", "2026-01-02-qwen-7b-code-gen"):
        (folder / "results" / name).mkdir(parents=True)
        (folder / "results" / name / "plan.yaml").write_text("")
    plan = plan_from(Options(model="qwen-7b", slo="code", resume=True)).plan
    assert plan.out.name == "2026-01-01-qwen-7b-code"


@pytest.mark.usefixtures("no_calibrations")
@pytest.mark.parametrize(
    "gpu, simulate, said",
    [
        pytest.param("h100", "virtual", r"from table .*; \+1\.\d ms per step, start 38 s", id="table"),
        pytest.param(
            "l40s", "virtual", r"from roofline, uncalibrated .*; \+3\.\d ms per step, start 38 s", id="roofline"
        ),
        pytest.param("h100", "served", r"from table .*; \+1\.\d ms per step", id="served, which starts at once"),
    ],
)
def test_a_simulation_says_in_one_line_what_it_adds_to_its_kernels(gpu, simulate, said):
    notes = plan_from(Options(model="qwen-7b", slo="chat", gpu=gpu, simulate=simulate)).notes
    (note,) = [note for note in notes if "step times" in note]
    assert re.fullmatch(rf"vLLM: step times {said}", note)


@pytest.mark.usefixtures("no_calibrations")
def test_a_simulation_says_what_calibrated_it_and_a_resumed_one_keeps_that(folder: Path) -> None:
    shipped = plan_from(Options(model="qwen-7b", slo="chat"))
    assert any("calibrated on 30 probes of Qwen3-32B TP2 on H100, vLLM" in note for note in shipped.notes)
    store(a_calibration())
    planned = plan_from(Options(model="qwen-7b", slo="chat", out=folder / "mine"))
    assert any("step times from table" in note and "34 probes of a-study" in note for note in planned.notes)
    assert planned.plan.calibrations == {"vllm": a_calibration()}
    record.prepare(planned.plan.out, resume=False)
    record.write_plan(planned.plan)
    store(a_calibration(measured="another"))
    again = plan_from(Options(model="qwen-7b", slo="chat", out=folder / "mine", resume=True)).plan
    assert again.calibrations == planned.plan.calibrations
    record.check_same_plan(again)


def test_a_second_study_of_a_day_gets_a_folder_of_its_own(folder: Path) -> None:
    first = plan_from(Options(model="qwen-7b", slo="chat")).plan.out
    first.mkdir(parents=True)
    assert plan_from(Options(model="qwen-7b", slo="chat")).plan.out == first.with_name(f"{first.name}-2")
