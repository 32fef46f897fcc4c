"""Probes of a fake server: requests, the load generator's replay of them, and what the server saw."""

import json
from typing import Any

import httpx
import numpy as np
import psutil

from tests.fakes import openai_server as fake
from tuner.load.replay import Endpoint, Supervision, replay
from tuner.load.validity import Tolerance
from tuner.requestlog import RequestLog
from tuner.requests import Requests, Segment
from tuner.target import Load, Window

OUTPUT_TOKENS = 5
PLAIN = fake.prompt_tokens(fake.plain)
PATIENCE_S = 30.0
PATIENT = Tolerance(lag_s=PATIENCE_S)
# Wide enough for any machine that runs tests; errors of the clock's origin or unit are far larger.
CLOCK_ERROR_S = 0.5


def journal(url: str) -> dict[str, Any]:
    """What the fake server has seen since it was last asked: `entries`, and `most_in_flight`."""
    told: dict[str, Any] = json.loads(httpx.get(f"{url}/journal", timeout=30).text)
    return told


def requests_for(*prompt_tokens: int, turns: int = 1, think_s: float = 0.0, gap: float = 0.0) -> Requests:
    """One request for each length of a prompt, in sessions of so many turns. The length says what the server does."""
    n = len(prompt_tokens)
    session = np.arange(n) // turns
    return Requests(
        seed=0,
        prompt_tokens=np.array(prompt_tokens),
        output_tokens=np.full(n, OUTPUT_TOKENS),
        session=session,
        unit_gaps=np.full(int(session[-1]) + 1, gap),
        think_s=np.where(np.arange(n) % turns == 0, 0.0, think_s),
        segments=tuple((Segment(row, tokens),) for row, tokens in enumerate(prompt_tokens)),
    )


def a_window(**overrides: float) -> Window:
    return Window(**{"warmup_s": 0.0, "measure_s": 60.0, "timeout_s": PATIENCE_S} | overrides)


def look_after(**overrides: Any) -> Supervision:
    values = {"watch": lambda log: None, "check_alive": lambda: None, "tolerance": PATIENT}
    return Supervision(**values | overrides)


def run(url: str, requests: Requests, load: Load, window: Window | None = None, **supervision: Any) -> RequestLog:
    endpoint = Endpoint(url, "fake", 4096)
    return replay(endpoint, requests, load, window or a_window(), look_after(**supervision))


def workers_left() -> list[int]:
    """The load workers that still run under this process."""
    return [child.pid for child in psutil.Process().children() if "tuner.load.worker" in child.cmdline()]
