import gzip
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launchers.sim.settings import SimSettings
from launchers.sim.steptable import (
    SHIPPED,
    TableKey,
    find_table,
    keep_table,
    kept_tables,
    library_installed,
    table_key,
)
from launchers.sim.steptime import step_time
from tests.builders import a_calibration, a_gpu, a_model
from tuner.cli.planning import Options, plan_from
from tuner.config.catalog import load
from tuner.config.gpu import Gpu
from tuner.config.model import Architecture, Model
from tuner.errors import NotMeasured

FAKE_LIBRARY = Path(__file__).parent / "fakes" / "kernel_library"
PRESETS = ["qwen-7b", "qwen3-8b", "qwen3-32b", "llama-8b", "llama-70b", "mistral-7b"]
CONFIG = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 512, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 64, "intermediate_size": 1024, "vocab_size": 1000,
    "max_position_embeddings": 8192,
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of one's own, and `results/` out of the way."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def compilations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The fake library, installed; yields the file in which it notes what it was asked to compile."""
    log = tmp_path / "compilations.jsonl"
    log.touch()
    monkeypatch.setenv("FAKE_KERNEL_LOG", str(log))
    monkeypatch.syspath_prepend(str(FAKE_LIBRARY))
    _forget_library()
    yield log
    _forget_library()


def _forget_library() -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "aiconfigurator_core"]:
        del sys.modules[module]
    sys.modules.pop("launchers.sim.aic", None)


def a_key(architecture: Architecture | None = None, engine: str = "vllm", gpu: str = "h100", tp: int = 1) -> TableKey:
    key = table_key(engine, gpu, architecture or an_unknown_architecture(), tp, 2.0)
    assert key
    return key


def an_unknown_architecture(**sizes: Any) -> Architecture:
    return a_model().architecture.model_copy(update={"layers": 3, **sizes})


def a_model_folder(folder: Path, **config: Any) -> str:
    directory = folder / "my-model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG | config))
    return str(directory)


def the_notes(model: str, **options: Any) -> str:
    return "\n".join(plan_from(Options(model=model, slo="chat", **options)).notes)


@pytest.mark.parametrize("gpu", ["a100", "h100", "h200"])
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("model", PRESETS)
def test_every_preset_has_a_table_for_every_tp_that_divides_its_heads(model, engine, gpu):
    architecture = load(Model, model).architecture
    for tp in (tp for tp in (1, 2, 4, 8) if architecture.divides(tp)):
        assert find_table(a_key(architecture, engine, gpu, tp)) is not None, tp


def test_what_is_shipped_is_small_and_belongs_to_a_preset():
    files = {path.name: path.stat().st_size for path in SHIPPED.glob("*.json.gz")}
    keys = [
        a_key(architecture, engine, gpu, tp).file_name
        for architecture in (load(Model, model).architecture for model in PRESETS)
        for gpu in ("a100", "h100", "h200")
        for engine in ("vllm", "sglang")
        for tp in (1, 2, 4, 8)
    ]
    assert set(files) <= set(keys)
    assert sum(files.values()) < 1.2e6


def test_the_notice_names_every_engine_version_that_is_shipped():
    notice = (SHIPPED / "NOTICE").read_text()
    for path in SHIPPED.glob("*.json.gz"):
        _, engine, version = path.name.split("-")[:3]
        assert f"{engine} {version}" in notice


@pytest.mark.parametrize(
    "gpu, engine, version",
    [
        ("h100", "vllm", "0.24.0"),
        ("h200", "sglang", "0.5.14"),
        ("a100", "vllm", "0.14.0"),
        ("a100", "sglang", "0.5.10"),
    ],
)
def test_a_table_says_which_version_of_the_engine_was_measured(gpu, engine, version):
    assert a_key(engine=engine, gpu=gpu).source == f"table aiconfigurator-core 0.12.0 {engine} {version}"


@pytest.mark.parametrize("gpu, dearer", [("h100", "a100"), ("h200", "h100")])
def test_a_gpu_with_more_bandwidth_answers_faster(gpu, dearer):
    def decode_s(name: str) -> float:
        return step_time(SimSettings(), load(Model, "qwen-7b"), load(Gpu, name)).step_s(0, 0, 0, 64, 64 * 2048)

    assert decode_s(gpu) < decode_s(dearer)


def test_a_model_of_a_presets_sizes_uses_its_table_whatever_it_is_called():
    finetune = load(Model, "qwen-7b").model_copy(update={"name": "mine", "path": "me/mine"})
    assert step_time(SimSettings(), finetune, load(Gpu, "h200")).source.startswith("table")


def test_no_two_servers_share_a_table():
    one = a_key()
    others = [
        a_key(gpu="h200"), a_key(engine="sglang"), a_key(tp=2),
        *(a_key(an_unknown_architecture(**change)) for change in (
            {"layers": 4}, {"hidden": 4096}, {"heads": 32}, {"kv_heads": 8}, {"head_dim": 64}, {"intermediate": 1024},
            {"vocab": 5}, {"qk_norm": True}, {"weight_bytes": 1.0, "weight_format": "fp8"})),
        table_key("vllm", "h100", an_unknown_architecture(), 1, 1.0),
    ]  # fmt: skip
    assert len({one.file_name, *(other.file_name for other in others if other)}) == 1 + len(others)


@pytest.mark.parametrize(
    "change",
    [{"vocab": 152064, "tied_embeddings": True}, {"max_context": 1024}],
    ids=["tied embeddings", "context length"],
)
def test_what_does_not_change_the_time_does_not_change_the_table(change):
    assert a_key(an_unknown_architecture(**change)) == a_key()


@pytest.mark.parametrize(
    "engine, gpu, change, has_key",
    [
        pytest.param("vllm", "h100", {}, True, id="16 bits"),
        pytest.param("vllm", "h100", {"weight_bytes": 1.0, "weight_format": "fp8"}, True, id="fp8"),
        pytest.param("vllm", "h100", {"weight_bytes": 1.0}, False, id="8 bits of unknown kind"),
        pytest.param("vllm", "h100", {"weight_bytes": 0.5}, False, id="4 bits"),
        pytest.param("vllm", "h100", {"weight_bytes": 1.0, "weight_format": "fp8_block"}, False, id="launch-bound"),
        pytest.param("sglang", "h100", {"weight_bytes": 1.0, "weight_format": "fp8_block"}, True, id="fp8 blocks"),
        pytest.param("vllm", "cpu", {}, False, id="a device that was not measured"),
    ],
)
def test_only_number_formats_and_gpus_that_were_measured_can_have_a_table(engine, gpu, change, has_key):
    assert (table_key(engine, gpu, an_unknown_architecture(**change), 1, 2.0) is not None) is has_key


def test_a_table_is_read_as_it_was_kept_and_nothing_else_is_left_in_the_folder():
    table = find_table(a_key(load(Model, "qwen-7b").architecture))
    assert table is not None and find_table(a_key()) is None
    path = keep_table(a_key(), table, kept_tables(), "mine")
    assert find_table(a_key()) == table
    assert [path] == list(kept_tables().iterdir())
    assert json.loads(gzip.decompress(path.read_bytes()))["model"] == "mine"


def test_a_table_half_written_is_not_taken_for_one(cache_folder):
    kept_tables().mkdir(parents=True)
    (kept_tables() / f".{a_key().file_name}.{os.getpid()}").write_bytes(b"half")
    assert find_table(a_key()) is None


def test_the_exported_table_holds_the_librarys_times(compilations):
    from launchers.sim.aic import make_table

    key = a_key(tp=2)
    keep_table(key, make_table(key), kept_tables(), "mine")
    model = a_model(architecture=an_unknown_architecture())
    calibration = a_calibration()
    steps = step_time(SimSettings(tp=2), model, a_gpu(), calibration)
    overhead_ms = calibration.per_step_s * 1e3
    # 64 answers of 1024 tokens: 1 + 0.64 ms of matrices, 64 × (0.1 + 1.024) ms of attention, on two GPUs.
    assert steps.step_s(0, 0, 0, 64, 64 * 1024) * 1e3 - overhead_ms == pytest.approx((1.64 + 71.936) / 2, rel=1e-3)
    # One prompt of 500 tokens with 1024 cached beside 10 answers: 510 tokens of matrices.
    expected_ms = (1 + 5.1 + (0.1 + 1.524) + 10 * (0.1 + 2.048)) / 2
    assert steps.step_s(500, 1024, 1, 10, 10 * 2048) * 1e3 - overhead_ms == pytest.approx(expected_ms, rel=2e-3)


@pytest.mark.parametrize(
    "engine, change, kv_bytes, asked",
    [
        ("vllm", {}, 2.0, {"gemm": "bfloat16", "kvcache": "bfloat16", "fmha": "bfloat16"}),
        ("vllm", {"weight_bytes": 1.0, "weight_format": "fp8"}, 2.0,
         {"gemm": "fp8", "kvcache": "bfloat16", "fmha": "bfloat16"}),
        ("vllm", {}, 1.0, {"gemm": "bfloat16", "kvcache": "fp8", "fmha": "bfloat16"}),
        ("sglang", {}, 1.0, {"gemm": "bfloat16", "kvcache": "fp8", "fmha": "fp8"}),
    ],
)  # fmt: skip
def test_the_library_is_told_every_number_format(engine, change, kv_bytes, asked, compilations):
    from launchers.sim.aic import make_table

    key = table_key(engine, "h200", an_unknown_architecture(**change), 2, kv_bytes)
    assert key
    make_table(key)
    (compiled,) = map(json.loads, compilations.read_text().splitlines())
    assert {name: compiled[f"{name}_quant_mode"] for name in asked} == asked
    assert (compiled["system"], compiled["tp_size"]) == ("h200_sxm", 2)


def test_what_the_library_lacks_is_said_without_its_paths(compilations):
    from launchers.sim.aic import make_table

    with pytest.raises(NotMeasured, match=r"^no attention of head_size: 80$"):
        make_table(a_key(an_unknown_architecture(head_dim=80)))


def test_a_study_of_an_unknown_model_makes_its_tables_first_and_keeps_them(compilations, tmp_path, capsys):
    model = a_model_folder(tmp_path)
    assert "step times from table aiconfigurator-core 0.12.0 vllm 0.24.0" in the_notes(model)
    assert "making 4 step-time tables of my-model with aiconfigurator-core 0.12.0" in capsys.readouterr().err
    assert len(compilations.read_text().splitlines()) == 4
    the_notes(model)
    assert len(compilations.read_text().splitlines()) == 4
    assert capsys.readouterr().err == ""


def test_a_study_of_a_preset_makes_no_table(compilations, capsys):
    assert "step times from table" in the_notes("qwen-7b", engines="vllm,sglang", gpu="h200")
    assert compilations.read_text() == capsys.readouterr().err == ""


def test_a_study_with_an_8_bit_cache_makes_the_tables_that_are_not_shipped(compilations):
    text = the_notes("qwen-7b", knobs=("kv_cache_dtype=auto,fp8", "tp=1"))
    assert "step times from table aiconfigurator-core 0.12.0 vllm 0.24.0" in text
    (compiled,) = map(json.loads, compilations.read_text().splitlines())
    assert compiled["kvcache_quant_mode"] == "fp8"


@pytest.mark.skipif(library_installed(), reason="the library is installed here")
def test_a_study_says_which_of_its_servers_have_no_table():
    text = the_notes("qwen-7b", knobs=("kv_cache_dtype=auto,fp8", "tp=1,2"))
    assert "step times from table" in text
    assert "(roofline for tp=1 with kv_cache_dtype=fp8, tp=2 with kv_cache_dtype=fp8: pip install" in text


def test_a_study_says_why_its_step_times_are_a_roofline(compilations, tmp_path):
    model = a_model_folder(tmp_path, head_dim=80)
    assert "step times from roofline, uncalibrated (aiconfigurator-core: no attention of head_size: 80)" in the_notes(
        model
    )


def test_a_cache_that_cannot_be_written_costs_only_the_table(compilations, tmp_path, cache_folder):
    cache_folder.write_text("a file where a folder should be")
    assert "roofline, uncalibrated (no table could be kept in" in the_notes(a_model_folder(tmp_path))


@pytest.mark.parametrize("gpu", ["h100", "l40s"])
@pytest.mark.skipif(library_installed(), reason="the library is installed here")
def test_without_the_library_a_study_says_how_to_get_a_table(gpu, tmp_path):
    text = the_notes(a_model_folder(tmp_path), gpu=gpu)
    assert "step times from roofline, uncalibrated (pip install aiconfigurator-core==0.12.0 and" in text
    assert not kept_tables().exists()


def test_a_format_that_nobody_measured_is_named(tmp_path):
    model = a_model_folder(tmp_path, quantization_config={"quant_method": "awq", "bits": 4})
    assert "roofline, uncalibrated (no kernels were measured for weights of 4 bits in this format)" in the_notes(
        model
    )


@pytest.mark.skipif(not library_installed(), reason="the extra aic is not installed")
def test_the_real_library_gives_the_table_that_is_shipped():
    from launchers.sim.aic import make_table

    key = a_key(load(Model, "mistral-7b").architecture, gpu="a100")
    assert make_table(key) == find_table(key)
