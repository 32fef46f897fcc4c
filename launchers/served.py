"""ServedTarget: a supervised server process, real or simulated, driven over HTTP by the load generator."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from launchers.cpu import usable_cores
from launchers.engine import Engine
from launchers.facts import facts_of
from launchers.ports import HOST, reserved_port
from launchers.salt import fresh_salt, salted
from launchers.scrape import Scraper, scraping
from launchers.supervisor import Launch, Server, running
from tuner.engineview import EngineFacts, view_of
from tuner.errors import MeasurementVoid
from tuner.load.replay import SEND_LAG_LIMIT_S, Endpoint, Supervision, more_workers, replay, workers_needed
from tuner.requestlog import RequestLog
from tuner.requests import Requests
from tuner.target import Load, Watch, Window

RESET_AGAIN_S = 0.1


@dataclass(frozen=True)
class Serving:
    """What to serve and how.

    `command` lacks only host, port and served name; `env` is added to ours; `port` 0 is any, `cores` () are all.
    `farewell` removes its container, if it is in one. A cache that cannot be reset within `reset_timeout_s` makes the
    measurement void, and so does a client whose sends are more than `send_lag_limit_s` late at p99.
    """

    engine: Engine
    command: tuple[str, ...]
    model: str
    vocab: int
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    cores: tuple[int, ...] = ()
    farewell: tuple[str, ...] = ()
    send_lag_limit_s: float = SEND_LAG_LIMIT_S
    reset_timeout_s: float = 30.0


@dataclass
class ServedTarget:
    """A warm server behind HTTP; implements `tuner.target.Target`. `salt` is None while prompts need none."""

    serving: Serving
    server: Server
    endpoint: Endpoint
    scraper: Scraper
    salt: int | None = None

    def replay(self, requests: Requests, load: Load, window: Window, watch: Watch) -> RequestLog:
        """As `Target.replay` says. A probe that the client spoilt is measured once more, with more workers."""
        limit_s, cores = self.serving.send_lag_limit_s, len(usable_cores())
        workers = workers_needed(requests, load, cores)
        supervision = Supervision(watch, self._look_at_server, limit_s, workers)
        try:
            return self._replay(requests, load, window, supervision)
        except MeasurementVoid as void:
            self.reset_cache()
            supervision = replace(supervision, workers=more_workers(workers, cores))
            log = self._replay(requests, load, window, supervision)
            return replace(log, client=log.client and replace(log.client, voided=str(void)))

    def _replay(self, requests: Requests, load: Load, window: Window, supervision: Supervision) -> RequestLog:
        self.scraper.begin()
        requests = requests if self.salt is None else salted(requests, self.salt)
        log = replay(self.endpoint, requests, load, window, supervision)
        self.scraper.end()
        scrapes = self.scraper.scrapes(log.began_s or 0.0)
        return replace(log, engine=view_of(scrapes, window.warmup_s, window.end_s), scrapes=scrapes)

    def _look_at_server(self) -> None:
        self.server.check_alive()
        self.scraper.pass_by()

    def reset_cache(self) -> None:
        """Forget cached prefixes. An engine refuses while requests are running, so this also waits until it is idle.

        Where the engine does not offer it, every probe gets other prompts instead. Raises MeasurementVoid if it takes
        too long, ServerFailed if the server has died.
        """
        if not self.serving.engine.reset_path:
            self.salt = fresh_salt()
            return
        url = f"{self.endpoint.base_url}{self.serving.engine.reset_path}"
        timeout_s = self.serving.reset_timeout_s
        deadline_s = time.perf_counter() + timeout_s
        with httpx.Client(timeout=timeout_s, trust_env=False) as client:
            while time.perf_counter() < deadline_s:
                self.server.check_alive()
                if _has_reset(client, url):
                    return
                self.server.guard.wait(RESET_AGAIN_S)
        raise MeasurementVoid(
            f"the prefix cache could not be reset within {timeout_s:g} s ({url}): the server is still busy, "
            "or does not offer it"
        )

    def facts(self) -> EngineFacts | None:
        """What the server says it was started with."""
        return facts_of(self.serving.engine.facts, self.endpoint.base_url, self.server.guard.log_tail())

    def clock_s(self) -> float:
        """Seconds since the server was asked to start."""
        return time.perf_counter() - self.server.started_s


@contextmanager
def open_served(serving: Serving) -> Iterator[ServedTarget]:
    """A ready server on a free port; it is gone behind the block. Raises what `supervisor.running` raises."""
    engine = serving.engine
    with reserved_port(serving.port) as port:
        base_url = f"http://{HOST}:{port}"
        name = (engine.name_flag, serving.model) if engine.name_flag else ()
        address = (engine.host_flag, HOST, "--port", str(port), *name)
        launch = Launch(
            command=(*serving.command, *engine.measuring_flags, *address),
            health_url=f"{base_url}{engine.health_path}",
            log=serving.log,
            env={**engine.measuring_env, **serving.env},
            patterns=engine.patterns,
            ready_timeout_s=engine.ready_timeout_s,
            stop_grace_s=engine.stop_grace_s,
            cores=serving.cores,
            farewell=serving.farewell,
        )
        metrics = scraping(f"{base_url}{engine.metrics_path}", engine.metrics)
        with running(launch) as server, metrics as scraper:
            yield ServedTarget(serving, server, Endpoint(base_url, serving.model, serving.vocab), scraper)


def _has_reset(client: httpx.Client, url: str) -> bool:
    """Whether the cache is empty now. vLLM answers 200 also where it has not done it, and says so in the body."""
    try:
        answer = client.post(url)
    except httpx.TransportError:
        return False
    return answer.is_success and '"success":false' not in answer.text.replace(" ", "")
