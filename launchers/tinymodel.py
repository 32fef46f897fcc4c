"""A Qwen2 model of 5 M random parameters with a tokenizer, to try out real engines on a CPU. Needs only numpy.

Its folder gets config.json, model.safetensors, tokenizer.json and their small companions, 10 MB in all. Its sizes are
those of search_spaces/models/tiny.yaml. The same seed makes the same bytes.
"""

import itertools
import json
import string
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LAYERS, HIDDEN, HEADS, KV_HEADS, INTERMEDIATE, VOCAB, MAX_CONTEXT = 4, 256, 4, 2, 1024, 4096, 8192
HEAD_DIM = HIDDEN // HEADS
WEIGHT_SD = 0.02
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Weights = npt.NDArray[np.float32]


def make_tiny_model(out: Path, seed: int = 0) -> None:
    """Write the model into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = make_vocabulary()
    for name, content in documents(vocabulary, merges).items():
        (out / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    write_safetensors(out / "model.safetensors", dict(make_weights(seed, vocabulary)))


def make_vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens in the order of their ids, and the pairs that merge: visible bytes, pairs, other bytes, special tokens.

    Where all logits are equal the first token wins, so that must be one that is text.
    """
    single = sorted(byte_alphabet().values(), key=lambda token: not is_text(token))
    visible = [token for token in single if is_text(token)]
    letters = string.ascii_letters + string.digits
    pairs = list(itertools.product(letters, letters))[: VOCAB - len(single) - len(SPECIAL)]
    joined = ["".join(pair) for pair in pairs]
    return [*visible, *joined, *single[len(visible) :], *SPECIAL], pairs


def byte_alphabet() -> dict[int, str]:
    """A visible character for every byte, as byte-level BPE writes them: visible ones as they are, others moved."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = itertools.count(0x100)
    return {byte: chr(byte if byte in visible else next(moved)) for byte in range(0x100)}


def documents(vocabulary: list[str], merges: list[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """The JSON files beside the weights."""
    end, _, turn_end = (vocabulary.index(token) for token in SPECIAL)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "vocab": {token: number for number, token in enumerate(vocabulary)},
        "merges": [" ".join(pair) for pair in merges],
    }
    sizes = {
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": MAX_CONTEXT,
        "vocab_size": VOCAB,
        "tie_word_embeddings": True,
    }
    tokens = {"bos_token_id": end, "eos_token_id": turn_end}
    return {
        "config.json": qwen2_config(sizes, tokens),
        "generation_config.json": {**tokens, "pad_token_id": end},
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": added_tokens(vocabulary.index(SPECIAL[0])),
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": None,
            "decoder": byte_level,
            "model": model,
        },
        "tokenizer_config.json": tokenizer_config(MAX_CONTEXT),
    }


def qwen2_config(sizes: Mapping[str, int | bool], tokens: Mapping[str, int]) -> dict[str, Any]:
    """A Qwen2's config.json: `sizes` and the ids of its special `tokens`, by their names there."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "use_sliding_window": False,
        **sizes,
        **tokens,
    }


def added_tokens(first: int) -> list[dict[str, Any]]:
    """The special tokens, with ids from `first`, as tokenizer.json lists them."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [{"id": first + place, "content": token, "special": True} | plain for place, token in enumerate(SPECIAL)]


def tokenizer_config(max_context: int) -> dict[str, Any]:
    """The tokenizer_config.json of any tokenizer with these special tokens."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_context,
        "bos_token": None,
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[0],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def make_weights(seed: int, vocabulary: list[str]) -> Iterator[tuple[str, Weights]]:
    """Every tensor of the model by its name, drawn in a fixed order."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Weights:
        return (rng.standard_normal(shape) * WEIGHT_SD).astype(np.float32)

    embeddings = normal(VOCAB, HIDDEN)
    # A token that is no whole text by itself gets no logit above another's, so that every step streams some text.
    embeddings[[number for number, token in enumerate(vocabulary) if not is_text(token)]] = 0
    yield "model.embed_tokens.weight", embeddings
    yield "model.norm.weight", np.ones(HIDDEN, np.float32)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", np.ones(HIDDEN, np.float32)
        yield f"{prefix}.post_attention_layernorm.weight", np.ones(HIDDEN, np.float32)
        for name, width in (("q", HIDDEN), ("k", HEAD_DIM * KV_HEADS), ("v", HEAD_DIM * KV_HEADS)):
            yield f"{prefix}.self_attn.{name}_proj.weight", normal(width, HIDDEN)
            yield f"{prefix}.self_attn.{name}_proj.bias", np.zeros(width, np.float32)
        yield f"{prefix}.self_attn.o_proj.weight", normal(HIDDEN, HIDDEN)
        yield f"{prefix}.mlp.gate_proj.weight", normal(INTERMEDIATE, HIDDEN)
        yield f"{prefix}.mlp.up_proj.weight", normal(INTERMEDIATE, HIDDEN)
        yield f"{prefix}.mlp.down_proj.weight", normal(HIDDEN, INTERMEDIATE)


def is_text(token: str) -> bool:
    """Whether a token is visible ASCII: the other bytes are parts of longer characters, or blank."""
    return token not in SPECIAL and all("!" <= character <= "~" for character in token)


def write_safetensors(path: Path, tensors: dict[str, Weights]) -> None:
    """Write `tensors` as bfloat16: the length of a JSON header (8 bytes), the header, the numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blocks: list[bytes] = []
    start = 0
    for name, tensor in tensors.items():
        # A bfloat16 is the upper half of a float32, little end first.
        blocks.append((tensor.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes())
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [start, start + len(blocks[-1])],
        }
        start += len(blocks[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blocks))
