"""The figures of `client.py` as a table."""

import os
import platform
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Row:
    """One client in one scenario. `passed` is None where there is no bar."""

    scenario: str
    client: str
    figures: dict[str, float]
    wait_s: float
    passed: bool | None


COLUMNS = {
    "chunks/s": ("chunks_per_s", "{:.0f}"),
    "cores": ("cpu_cores", "{:.2f}"),
    "supervisor": ("supervisor_cores", "{:.2f}"),
    "lag p50": ("lag_p50_ms", "{:.2f}"),
    "lag p99": ("lag_p99_ms", "{:.2f}"),
    "TTFT p50 (true)": ("ttft_p50_ms", "{:.1f}"),
    "TTFT p99 (true)": ("ttft_p99_ms", "{:.1f}"),
    "ITL p99 (true)": ("itl_p99_ms", "{:.1f}"),
    "send lag p50": ("send_lag_p50_ms", "{:.2f}"),
    "drift": ("drift_ms", "{:+.2f}"),
    "server late p99": ("server_late_p99_ms", "{:.2f}"),
}


def table(rows: list[Row], how: str, bars: list[str], void: list[str]) -> str:
    """The result as Markdown; `how` it was measured, `bars` in words, `void` rounds in words."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    head = ["scenario", "client", *COLUMNS, "waited for a core", "bars"]
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *map(_cells, rows)))
    return f"""# The load generator against a known schedule

{machine}; {date.today().isoformat()}; {how}.

Times in ms. Lag: from the server's write of a chunk to the client's stamp. Cores: of the busiest worker process.
Supervisor: of the process that holds the study, which parses and scores meanwhile. Waited for a core: all worker
processes and the server together; for other clients all their threads from start to end, and the server.

{lines}

Bars:
{_list(bars)}

Void rounds (the server itself was late):
{_list(void or ["none"])}
"""


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _cells(row: Row) -> list[str]:
    cells = [row.scenario, row.client]
    for name, (key, shape) in COLUMNS.items():
        text = shape.format(row.figures[key]) if key in row.figures else "–"
        if name.endswith("(true)") and key in row.figures:
            text += f" ({shape.format(row.figures[f'true_{key}'])})"
        cells.append(text)
    return [*cells, f"{row.wait_s:.2f} s", {True: "met", False: "**missed**", None: ""}[row.passed]]
