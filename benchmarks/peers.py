"""Other clients against the same server: a loop on stock httpx, and the benchmarks that vLLM and guidellm bring.

Each gives what it saw or reports, and how long its threads waited for a core, together and from start to end.
"""

import asyncio
import json
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import numpy as np
import psutil

PATIENCE_S = 300.0
LOOK_PERIOD_S = 0.5

Sent = tuple[bytes, float, list[float]]
"""A request's body, when it was sent, and when each of its tokens came."""


def offered_by_httpx(job: dict[str, Any], cores: str, folder: Path) -> tuple[list[Sent], float]:
    """What a process with nothing but httpx saw."""
    path = folder / "httpx.pickle"
    path.write_bytes(pickle.dumps(job))
    command = ["taskset", "-c", cores, sys.executable, __file__, str(path)]
    waited_s = _run(command)
    return pickle.loads(path.with_suffix(".seen").read_bytes()), waited_s


Reported = tuple[dict[str, float], float]


def offered_by_vllm(program: str, tokenizer: str, url: str, shape: tuple[int, int, int], folder: Path) -> Reported:
    """What `vllm bench serve` reports of so many requests of so many tokens by so many users."""
    requests, tokens, users = shape
    command = [
        program, "bench", "serve", "--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions",
        "--model", "bench", "--tokenizer", tokenizer, "--dataset-name", "random", "--random-input-len", "64",
        "--random-output-len", str(tokens), "--num-prompts", str(requests), "--max-concurrency", str(users),
        "--ignore-eos", "--num-warmups", "0", "--save-result", "--save-detailed", "--result-dir", str(folder),
        "--result-filename", "vllm.json", "--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99",
        "--disable-tqdm", "--ready-check-timeout-sec", "0",
    ]  # fmt: skip
    waited_s = _run(command)
    seen = json.loads((folder / "vllm.json").read_text())
    gaps_s = np.concatenate([gaps for gaps in seen["itls"] if gaps])
    figures = {"ttft_p50_s": float(np.quantile(seen["ttfts"], 0.5)), "itl_p99_s": float(np.quantile(gaps_s, 0.99))}
    return figures, waited_s


def offered_by_guidellm(
    program: str, tokenizer: str, url: str, shape: tuple[int, int, int], folder: Path
) -> Reported:
    """What `guidellm run` reports of so many requests of so many tokens by so many users."""
    requests, tokens, users = shape
    path = folder / "guidellm.json"
    command = [
        program, "run", "--backend", f"kind=openai_http,target={url},model=bench,request_format=/v1/completions",
        "--profile", f"kind=concurrent,streams={users}", "--constraint", f"kind=max_requests,count={requests}",
        "--tokenizer", f"kind=huggingface_auto,model={tokenizer}",
        "--data", f"kind=synthetic_text,prompt_tokens=64,output_tokens={tokens}",
        "--output", f"kind=json,path={path}", "--disable-console",
    ]  # fmt: skip
    waited_s = _run(command)
    metrics = json.loads(path.read_text())["benchmarks"][0]["metrics"]
    names = ("time_to_first_token_ms", "inter_token_latency_ms")
    ttft, itl = (metrics[name]["successful"]["percentiles"] for name in names)
    return {"ttft_p50_s": ttft["p50"] / 1e3, "itl_p99_s": itl["p99"] / 1e3}, waited_s


def _run(command: list[str]) -> float:
    """Run to its end, with local files only; how long its threads waited for a core, as last seen."""
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    waited_s: dict[str, float] = {}
    deadline_s = perf_counter() + PATIENCE_S
    with subprocess.Popen(command, env=offline, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if perf_counter() > deadline_s:
                process.kill()
            waited_s |= _waits_s(process.pid)
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_PERIOD_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return sum(waited_s.values())


def _waits_s(pid: int) -> dict[str, float]:
    """How long each thread of a process and its descendants has waited for a core so far."""
    waits_s: dict[str, float] = {}
    with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        for one in (pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))):
            for schedstat in Path(f"/proc/{one}/task").glob("*/schedstat"):
                waits_s[str(schedstat)] = int(schedstat.read_text().split()[1]) * 1e-9
    return waits_s


class _Loop:
    """Closed loop of `users`, or open loop where `arrivals_s` says when; ended after `seconds`."""

    def __init__(self, job: dict[str, Any], client: httpx.AsyncClient) -> None:
        self.seen: list[Sent] = []
        self._job = job
        self._client = client
        self._bodies = iter(job["bodies"])

    async def run(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._job["seconds"]), asyncio.TaskGroup() as group:
                if "arrivals_s" in self._job:
                    group.create_task(self._arrive(group))
                else:
                    for _ in range(self._job["users"]):
                        group.create_task(self._use())

    async def _use(self) -> None:
        for body in self._bodies:
            await self._send(body)

    async def _arrive(self, group: asyncio.TaskGroup) -> None:
        started_s = perf_counter()
        for due_s, body in zip(self._job["arrivals_s"], self._bodies, strict=False):
            await asyncio.sleep(max(0.0, started_s + due_s - perf_counter()))
            group.create_task(self._send(body))

    async def _send(self, body: bytes) -> None:
        token_s: list[float] = []
        self.seen.append((body, perf_counter(), token_s))
        headers = {"content-type": "application/json"}
        async with self._client.stream("POST", self._job["url"], content=body, headers=headers) as answer:
            async for line in answer.aiter_lines():
                at_s = perf_counter()
                if line.startswith("data: {") and json.loads(line[6:])["choices"]:
                    token_s.append(at_s)


async def _offer(job: dict[str, Any]) -> list[Sent]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=None) as client:
        loop = _Loop(job, client)
        await loop.run()
        return loop.seen


if __name__ == "__main__":
    job_path = Path(sys.argv[1])
    job_path.with_suffix(".seen").write_bytes(pickle.dumps(asyncio.run(_offer(pickle.loads(job_path.read_bytes())))))
