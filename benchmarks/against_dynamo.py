"""Our vLLM order against an independent simulator, NVIDIA Dynamo's offline replay, on the same traces and step times.

    python -m venv dynamo && dynamo/bin/pip install --no-deps ai-dynamo==1.1.1 ai-dynamo-runtime==1.1.1
    dynamo/bin/pip install numpy
    python benchmarks/against_dynamo.py dynamo/bin/python vllm/bin/python [--out benchmarks/against_dynamo.md]

with $GOODTUNE_TINY_MODEL (scripts/make_tiny_model.py): vLLM's own scheduler, run without a model, says who is right.

A step takes 6 ms if it computes prompts, and 10 ms if anybody gets a token, in both. Later versions of ai-dynamo need
a package whose wheels are not on PyPI.
"""

import argparse
import json
import subprocess
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from launchers.sim.orders import PLANS
from launchers.sim.scheduler import add, finish, new_scheduler
from launchers.sim.settings import SimSettings
from launchers.sim.state import Scheduler, chunk_times_s

HERE = Path(__file__).parent
VLLM_SIDE = HERE.parent / "tests" / "engines" / "vllm_schedule.py"
PROMPT_MS, TOKEN_MS = 6.0, 10.0
BLOCK = 16
REQUESTS = 1000
SHARED_BLOCKS = 40
COMPARED = ("duration_ms", "mean_ttft_ms", "p99_ttft_ms", "max_ttft_ms", "mean_e2e_latency_ms", "max_itl_ms")
ROOMY = SimSettings(max_batch=64, token_budget=2048, kv_tokens=16 * 16384, max_model_len=8192, block_tokens=BLOCK)


@dataclass(frozen=True)
class Case:
    """A server, how fast requests come (1/s), and how many documents their prompts begin with (0: none)."""

    name: str
    settings: SimSettings
    rate_rps: float
    documents: int = 0


CASES = (
    Case("idle", ROOMY, 2.0),
    Case("busy", ROOMY, 25.0),
    Case("batch of 8", replace(ROOMY, max_batch=8), 6.0),
    Case("budget of 256: prompts in pieces", replace(ROOMY, token_budget=256), 12.0),
    Case("9,600 tokens of cache", replace(ROOMY, kv_tokens=600 * BLOCK), 12.0),
    Case("20 shared documents, cached", replace(ROOMY, prefix_caching=True), 25.0, documents=20),
    Case(
        "20 shared documents, 19,200 tokens of cache",
        replace(ROOMY, prefix_caching=True, kv_tokens=1200 * BLOCK),
        12.0,
        20,
    ),
)

Trace = list[tuple[float, int, int, list[int]]]


def main() -> None:
    """Replay every case both ways, print, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dynamo_python")
    parser.add_argument("vllm_python")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    asked = parser.parse_args()
    cases = [(case, trace(case)) for case in CASES]
    theirs = said_by(asked.dynamo_python, HERE / "dynamo_replay.py", [to_dynamo(*case) for case in cases])
    played = said_by(asked.vllm_python, VLLM_SIDE, [to_vllm(*case) for case in cases])
    real = [
        report(one["times"], one["preemptions"], requests) for one, (_, requests) in zip(played, cases, strict=True)
    ]
    shown = table([ours(*case) for case in cases], real, theirs)
    asked.out.write_text(shown, encoding="utf-8")
    print(shown)


def trace(case: Case) -> Trace:
    """Poisson arrivals in whole milliseconds, lognormal lengths; the blocks of each prompt have names."""
    rng = np.random.default_rng(1)
    due_ms = np.round(np.cumsum(rng.exponential(1e3 / case.rate_rps, REQUESTS)))
    prompts = np.clip(rng.lognormal(6.0, 0.7, REQUESTS), 1, 3000).astype(int)
    answers = np.clip(rng.lognormal(4.0, 0.7, REQUESTS), 2, 800).astype(int)
    documents = rng.integers(0, max(case.documents, 1), REQUESTS)
    requests: Trace = []
    fresh = 10_000_000
    for due, prompt, answer, document in zip(due_ms, prompts, answers, documents, strict=True):
        shared = SHARED_BLOCKS if case.documents else 0
        blocks = shared + -(-int(prompt) // BLOCK)
        own = list(range(fresh, fresh + blocks - shared))
        fresh += len(own)
        names = [1000 * int(document) + j for j in range(shared)] + own
        requests.append((float(due), shared * BLOCK + int(prompt), int(answer), names))
    return requests


def said_by(python: str, script: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What `script` makes of the cases in an environment of its own."""
    done = subprocess.run(
        [python, str(script)], input=json.dumps(cases), stdout=subprocess.PIPE, text=True, check=True
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def to_vllm(case: Case, requests: Trace) -> dict[str, Any]:
    names = ("max_batch", "token_budget", "block_tokens", "max_model_len", "chunked_prefill", "long_prefill_tokens")
    values = {name: getattr(case.settings, name) for name in (*names, "prefix_caching", "drafts", "blocks")}
    times = {"prompt_ms": PROMPT_MS, "token_ms": TOKEN_MS}
    asked = [(due, answer, text(prompt, blocks)) for due, prompt, answer, blocks in requests]
    return values | times | {"accepted": 0, "requests": asked}


def text(prompt: int, blocks: list[int]) -> list[int]:
    """Token ids of a prompt whose blocks have these names."""
    return [name * BLOCK + j for name in blocks for j in range(BLOCK)][:prompt]


def to_dynamo(case: Case, requests: Trace) -> dict[str, Any]:
    engine = {
        "block_size": BLOCK,
        "num_gpu_blocks": case.settings.blocks,
        "max_num_seqs": case.settings.max_batch,
        "max_num_batched_tokens": case.settings.token_budget,
        "enable_prefix_caching": case.settings.prefix_caching,
        "enable_chunked_prefill": case.settings.chunked_prefill,
    }
    return {"engine": engine, "requests": requests, "prompt_ms": PROMPT_MS, "token_ms": TOKEN_MS}


def ours(case: Case, requests: Trace) -> dict[str, float]:
    """What our order makes of the case."""
    s = new_scheduler(case.settings, shares_prefixes=case.settings.prefix_caching)
    plan = PLANS[case.settings.policy]
    coming = iter(requests)
    due = next(coming, None)
    now_ms = 0.0
    while True:
        while due and due[0] <= now_ms:
            add(s, due[1], due[2], names=due[3][: due[1] // BLOCK])
            due = next(coming, None)
        _, _, prompts, answers, _ = plan(s)
        if prompts or answers:
            now_ms += step_ms(s, answers)
            finish(s, now_ms)
            s.ended.clear()
        elif due:
            now_ms = due[0]
        else:
            return report([chunk_times_s(s, i) for i in range(len(requests))], s.preemptions, requests)


def step_ms(s: Scheduler, answers: int) -> float:
    tokens_come = answers or any(s.computed[i] + new == s.target[i] for i, new in s.chunks)
    return (PROMPT_MS if s.chunks else 0.0) + (TOKEN_MS if tokens_come else 0.0)


def report(times_ms: list[list[float]], preemptions: int, requests: Trace) -> dict[str, float]:
    """Token times of every request under the names of Dynamo's report."""
    times = [np.array(one) for one in times_ms]
    ttft_ms = np.array([one[0] - due for one, (due, *_) in zip(times, requests, strict=True)])
    e2e_ms = np.array([one[-1] - due for one, (due, *_) in zip(times, requests, strict=True)])
    return {
        # Dynamo's clock begins with the first arrival.
        "duration_ms": float(max(one[-1] for one in times) - requests[0][0]),
        "mean_ttft_ms": float(ttft_ms.mean()),
        "p99_ttft_ms": float(np.percentile(ttft_ms, 99, method="nearest")),
        "max_ttft_ms": float(ttft_ms.max()),
        "mean_e2e_latency_ms": float(e2e_ms.mean()),
        "max_itl_ms": max(float(np.diff(one).max()) for one in times),
        "preemptions": preemptions,
    }


def table(mine: list[dict[str, float]], real: list[dict[str, float]], theirs: list[dict[str, float]]) -> str:
    head = (
        "| case | preempted | " + " | ".join(name.removesuffix("_ms").replace("_", " ") for name in COMPARED) + " |"
    )
    rows = []
    for case, our, vllms, their in zip(CASES, mine, real, theirs, strict=True):
        assert our == vllms, (case, our, vllms)
        cells = [cell(our[name], their[name]) for name in COMPARED]
        rows.append(f"| {case.name} | {our['preemptions']:.0f} | " + " | ".join(cells) + " |")
    return (
        "# Our vLLM order against Dynamo's offline replay\n\n"
        f"{REQUESTS} requests a case; steps of {PROMPT_MS:g} ms for prompts and {TOKEN_MS:g} ms for tokens in both. "
        "Milliseconds, ours / Dynamo's, and the difference where there is one: only where the cache is too small. "
        "vLLM 0.32's own scheduler gives our figures to the digit in every case.\n\n"
        f"ai-dynamo 1.1.1; {date.today().isoformat()}; "
        "`python benchmarks/against_dynamo.py dynamo/bin/python vllm/bin/python`\n\n"
        f"{head}\n{'|---' * (len(COMPARED) + 2)}|\n" + "\n".join(rows) + "\n"
    )


def cell(our: float, their: float) -> str:
    if abs(our - their) < 0.01:
        return f"{our:,.1f}"
    return f"{our:,.1f} / {their:,.1f} ({our / their - 1:+.1%})"


if __name__ == "__main__":
    main()
