"""What a starting vLLM did for how long: its log in, seconds by phase out. Pure. Phrases of vLLM 0.24–0.33."""

import re
from datetime import datetime

TOOK = {
    "weights_s": r"Model loading took .* ([\d.]+) seconds",
    "dynamo_s": r"Dynamo bytecode transform time: ([\d.]+) s",
    "compile_s": r"torch\.compile (?:took|takes) ([\d.]+) s in total",
    "profile_s": r"Initial profiling/warmup run took ([\d.]+) s",
    "graphs_s": r"Graph capturing finished in ([\d.]+) secs",
    "engine_s": r"init engine \(profile, create kv cache, warmup model\) took ([\d.]+) s",
}
"""What vLLM says took how long. `engine_s` holds compiling, profiling and graphs; `compile_s` holds `dynamo_s`."""

REACHED = {
    "config_at_s": r"Resolved architecture",
    "engine_at_s": r"Initializing a V1 LLM engine",
    "weights_at_s": r"Starting to load model",
    "ready_at_s": r"Application startup complete",
}
"""Moments, in seconds since the first line that has a time; the log's times are whole seconds."""

STAMPED = re.compile(r"\b(?:INFO|WARNING|ERROR|DEBUG) (\d\d-\d\d \d\d:\d\d:\d\d)")
# The log does not say the year; a leap year has every day.
SOME_YEAR = "2024"


def startup_phases(log: str) -> dict[str, float]:
    """Seconds by phase, of phases that the log speaks of; what is said several times counts the last time."""
    lines = log.splitlines()
    found: dict[str, float] = {}
    for name, pattern in TOOK.items():
        said = [float(match[1]) for line in lines if (match := re.search(pattern, line))]
        if said:
            found[name] = said[-1]
    return found | _moments(lines)


def _moments(lines: list[str]) -> dict[str, float]:
    """`ready_at_s` is said by the web server, whose lines have no time: it is that of the last line before."""
    began: datetime | None = None
    now: datetime | None = None
    found: dict[str, float] = {}
    for line in lines:
        stamp = STAMPED.search(line)
        if stamp:
            now = datetime.strptime(f"{SOME_YEAR}-{stamp[1]}", "%Y-%m-%d %H:%M:%S")
            began = began or now
        for name, pattern in REACHED.items():
            if began and now and name not in found and re.search(pattern, line):
                found[name] = (now - began).total_seconds()
    return found
