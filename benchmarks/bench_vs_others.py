"""Whether `tune bench` and guidellm see the same attainment of the same server.

    python benchmarks/bench_vs_others.py --guidellm PATH/guidellm [--rates 8,16,18] [--seconds 90] [--repeats 1]
        [--out benchmarks/bench_vs_others.md]

One simulated vLLM (Qwen2.5-7B on an H100, a process of its own in real time) is offered the same requests by both,
one after the other: `tune bench --rate`, and guidellm replaying a trace of just those arrival times and lengths.
Limits are on TTFT and on TPOT, which both can tell: TPOT is what guidellm calls inter-token latency, (last − first
token)/(tokens − 1). Its figures are those of its own report, request by request; counted are the requests that
`tune bench` counts, those due inside its window, and one that did not end well is bad for both.

guidellm sends texts and the simulated server takes four characters for a token, so guidellm is given a tokenizer
whose tokens are characters, and prompts four times as long in them.
"""

import argparse
import json
import os
import platform
import socket
import string
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from tuner.config.catalog import load
from tuner.config.slo import Slo
from tuner.config.workload import Workload
from tuner.seeds import Purpose, derive
from tuner.workload.build import build

BAR = 0.02
MODEL, CONTEXT, SEED = "qwen-7b", 16384, 20261121
CHARS_PER_TOKEN = 4
WARMUP_S, TIMEOUT_S, TAIL_S = 10.0, 60.0, 15.0
WORKLOAD = """
title: Chat with short answers
source: the chat preset's prompts; answers shortened to take less time
prompt: {p50: 1020, p90: 2735, cap: 8192}
output: {p50: 60, p90: 120, cap: 200}
"""
SLO = f"""
title: TTFT and TPOT
source: limits that both tools can express
workload: chat
attainment: 0.9
limits: {{ttft_s: 0.2, tpot_s: 0.03}}
warmup_s: {WARMUP_S}
window_s: SECONDS
timeout_s: {TIMEOUT_S}
"""


@dataclass(frozen=True)
class Job:
    """Where things lie, and how long a window is."""

    folder: Path
    guidellm: str
    seconds: float

    @property
    def slo(self) -> Path:
        """The SLO's file."""
        return self.folder / "limits.yaml"

    @property
    def workload(self) -> Path:
        """The workload's file."""
        return self.folder / "short-answers.yaml"


@dataclass(frozen=True)
class Seen:
    """One load: attainment by both, and the medians of TTFT and TPOT in ms by both."""

    rate_rps: float
    counted: int
    ours: float
    theirs: float
    our_ms: tuple[float, float]
    their_ms: tuple[float, float]

    @property
    def points(self) -> float:
        """How far they are apart, in points."""
        return 100 * abs(self.ours - self.theirs)


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guidellm", required=True, help="guidellm's executable")
    parser.add_argument("--rates", default="8,16,18")
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="goodtune-bench-") as folder:
        job = Job(Path(folder), options.guidellm, options.seconds)
        _write_inputs(job)
        with _server() as url:
            rates = [float(rate) for rate in options.rates.split(",")] * options.repeats
            seen = [_compare(job, url, rate) for rate in rates]
    text = _report(seen, options.seconds, options.guidellm)
    print(text)
    if options.out:
        options.out.write_text(text)


@contextmanager
def _server() -> Iterator[str]:
    """The simulated server, ready; gone behind the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "launchers.sim.server", "vllm", "serve", "Qwen/Qwen2.5-7B-Instruct",
        "--port", str(port), "--served-model-name", MODEL, "--max-model-len", str(CONTEXT), "--sim-model", MODEL,
        "--sim-gpu", "h100",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not _is_ready(url):
                if process.poll() is not None:
                    raise SystemExit(f"the server ended with {process.returncode}: {' '.join(command)}")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


def _write_inputs(job: Job) -> None:
    """The SLO, the workload, and a tokenizer of characters."""
    job.slo.write_text(SLO.replace("SECONDS", str(job.seconds)))
    job.workload.write_text(WORKLOAD)
    model: dict[str, Any] = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "vocab": {character: number for number, character in enumerate(string.printable)}, "merges": [],
    }  # fmt: skip
    tokenizer: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": None, "post_processor": None, "decoder": {"type": "Fuse"}, "model": model,
    }  # fmt: skip
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (job.folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (job.folder / "tokenizer_config.json").write_text(json.dumps(named))


def _compare(job: Job, url: str, rate_rps: float) -> Seen:
    print(f"{rate_rps:g} req/s: tune bench", file=sys.stderr)
    ours = _tune_bench(job, url, rate_rps)
    print(f"{rate_rps:g} req/s: guidellm", file=sys.stderr)
    ttft_s, tpot_s = _guidellm(job, url, rate_rps)
    limits = load(Slo, str(job.slo)).limits
    assert limits.ttft_s is not None and limits.tpot_s is not None
    good = (ttft_s <= limits.ttft_s) & (tpot_s <= limits.tpot_s)
    if len(good) != ours["requests"]:
        raise SystemExit(f"{ours['requests']} requests counted by tune bench, {len(good)} were due in its window")
    return Seen(
        rate_rps=rate_rps,
        counted=len(good),
        ours=ours["attainment"],
        theirs=float(good.mean()),
        our_ms=(ours["ttft_s"]["p50"] * 1e3, ours["tpot_s"]["p50"] * 1e3),
        their_ms=(float(np.nanmedian(ttft_s)) * 1e3, float(np.nanmedian(tpot_s)) * 1e3),
    )


def _tune_bench(job: Job, url: str, rate_rps: float) -> dict[str, Any]:
    """The point that `tune bench` prints."""
    asked = round(rate_rps * job.seconds / 1.1)
    command = [
        sys.executable, "-m", "tuner", "bench", "--url", url, "--slo", str(job.slo), "--workload", str(job.workload),
        "--rate", str(rate_rps), "--requests", str(asked), "--seed", str(SEED), "--json",
        "--out", str(job.folder / f"bench-{rate_rps:g}"),
    ]  # fmt: skip
    point: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return point


def _guidellm(job: Job, url: str, rate_rps: float) -> tuple[np.ndarray, np.ndarray]:
    """TTFT and TPOT in seconds of every request due in the window, NaN where it did not end well."""
    due_s, prompt_tokens, output_tokens = _offered(job, rate_rps)
    trace, path = job.folder / "trace.jsonl", job.folder / "guidellm.json"
    with trace.open("w") as file:
        for at_s, prompt, output in zip(due_s, prompt_tokens, output_tokens, strict=True):
            row = {"timestamp": at_s, "input_length": CHARS_PER_TOKEN * int(prompt), "output_length": int(output)}
            file.write(json.dumps(row) + "\n")
    data = {"kind": "trace_synthetic", "source": {"kind": "json_file", "path": str(trace)}}
    command = [
        job.guidellm, "run", "--backend",
        f"kind=openai_http,target={url},model={MODEL},request_format=/v1/completions",
        "--profile", "kind=replay,schedule_turn=timestamp", "--data", json.dumps(data),
        "--tokenizer", f"kind=huggingface_auto,model={job.folder}", "--output", f"kind=json,path={path}",
        "--disable-console",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GUIDELLM__MAX_WORKER_PROCESSES": "2"}
    environment.pop("PYTHONPATH", None)
    subprocess.run(command, env=environment, check=True, capture_output=True)
    (found,) = json.loads(path.read_text())["benchmarks"]
    by_due = {
        round(one["info"]["settings"]["relative_timestamp"] + due_s[0], 6): one
        for one in found["requests"]["successful"]
    }
    counted = [round(at_s, 6) for at_s in due_s if WARMUP_S <= at_s < WARMUP_S + _window_s(job, rate_rps)]
    ended = [by_due.get(at_s, {}) for at_s in counted]
    ttft_s = [one.get("time_to_first_token_ms", np.nan) / 1e3 for one in ended]
    # An answer of one token has no gap: it cannot miss the limit.
    tpot_s = [(one.get("inter_token_latency_ms", np.nan) or 0.0) / 1e3 for one in ended]
    return np.array(ttft_s), np.array(tpot_s)


def _offered(job: Job, rate_rps: float) -> tuple[list[float], np.ndarray, np.ndarray]:
    """When the requests that `tune bench` offers are due, to a microsecond, and their lengths in tokens."""
    workload = load(Workload, str(job.workload)).fitted(CONTEXT)
    until_s = WARMUP_S + job.seconds + TAIL_S
    requests = build(workload, derive(SEED, Purpose.SEARCH), int(2 * rate_rps * until_s))
    due_s = np.cumsum(requests.unit_gaps) / rate_rps
    kept = due_s < until_s
    return due_s[kept].tolist(), requests.prompt_tokens[kept], requests.output_tokens[kept]


def _window_s(job: Job, rate_rps: float) -> float:
    """How long `tune bench` takes for the requests it was asked for."""
    return 1.1 * round(rate_rps * job.seconds / 1.1) / rate_rps


def _report(seen: Sequence[Seen], seconds: float, guidellm: str) -> str:
    version = subprocess.run([guidellm, "--version"], check=True, capture_output=True, text=True).stdout.split()[-1]
    between = any(0.5 <= one.ours <= 0.9 and 0.5 <= one.theirs <= 0.9 for one in seen)
    holds = all(one.points <= 100 * BAR for one in seen) and between
    rows = [
        f"| {one.rate_rps:g} | {one.counted:,} | {one.ours:.1%} | {one.theirs:.1%} | {one.points:.1f} | "
        f"{one.our_ms[0]:.1f} / {one.their_ms[0]:.1f} | {one.our_ms[1]:.2f} / {one.their_ms[1]:.2f} |"
        for one in seen
    ]
    return "\n".join([
        "# `tune bench` beside another tool",
        "",
        f"`python benchmarks/bench_vs_others.py --seconds {seconds:g}`, {date.today()}, guidellm {version},",
        f"{_machine()}.",
        "",
        "Both offered the same requests at the same times to the same simulated vLLM (Qwen2.5-7B, H100, in real",
        "time), one after the other. A request is good with TTFT ≤ 200 ms and TPOT ≤ 30 ms.",
        "",
        "| req/s | requests | in SLO: tune bench | guidellm | points apart | TTFT p50, ms | TPOT p50, ms |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Bar: within {100 * BAR:g} points at every load, one of them between 50 and 90 %: "
        f"**{'held' if holds else 'missed'}**.",
        "",
    ])  # fmt: skip


def _machine() -> str:
    cores, busy = len(os.sched_getaffinity(0)), os.getloadavg()[2]
    return f"{cores} {platform.machine()} cores shared with others (load average {busy:.1f})"


if __name__ == "__main__":
    main()
