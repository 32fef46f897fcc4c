"""A soak: one study of 200 trials on simulated servers, every second of which goes wrong in some way.

    python benchmarks/soak.py [--trials 200] [--seed 0] [--out benchmarks/soak.md]

The faults are drawn with `--seed`. After each trial the tuner's memory, open descriptors, threads and child processes
are read. Behind the study nothing may be left of it, and between the first and the last quarter of the trials the
tuner must not have grown: its median memory by less than a tenth, its fewest descriptors (a server that starts has
some of its own) by none. Takes about 15 minutes on 2 cores.
"""

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psutil

from tuner import record

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent
MARK = "GOODTUNE_SOAK"
LOOK_S = 0.05
MIB = 2**20
SLO = """
title: easy
source: benchmarks/soak.py
workload: trace.yaml
attainment: 0.5
limits: {e2e_s: 5}
warmup_s: 0.1
window_s: 1
timeout_s: 8
"""
TRACE = "title: steady\nsource: benchmarks/soak.py\ntrace: trace.csv\narrivals: {kind: trace, speed: 10}\n"
STUDY = (
    *("--model", "tiny", "--slo", "easy.yaml", "--simulate", "served", "--gpus", "1", "--seeds", "2", "--plain"),
    *("--knob", "speculation=off", "--out", "study", "--start-timeout", "4s"),
)
# How often each comes; a hang takes more than a minute to be sure of.
FAULTS = {
    "": 100, "oom-at-start": 8, "oom-at-kv": 8, "oom-at-graphs": 8, "exit-at-start": 8, "hang-at-start": 6, "drip": 6,
    "crash-at-step:20": 10, "crash-at-step:200": 6, "kill-at-step:20": 8, "gpu-lost-at-step:20": 8, "truncate": 6,
    "cut": 6, "garbage": 6, "errors:1": 6, "errors:60": 4, "refuse:60": 4, "slow-start:1": 4, "hang-at-step:20": 1,
}  # fmt: skip
BOX_FAULTS = ("kill-at-step", "gpu-lost")
QUARTERS = 4
GROWTH_LIMIT = 1.10


@dataclass(frozen=True)
class Reading:
    """The tuner after so many trials."""

    trials: int
    memory_mib: float
    descriptors: int
    threads: int
    children: int


def drawn(seed: int, servers: int) -> Iterator[str]:
    """What each server is told to do wrong. The first one is well, and so is that after a fault of the box."""
    random_faults = random.Random(seed)
    fault = ""
    yield fault
    for _ in range(servers):
        was_box = fault.startswith(BOX_FAULTS)
        fault = "" if was_box else random_faults.choices(list(FAULTS), list(FAULTS.values()))[0]
        yield fault


def soaked(folder: Path, trials: int, seed: int) -> tuple[list[Reading], int]:
    """The readings of one study, and its exit code."""
    rows = [f"2026-11-16 18:17:{tenth // 10:02d}.{tenth % 10},64,8" for tenth in range(100)]
    (folder / "trace.csv").write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    (folder / "trace.yaml").write_text(TRACE)
    (folder / "easy.yaml").write_text(SLO)
    # What is behind the search, finalists are measured by servers that are well.
    (folder / "faults").write_text("".join(f"{fault}\n" for fault in drawn(seed, trials - 1)))
    own = {MARK: str(folder), "GOODTUNE_SIM_FAULT": "@faults", "XDG_DATA_HOME": str(folder / "data")}
    command = [sys.executable, "-m", "tuner", *STUDY, "--trials", str(trials)]
    with (folder / "tuner.log").open("w") as log:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **own}
        tuner = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=log)
        readings = list(_watched(tuner, folder / "study" / "trials"))
    return readings, tuner.wait()


def _watched(tuner: subprocess.Popen[bytes], trials: Path) -> Iterator[Reading]:
    """A reading at the beginning of each trial but the first: the server before it is gone."""
    process, seen = psutil.Process(tuner.pid), 0
    while tuner.poll() is None:
        ended = len(list(trials.glob("*/outcome.json")))
        if ended > seen:
            seen = ended
            with process.oneshot():
                memory_mib = process.memory_info().rss / MIB
                yield Reading(ended, memory_mib, process.num_fds(), process.num_threads(), len(process.children()))
        time.sleep(LOOK_S)


def left_behind(folder: Path) -> list[str]:
    """The command lines of processes of the study that are still alive."""
    found: list[str] = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def quarters(readings: Sequence[Reading]) -> list[Sequence[Reading]]:
    """The readings in four parts, as they came."""
    size = max(1, len(readings) // QUARTERS)
    return [readings[part * size : (part + 1) * size] for part in range(QUARTERS)]


def table(readings: Sequence[Reading]) -> str:
    """Medians, and from the lowest to the highest, by quarters of the study."""
    lines = ["| trials | memory MiB | descriptors | threads | children |", "|---|---|---|---|---|"]
    for part in quarters(readings):
        cells = [
            f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})"
            for values in (
                [one.memory_mib for one in part], [one.descriptors for one in part], [one.threads for one in part],
                [one.children for one in part],
            )
        ]  # fmt: skip
        lines.append(f"| {part[0].trials}–{part[-1].trials} | {' | '.join(cells)} |")
    return "\n".join(lines)


def is_flat(readings: Sequence[Reading]) -> bool:
    """Whether the tuner has not grown between the first and the last quarter."""
    first, *_, last = quarters(readings)
    memory = [statistics.median(one.memory_mib for one in part) for part in (first, last)]
    descriptors = [min(one.descriptors for one in part) for part in (first, last)]
    return memory[1] < GROWTH_LIMIT * memory[0] and descriptors[1] <= descriptors[0]


def plot(readings: Sequence[Reading], path: Path) -> None:
    """Memory and descriptors over the trials."""
    import altair as alt
    import pandas as pd

    rows = pd.DataFrame(
        [(one.trials, "memory, MiB", one.memory_mib) for one in readings]
        + [(one.trials, "open descriptors", float(one.descriptors)) for one in readings],
        columns=["trials", "what", "value"],
    )
    lines = alt.Chart(rows).mark_line(strokeWidth=1.2).encode(
        x=alt.X("trials:Q", title="trials ended"), y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=True))
    )  # fmt: skip
    lines.properties(width=340, height=160).facet(column=alt.Column("what:N", title=None)).resolve_scale(
        y="independent"
    ).save(path)


def main() -> None:
    """Soak, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "soak.md")
    asked = parser.parse_args()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="goodtune-soak-") as name:
        folder = Path(name)
        readings, exit_code = soaked(folder, asked.trials, asked.seed)
        left, outcomes = left_behind(folder), record.read_outcomes(folder / "study")
        log = (folder / "tuner.log").read_text()
    is_good = exit_code in {0, 4} and not left and is_flat(readings)
    ended = Counter(f"{one.failure.kind} ({one.state})" if one.failure else one.state for one in outcomes)
    counts = "\n".join(f"| {what} | {count} |" for what, count in ended.most_common())
    machine = f"{date.today().isoformat()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    minutes = (time.monotonic() - began_s) / 60
    text = f"""# Soak

By `python benchmarks/soak.py --trials {asked.trials} --seed {asked.seed}`, {machine}: {len(outcomes)} trials in \
{minutes:.0f} minutes, exit code {exit_code}, {len(left)} processes left behind, \
{"flat" if is_flat(readings) else "NOT FLAT"}.

One study of simulated servers in real time, with faults drawn at random for every second server. The tuner itself,
read after each trial, by quarters of the study: median (lowest–highest). Trials that the box spoilt are tried again
and count beside the {asked.trials}.

{table(readings)}

![Memory and open descriptors of the tuner](soak.svg)

| how trials ended | |
|---|---|
{counts}
"""
    print(text, *([log[-2000:]] if not is_good else []), sep="\n")
    asked.out.write_text(text, encoding="utf-8")
    plot(readings, asked.out.with_suffix(".svg"))
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
