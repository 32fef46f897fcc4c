"""The pure parts of what measures a GPU box: phases of a start, wheels in pieces, steps read off answers."""

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.logs import a_log

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "scripts"


@pytest.fixture(autouse=True)
def _scripts_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)


# Of vLLM 0.32 on a CPU; machine, process numbers and long lines left out.
LOG = """\
(APIServer pid=1) INFO 11-21 12:12:22 [model.py:733] Resolved architecture: Qwen2ForCausalLM
(EngineCore pid=2) INFO 11-21 12:12:29 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='tiny'
(Worker pid=3) INFO 11-21 12:12:39 [cpu_model_runner.py:68] Starting to load model tiny...
(Worker pid=3) INFO 11-21 12:12:39 [base_loader.py:82] Initializing model took 0.083893 seconds
(EngineCore pid=2) INFO 11-21 12:12:41 [core.py:402] init engine (profile, create kv cache, warmup model) took 0.56 s
(APIServer pid=1) INFO 11-21 12:12:42 [launcher.py:37] Available routes are:
(APIServer pid=1) INFO:     Application startup complete.
"""


def test_a_start_is_told_in_phases_and_moments() -> None:
    from startup_phases import startup_phases

    assert startup_phases(LOG) == {
        "engine_s": 0.56,
        "config_at_s": 0.0,
        "engine_at_s": 7.0,
        "weights_at_s": 17.0,
        "ready_at_s": 20.0,
    }


@pytest.mark.parametrize(
    ("said", "phase", "seconds"),
    [
        ("Model loading took 14.25 GiB memory and 1.203456 seconds", "weights_s", 1.203456),
        ("Model loading took 14.25 GiB and 1.203456 seconds", "weights_s", 1.203456),
        ("Dynamo bytecode transform time: 5.31 s", "dynamo_s", 5.31),
        ("torch.compile took 21.40 s in total", "compile_s", 21.4),
        ("Initial profiling/warmup run took 0.61 s", "profile_s", 0.61),
        ("Graph capturing finished in 4 secs, took 0.51 GiB", "graphs_s", 4.0),
        (
            "init engine (profile, create kv cache, warmup model) took 41.20 s (compilation: 21.40 s)",
            "engine_s",
            41.2,
        ),
    ],
)
def test_what_vllm_says_took_how_long_is_read(said: str, phase: str, seconds: float) -> None:
    from startup_phases import startup_phases

    assert startup_phases(f"INFO 11-21 12:00:00 [x.py:1] {said}\n") == {phase: seconds}


def test_a_log_that_says_nothing_has_no_phases() -> None:
    from startup_phases import startup_phases

    assert startup_phases("Killed\n") == {}


def a_wheel(path: Path, files: dict[str, bytes]) -> Path:
    record = "".join(f"{name},sha256=x,{len(content)}\n" for name, content in files.items())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr("a-1.dist-info/RECORD", f"{record}a-1.dist-info/RECORD,,\n")
    return path


def test_a_slim_wheel_lacks_what_was_dropped_in_its_record_too(tmp_path: Path) -> None:
    wheel = a_wheel(tmp_path / "a-1-py3-none-any.whl", {"a/__init__.py": b"", "a/kernels.so": b"x" * 1000})
    done = run(SCRIPTS / "slim_wheel.py", tmp_path / "slim", wheel, "--drop", "a/*.so")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "slim" / wheel.name) as slim:
        assert slim.namelist() == ["a/__init__.py", "a-1.dist-info/RECORD"]
        assert "kernels" not in slim.read("a-1.dist-info/RECORD").decode()


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    wheel = a_wheel(tmp_path / "a-1-py3-none-any.whl", {"a/__init__.py": b""})
    done = run(SCRIPTS / "slim_wheel.py", tmp_path / "slim", wheel, "--drop", "a/kernels*")
    assert done.returncode == 1
    assert done.stderr == "no file of these wheels matches a/kernels*\n"


def folder_of(path: Path, seed: int, files: int) -> dict[str, str]:
    """A folder of files that do not compress; their hashes."""
    path.mkdir()
    random = np.random.default_rng(seed)
    contents = {f"file-{number}.whl": random.bytes(40_000) for number in range(files)}
    for name, content in contents.items():
        (path / name).write_bytes(content)
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


@pytest.mark.parametrize("limit", ["20KiB", "64KiB", "10MiB"])
def test_folders_arrive_in_parts_that_are_small_enough(tmp_path: Path, limit: str) -> None:
    from pack_wheels import size_bytes

    sent = {name: folder_of(tmp_path / name, seed, 3) for seed, name in enumerate(("engine", "tuner"))}
    packed = run(
        SCRIPTS / "pack_wheels.py", "pack", tmp_path / "parts", *(tmp_path / name for name in sent), "--limit", limit
    )
    assert packed.returncode == 0, packed.stderr
    sizes = [part.stat().st_size for part in sorted((tmp_path / "parts").glob("part-*"))]
    assert max(sizes) <= size_bytes(limit)
    assert all(size == size_bytes(limit) for size in sizes[:-1])
    joined = run(SCRIPTS / "pack_wheels.py", "join", tmp_path / "parts", tmp_path / "out")
    assert joined.returncode == 0, joined.stderr
    for folder, hashes in sent.items():
        assert {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out" / folder).iterdir()
        } == hashes


@pytest.mark.parametrize("harm", ["lost", "cut short"])
def test_parts_that_did_not_arrive_whole_are_named_before_anything_is_written(tmp_path: Path, harm: str) -> None:
    folder_of(tmp_path / "engine", 0, 3)
    run(SCRIPTS / "pack_wheels.py", "pack", tmp_path / "parts", tmp_path / "engine", "--limit", "50KiB")
    part = tmp_path / "parts" / "part-01"
    part.unlink() if harm == "lost" else part.write_bytes(part.read_bytes()[:-1])
    joined = run(SCRIPTS / "pack_wheels.py", "join", tmp_path / "parts", tmp_path / "out")
    assert joined.returncode == 1
    assert "missing or damaged: part-01; copy them again" in joined.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_without_weights_has_the_sizes_and_as_many_words_as_tokens() -> None:
    from make_dummy_model import documents

    from tuner.config.catalog import load
    from tuner.config.model import Model

    made = documents(load(Model, "qwen-7b").architecture)
    config, tokenizer = made["config.json"], made["tokenizer.json"]
    words = tokenizer["model"]["vocab"]
    assert (config["num_hidden_layers"], config["hidden_size"], config["vocab_size"]) == (28, 3584, 152064)
    assert sorted(words.values()) == list(range(152064))
    assert all(words[token["content"]] == token["id"] for token in tokenizer["added_tokens"])
    assert words["<|im_end|>"] == config["eos_token_id"]


def test_a_decode_step_is_a_gap_while_everybody_is_answered() -> None:
    from step_probes import StepProbe, steps_s

    # The second prompt is computed until 1.0 s, which stalls the first answer; the first ends at 1.3 s.
    log = a_log([(0.0, [0.1, 0.2, 1.0, 1.1, 1.2, 1.3]), (0.0, [1.0, 1.1, 1.2, 1.3, 1.9])])
    assert steps_s(StepProbe("decode", batch=2, context=256), log) == pytest.approx([0.1] * 6)


def test_a_mixed_step_is_the_longest_gap_around_a_prompt() -> None:
    from step_probes import StepProbe, steps_s

    answer = [0.1 * step for step in range(1, 10)] + [1.15, 1.25, 1.35]
    log = a_log(
        [(0.0, answer), (0.0, answer), (0.95, [1.15])],
        prompt_tokens=np.array([1024, 1024, 512]),
    )
    assert steps_s(StepProbe("mixed", 2, 1024, 512), log) == pytest.approx([0.25])


def test_steps_of_a_probe_with_a_lost_answer_say_nothing() -> None:
    from step_probes import StepProbe, steps_s

    log = a_log([(0.0, [0.1, 0.2])], status=np.array([1]))
    assert len(steps_s(StepProbe("prefill", prompt=128), log)) == 0
