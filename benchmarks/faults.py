"""Faults on order: whole studies in which one thing goes wrong each, and what became of them.

    python benchmarks/faults.py [--only WORD] [--out benchmarks/faults.md]

Every study is a `tune` of three trials on simulated servers in real time (or on a box with fake GPUs), so small that
it takes 20 seconds. The fault strikes the second server unless it says otherwise. A study that pauses is resumed when
what was wrong is mended. Exits 1 unless every fault was called what it is, every study came to its end, no process
was left behind and no finished trial was measured again or lost. Takes about 15 minutes.
"""

import argparse
import os
import platform
import re
import signal
import sys
from datetime import date
from pathlib import Path
from typing import Any

from faulty_studies import SIMULATED, Case, Row, run_case
from strikes import (
    GPU_ENVIRONMENT,
    GPU_OPTIONS,
    IDLE,
    STOLEN,
    all_well,
    driver_says,
    give_back_port,
    gpu_box,
    kill,
    no_large_files,
    no_room_for,
    room_again,
    signal_tuner,
    stall_worker,
    steal_port,
)

OK = ""


def server(name: str, fault: str, kind: str, state: str = "infeasible", *more: str, **overrides: Any) -> Case:
    """A fault ordered of the second server, and of those behind it as told."""
    return Case(name, kind, state, starts=(OK, fault, *more), **overrides)


CASES = (
    server("no memory for the weights", "oom-at-start", "out-of-memory-weights"),
    server("no memory for the KV cache", "oom-at-kv", "out-of-memory-kv-cache"),
    server("no memory for the graphs", "oom-at-graphs", "out-of-memory-graphs"),
    server("exits at start without a known reason", "exit-at-start", "exited-at-start"),
    server("hangs at start", "hang-at-start", "start-timeout", options=(*SIMULATED, "--start-timeout", "5s")),
    server("drips its health, byte by byte", "drip", "start-timeout", options=(*SIMULATED, "--start-timeout", "5s")),
    server("crashes at its 20th step", "crash-at-step:20", "died-under-load"),
    server("hangs at its 20th step", "hang-at-step:20", "hung-under-load"),
    server("ends every answer at its half", "truncate", "bad-answers"),
    server("breaks off every answer", "cut", "bad-answers"),
    server("sends garbage for events", "garbage", "bad-answers"),
    server("answers HTTP 500", "errors:1", "bad-answers"),
    server("answers HTTP 500 from its 60th request on", "errors:60", "", "measured"),
    server("refuses connections from its 60th request on", "refuse:60", "", "measured"),
    server("GPU lost, by its log, once", "gpu-lost-at-step:20", "gpu-lost", "failed"),
    server(
        "GPU lost, by its log, twice", "gpu-lost-at-step:20", "gpu-lost", "failed", "gpu-lost-at-step:20",
        end="paused",
    ),
    Case("GPU lost while a finalist is measured again", "", "measured", starts=(OK, OK, OK, "gpu-lost-at-step:20")),
    Case(
        "GPU lost while a finalist is measured again, twice", "", "measured", "paused",
        starts=(OK, OK, OK, "gpu-lost-at-step:20", "gpu-lost-at-step:20"),
    ),
    server("SIGKILL, once", "kill-at-step:20", "killed", "failed"),
    server("SIGKILL under one configuration, twice", "kill-at-step:20", "killed", "failed", "kill-at-step:20"),
    Case("SIGKILL of the server from outside", "killed", "failed", strike=kill("launchers.sim.server")),
    Case("SIGKILL of the server's guardian", "killed", "failed", strike=kill("guardian.py")),
    Case("SIGKILL of a load worker", "", "measured", strike=kill("tuner.load.worker")),
    Case("load worker without CPU for 1 s", "", "measured", strike=stall_worker),
    Case("SIGKILL of the tuner", "", "measured", "killed", strike=signal_tuner(signal.SIGKILL)),
    Case("SIGTERM of the tuner", "", "measured", "interrupted", strike=signal_tuner(signal.SIGTERM)),
    Case("Ctrl-C", "", "measured", "interrupted", strike=signal_tuner(signal.SIGINT)),
    Case(
        "port stolen between two trials", "port-in-use", "failed", "paused", strike=steal_port, mend=give_back_port,
        options=(*SIMULATED, "--port", STOLEN),
    ),
    Case(
        "disk full: outcome.json", "", "measured", "paused", prepare=no_room_for(".outcome.json.partial"),
        mend=room_again,
    ),
    Case("disk full: raw timings", "", "measured", prepare=no_room_for("requests.partial"), mend=room_again),
    Case(
        "disk full: server.log", "disk-full", "failed", prepare=no_room_for("server.log"), mend=room_again,
    ),
    Case("disk full: study.db", "", "measured", "paused", strike=no_large_files),
    Case(
        "a GPU in use at the start", "", "-", "refused", options=GPU_OPTIONS, environment=GPU_ENVIRONMENT,
        prepare=gpu_box({"used_gib": 30.5, "processes": [[1, 30.0]]}),
    ),
    Case(
        "somebody computes on the GPU between two trials", "gpu-in-use", "failed", "paused", options=GPU_OPTIONS,
        environment=GPU_ENVIRONMENT, prepare=gpu_box(IDLE), mend=all_well,
        strike=driver_says({"used_gib": 9.0, "processes": [[1, 8.5]]}),
    ),
    Case(
        "GPU memory does not come back", "gpu-in-use", "failed", "paused", options=GPU_OPTIONS,
        environment=GPU_ENVIRONMENT, prepare=gpu_box(IDLE), strike=driver_says({"used_gib": 30.0}), mend=all_well,
    ),
    Case(
        "GPU lost, by its driver", "gpu-lost", "failed", "paused", options=GPU_OPTIONS, environment=GPU_ENVIRONMENT,
        prepare=gpu_box(IDLE), strike=driver_says({"lost": True}), mend=all_well,
    ),
)  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| fault | called | trial | study | resumed | measured | lost | orphans | s | what the user reads |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        said = row.said.replace("|", "·").replace("<", "&lt;")
        mark = "" if row.is_as_intended else " **not as intended**"
        lines.append(
            f"| {row.case.name}{mark} | {row.kind or '-'} | {row.state} | {row.end} | {row.resumed} | "
            f"{row.finished} | {row.lost} | {row.orphans} | {row.took_s:.0f} | {_short(said)} |"
        )
    return "\n".join(lines)


def _short(text: str) -> str:
    plain = re.sub(r"\S*goodtune-fault-\w+/", "", text)
    return plain if len(plain) <= 260 else f"{plain[:257]}..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases with this word in their name")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    # What a shell starts in the background ignores Ctrl-C, and so would the tuners.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rows: list[Row] = []
    for case in CASES:
        if asked.only in case.name:
            rows.append(run_case(case))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    good = sum(row.is_as_intended for row in rows)
    if asked.out:
        about = f"{date.today().isoformat()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        head = f"# Faults\n\nBy `python benchmarks/faults.py`, {about}: {good} of {len(rows)} as intended.\n\n"
        asked.out.write_text(f"{head}{EXPLAINED}\n\n{table(rows)}\n", encoding="utf-8")
    sys.exit(0 if good == len(rows) else 1)


EXPLAINED = """\
Each row is a study of three trials in which the fault strikes the second server, unless it says otherwise. *called*
and *trial*: what the first trial with a failure was called and how it ended (`infeasible`: the configuration's fault,
learned from; `failed`: the box's, tried again; `measured` without a name: the study took it). *measured*: trials with
a value at the end. *lost*: finished trials that were not there, or not the same, after the study was resumed."""


if __name__ == "__main__":
    main()
