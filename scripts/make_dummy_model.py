"""Make a directory that an engine serves with `--load-format dummy`: a model's true sizes, a tokenizer, no weights.

    python scripts/make_dummy_model.py OUT [--model qwen-7b]

For a box on which a model's weights are not to be had. The time of a dense model's steps does not depend on the
values of its weights; what it says does, and so does which guesses of a speculator it accepts. The sizes are those of
search_spaces/models/NAME.yaml, a Qwen2's. OUT gets config.json and a tokenizer with a word for every token, 3 MB.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from launchers.tinymodel import SPECIAL, added_tokens, qwen2_config, tokenizer_config
from tuner.config.catalog import load
from tuner.config.model import Architecture, Model

# Where Qwen2.5 has its special tokens; a vocabulary too small for that has them at its end.
FIRST_SPECIAL = 151_643


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="qwen-7b", help="a name of search_spaces/models (default: qwen-7b)")
    asked = parser.parse_args()
    architecture = load(Model, asked.model).architecture
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, content in documents(architecture).items():
        (asked.out / name).write_text(json.dumps(content), encoding="utf-8")
    print(
        f"{asked.out}: {architecture.parameters / 1e9:.2f} billion weights to be made up, {architecture.vocab} tokens"
    )


def documents(architecture: Architecture) -> dict[str, dict[str, Any]]:
    """Every file of the directory by its name."""
    sizes = {
        "hidden_size": architecture.hidden,
        "intermediate_size": architecture.intermediate,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "max_position_embeddings": architecture.max_context,
        "vocab_size": architecture.vocab,
        "tie_word_embeddings": architecture.tied_embeddings,
    }
    first = min(FIRST_SPECIAL, architecture.vocab - len(SPECIAL))
    tokens = {"bos_token_id": first, "eos_token_id": first + 2}
    return {
        "config.json": qwen2_config(sizes, tokens),
        "generation_config.json": {**tokens, "pad_token_id": first},
        "tokenizer.json": word_tokenizer(architecture.vocab, first),
        "tokenizer_config.json": tokenizer_config(architecture.max_context),
    }


def word_tokenizer(vocab: int, first_special: int) -> dict[str, Any]:
    """A word for every token, so that every token that is sampled streams some text."""
    words = [f"w{number}" for number in range(vocab)]
    words[first_special : first_special + len(SPECIAL)] = SPECIAL
    return {
        "version": "1.0",
        "added_tokens": added_tokens(first_special),
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(words)},
            "unk_token": words[0],
        },
    }


if __name__ == "__main__":
    main()
