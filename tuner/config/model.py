"""Model: what the tuner must know of a language model, from our own file or from its config.json.

Dense decoders only: the sizes of a mixture of experts would need more keys than these.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tuner.config.strict import Strict, parse, shown
from tuner.errors import ConfigError

# Model types of dense decoders with a norm on queries and keys, as their Hugging Face implementations have it.
QK_NORMED = {"qwen3", "gemma3", "gemma3_text", "olmo2"}


class Architecture(Strict):
    """The sizes that decide memory and step time. `weight_bytes` is bytes per parameter (2 for bf16, 1 for fp8).

    `hidden` is the width of a layer's input, `head_dim` of one attention head (`heads` of them need not make up
    `hidden`), `intermediate` of the gated MLP; fewer `kv_heads` than `heads` is grouped-query attention;
    `tied_embeddings`: input and output share one matrix; `max_context` is prompt plus answer, tokens; `qk_norm`:
    queries and keys are normalised. `weight_format`: 8-bit floats scaled per tensor or channel, activations as they
    come (`fp8`) or in advance (`fp8_static`), or per block; None is any other format.
    """

    layers: int = Field(gt=0)
    hidden: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    intermediate: int = Field(gt=0)
    vocab: int = Field(gt=0)
    tied_embeddings: bool = False
    max_context: int = Field(gt=0)
    weight_bytes: float = Field(default=2.0, gt=0)
    weight_format: Literal["fp8", "fp8_static", "fp8_block"] | None = None
    qk_norm: bool = False

    @property
    def parameters(self) -> int:
        """Weights of a dense decoder: attention, gated MLP and embeddings; norms and biases are left out."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        embeddings = self.vocab * self.hidden * (1 if self.tied_embeddings else 2)
        return self.layers * (attention + 3 * self.hidden * self.intermediate) + embeddings

    def kv_bytes_per_token(self, dtype_bytes: float) -> float:
        """Bytes of KV cache one token takes over all layers, before tensor parallelism divides it."""
        return 2 * self.layers * self.kv_heads * self.head_dim * dtype_bytes

    def divides(self, tp: int) -> bool:
        """Whether `tp` GPUs can share the heads: both engines need heads, and KV heads or their copies, to divide."""
        kv_fits = self.kv_heads % tp == 0 or tp % self.kv_heads == 0
        return self.heads % tp == 0 and kv_fits and self.intermediate % tp == 0


class DraftModel(Strict):
    """A trained speculator: the engines' method name and where its weights are."""

    method: Literal["eagle", "eagle3"]
    path: str


class Model(Strict):
    """A model that can be served. `path` is what the engine is given: a Hugging Face id or a directory.

    `path_variable` is an environment variable that, where set, takes the place of `path`; `made_by` is the command
    that makes the directory `path`, for models that are not on any hub.
    """

    name: str = ""
    title: str
    source: str = ""
    path: str
    path_variable: str | None = None
    made_by: str | None = None
    architecture: Architecture
    draft: DraftModel | None = None

    def located(self) -> "Model":
        """This model with the `path` that the environment names, if it names one."""
        path = os.environ.get(self.path_variable, self.path) if self.path_variable else self.path
        return self.model_copy(update={"path": path})

    def check_servable(self) -> None:
        """Raises ConfigError if the model is a local directory that is not there: only a real engine needs it."""
        is_local = self.made_by is not None or self.path.startswith(("/", "./", "../", "~"))
        if not is_local or (Path(self.path).expanduser() / "config.json").is_file():
            return
        make = f"; make it with `{self.made_by} {self.path}`" if self.made_by else ""
        other = f", or set {self.path_variable} to another directory" if self.path_variable else ""
        raise ConfigError(f"model '{self.name}': {self.path} is no directory with a config.json{make}{other}")


def model_from_config_json(name: str, path: str, config_file: Path) -> Model:
    """A model from the `config.json` of a Hugging Face directory.

    Raises ConfigError if it is no JSON, lacks a size, or describes a mixture of experts.
    """
    try:
        raw = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(config_file)}: cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{shown(config_file)}: a JSON object is expected, found {type(raw).__name__}")
    return Model(
        name=name,
        title=name,
        source=str(config_file),
        path=path,
        architecture=_architecture(raw, config_file),
    )


def _architecture(raw: dict[str, Any], where: Path) -> Architecture:
    text = raw.get("text_config") or raw
    experts = [key for key in ("num_experts", "num_local_experts", "n_routed_experts") if text.get(key)]
    if experts:
        raise ConfigError(f"{shown(where)}: {experts[0]} says mixture of experts; only dense models are known so far")
    needed = ["num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size"]
    missing = [key for key in needed if not text.get(key)]
    if missing:
        raise ConfigError(f"{shown(where)}: no {', '.join(missing)}; a dense decoder's config.json is needed")
    heads = text["num_attention_heads"]
    quantization = raw.get("quantization_config") or {}
    sizes = {
        "layers": text["num_hidden_layers"],
        "hidden": text["hidden_size"],
        "heads": heads,
        "kv_heads": text.get("num_key_value_heads") or heads,
        "head_dim": text.get("head_dim") or text["hidden_size"] // heads,
        "intermediate": text["intermediate_size"],
        "vocab": text["vocab_size"],
        "tied_embeddings": bool(text.get("tie_word_embeddings", raw.get("tie_word_embeddings", False))),
        "max_context": text.get("max_position_embeddings", 4096),
        "weight_bytes": _weight_bits(quantization) / 8,
        "weight_format": _weight_format(quantization),
        "qk_norm": text.get("model_type") in QK_NORMED,
    }
    return parse(Architecture, sizes, where)


def _weight_bits(quantization: dict[str, Any]) -> int:
    """Bits per weight: 16 unless quantised, float32 files included, since both engines load those as 16 bits.

    AWQ and GPTQ say `bits`, compressed-tensors `num_bits` in a group; fp8 says its name.
    """
    groups = quantization.get("config_groups") or {}
    said = [quantization.get("bits"), *((group.get("weights") or {}).get("num_bits") for group in groups.values())]
    if quantization.get("quant_method") == "fp8":
        said.append(8)
    return next((int(bits) for bits in said if bits), 16)


def _weight_format(quantization: dict[str, Any]) -> str | None:
    """Which 8-bit floats the weights are, or None: fp8 checkpoints of Hugging Face's kind and compressed-tensors."""
    if quantization.get("quant_method") == "fp8":
        is_static = quantization.get("activation_scheme") == "static"
        return _scaled(bool(quantization.get("weight_block_size")), is_static)
    for group in (quantization.get("config_groups") or {}).values():
        weights, activations = group.get("weights") or {}, group.get("input_activations") or {}
        if weights.get("type") == "float" and weights.get("num_bits") == activations.get("num_bits") == 8:
            return _scaled(weights.get("strategy") == "block", activations.get("dynamic") is False)
    return None


def _scaled(per_block: bool, in_advance: bool) -> str:
    if per_block:
        return "fp8_block"
    return "fp8_static" if in_advance else "fp8"
