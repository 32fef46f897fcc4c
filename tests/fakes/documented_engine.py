"""An engine's executable that takes exactly the flags documented for it, and then serves as the simulated one does.

    documented_engine.py ENGINE ARGUMENTS...

What it was started with goes to $DOCUMENTED_ENGINE_JOURNAL, if that is set.
"""

import json
import os
import sys
from pathlib import Path

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "engine_flags.json").read_text())
OWN_SUBCOMMANDS = {"vllm": "serve", "sglang": "serve", "trtllm": "serve", "tgi": None}
BARE = {"--enable_chunked_prefill", "--trust_remote_code", "--json-output"}
"""Flags of TensorRT-LLM and TGI that take no value."""
AS_VLLM = {
    **{"--max_batch_size": "--max-num-seqs", "--max_num_tokens": "--max-num-batched-tokens", "--host": "--host"},
    **{"--tensor_parallel_size": "--tensor-parallel-size", "--max_seq_len": "--max-model-len", "--port": "--port"},
    **{"--num-shard": "--tensor-parallel-size", "--max-total-tokens": "--max-model-len", "--hostname": "--host"},
}


def flags_of(engine: str) -> list[str]:
    """The flags of the newest version that was recorded."""
    flags: set[str] = set()
    for changes in RECORDED[engine].values():
        flags = flags - set(changes["removed"]) | set(changes["added"])
    return sorted(flags)


def main(engine: str, words: list[str]) -> None:
    if "DOCUMENTED_ENGINE_JOURNAL" in os.environ:
        Path(os.environ["DOCUMENTED_ENGINE_JOURNAL"]).write_text(json.dumps(words))
    if words == ["--version"]:
        sys.exit(print(f"{engine} {list(RECORDED[engine])[-1]}"))
    if words and words[0] == OWN_SUBCOMMANDS[engine]:
        words = words[1:]
    if any(word.startswith("--help") for word in words):
        sys.exit(print("Options:\n" + "\n".join(f"  {flag}" for flag in flags_of(engine))))
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in flags_of(engine)]
    if unknown:
        sys.exit(refusal(engine, unknown[0]))
    served = words if engine in ("vllm", "sglang") else as_vllm(words)
    policy = "sglang" if engine == "sglang" else "vllm"
    server = [sys.executable, "-m", "launchers.sim.server", policy, "serve", *served, "--sim-model", "qwen-7b"]
    os.execv(sys.executable, server)


def refusal(engine: str, flag: str) -> str:
    """What its parser says: argparse's, click's or clap's words."""
    if engine == "trtllm":
        return f"Usage: trtllm-serve serve [OPTIONS] MODEL\n\nError: No such option: {flag}"
    if engine == "tgi":
        return f"error: unexpected argument '{flag}' found"
    return f"{engine}: error: unrecognized arguments: {flag}"


def as_vllm(words: list[str]) -> list[str]:
    """The words that the simulation knows under another name; the others had to be right, and that is all."""
    said: list[str] = []
    model, rest = "", list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            model = word
            continue
        value = None if word in BARE else rest.pop(0)
        if word == "--model-id":
            model = str(value)
        elif word in AS_VLLM and value is not None:
            said += [AS_VLLM[word], value]
    return [model, *said, "--served-model-name", "qwen-7b"]


main(sys.argv[1], sys.argv[2:])
