"""Models: sizes from our files and from config.json, and whether an engine could be started on them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tuner.config.catalog import load, load_model
from tuner.config.model import Model, model_from_config_json
from tuner.errors import ConfigError

QWEN = {"num_hidden_layers": 28, "hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4,
        "intermediate_size": 18944, "vocab_size": 152064, "max_position_embeddings": 32768,
        "torch_dtype": "bfloat16", "tie_word_embeddings": False}  # fmt: skip
COMPRESSED_FP8 = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {
        "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
        "input_activations": {"num_bits": 8, "type": "float", "dynamic": True},
    }},
}  # fmt: skip


def _from(raw: object, folder: Path) -> Model:
    (folder / "config.json").write_text(raw if isinstance(raw, str) else json.dumps(raw))
    return model_from_config_json("m", str(folder), folder / "config.json")


@pytest.mark.parametrize(
    "name, billions",
    [("qwen-7b", 7.62), ("qwen3-8b", 8.19), ("qwen3-32b", 32.76), ("llama-8b", 8.03), ("llama-70b", 70.55),
     ("mistral-7b", 7.25), ("tiny", 0.00498)],
)  # fmt: skip
def test_parameters_are_those_of_the_model_card(name: str, billions: float) -> None:
    assert load(Model, name).architecture.parameters / 1e9 == pytest.approx(billions, rel=0.003)


def test_a_config_json_gives_the_same_sizes_as_our_file(tmp_path: Path) -> None:
    assert _from(QWEN, tmp_path).architecture == load(Model, "qwen-7b").architecture


def test_kv_bytes_are_two_vectors_per_kv_head_and_layer() -> None:
    assert load(Model, "qwen-7b").architecture.kv_bytes_per_token(2) == 2 * 28 * 4 * 128 * 2


@pytest.mark.parametrize("name, tp, divides", [
    ("qwen-7b", 4, True), ("qwen-7b", 8, False), ("llama-70b", 8, True), ("llama-70b", 16, True), ("tiny", 2, True),
    ("tiny", 8, False),
])  # fmt: skip
def test_gpus_must_divide_the_heads(name: str, tp: int, divides: bool) -> None:
    assert load(Model, name).architecture.divides(tp) is divides


@pytest.mark.parametrize(
    "change, field, value",
    [
        pytest.param({"head_dim": 64}, "head_dim", 64, id="head size said outright"),
        pytest.param({"num_key_value_heads": None}, "kv_heads", 28, id="no grouped queries"),
        pytest.param({"tie_word_embeddings": True}, "tied_embeddings", True, id="tied"),
        pytest.param({"torch_dtype": "float32"}, "weight_bytes", 2.0, id="engines load float32 as 16 bits"),
        pytest.param({"quantization_config": {"quant_method": "awq", "bits": 4}}, "weight_bytes", 0.5, id="awq"),
        pytest.param({"quantization_config": {"quant_method": "fp8"}}, "weight_bytes", 1.0, id="fp8"),
        pytest.param({"quantization_config": {"quant_method": "compressed-tensors",
                      "config_groups": {"group_0": {"weights": {"num_bits": 8}}}}}, "weight_bytes", 1.0,
                     id="compressed tensors"),
        pytest.param({"quantization_config": {"quant_method": "fp8"}}, "weight_format", "fp8", id="dynamic scales"),
        pytest.param({"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}}, "weight_format",
                     "fp8_static", id="static scales"),
        pytest.param({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
                     "weight_format", "fp8_block", id="scales per block"),
        pytest.param({"quantization_config": COMPRESSED_FP8}, "weight_format", "fp8", id="compressed floats"),
        pytest.param({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "weight_format", None,
                     id="8-bit integers"),
        pytest.param({"model_type": "qwen3"}, "qk_norm", True, id="normalised queries and keys"),
        pytest.param({"max_position_embeddings": 8192}, "max_context", 8192, id="context"),
    ],
)  # fmt: skip
def test_a_config_json_is_read_as_the_engines_read_it(
    change: dict[str, Any], field: str, value: Any, tmp_path: Path
) -> None:
    assert getattr(_from(QWEN | change, tmp_path).architecture, field) == value


def test_a_multimodal_config_is_read_by_its_text_part(tmp_path: Path) -> None:
    assert _from({"text_config": QWEN, "vision_config": {}}, tmp_path).architecture.layers == 28


@pytest.mark.parametrize(
    "raw, message",
    [
        pytest.param({k: v for k, v in QWEN.items() if k != "hidden_size"}, "no hidden_size; a dense decoder's "
                     "config.json is needed", id="a size is missing"),
        pytest.param({"model_type": "diffusion"}, "no num_hidden_layers, hidden_size, num_attention_heads, "
                     "intermediate_size, vocab_size; a dense decoder's config.json is needed", id="no LLM"),
        pytest.param(QWEN | {"num_experts": 128}, "num_experts says mixture of experts; only dense models are known "
                     "so far", id="mixture of experts"),
        pytest.param(QWEN | {"num_hidden_layers": "many"}, "layers: should be a valid integer, unable to parse "
                     "string as an integer, found 'many'", id="a size that is none"),
        pytest.param("{", "cannot be read as JSON: Expecting property name enclosed in double quotes: line 1 "
                     "column 2 (char 1)", id="no JSON"),
        pytest.param([1], "a JSON object is expected, found list", id="no object"),
    ],
)  # fmt: skip
def test_a_config_json_that_cannot_be_used_is_told(raw: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as mistake:
        _from(raw, tmp_path)
    assert str(mistake.value) == f"{tmp_path / 'config.json'}: {message}"


def test_a_local_model_must_be_there_before_an_engine_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOODTUNE_TINY_MODEL", str(tmp_path / "tiny"))
    with pytest.raises(ConfigError) as mistake:
        load_model("tiny").check_servable()
    path = tmp_path / "tiny"
    assert str(mistake.value) == (
        f"model 'tiny': {path} is no directory with a config.json; make it with `python scripts/make_tiny_model.py "
        f"{path}`, or set GOODTUNE_TINY_MODEL to another directory"
    )
    path.mkdir()
    (path / "config.json").write_text("{}")
    load_model("tiny").check_servable()


def test_a_model_of_the_hub_is_left_to_the_engine() -> None:
    load_model("qwen-7b").check_servable()
