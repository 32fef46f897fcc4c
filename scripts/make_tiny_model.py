"""Make the tiny model for tests of real engines: `python scripts/make_tiny_model.py [OUT] [--seed 0]`."""

import argparse
from pathlib import Path

from launchers.tinymodel import LAYERS, VOCAB, make_tiny_model

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=Path("results/tiny-model"))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    make_tiny_model(asked.out, asked.seed)
    print(f"{asked.out}: a model of {VOCAB} tokens and {LAYERS} layers")
