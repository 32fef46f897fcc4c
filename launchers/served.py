"""ServedTarget: a supervised server process, real or simulated, driven over HTTP by the load generator."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import httpx

from launchers.cpu import usable_cores
from launchers.engine import Engine
from launchers.facts import facts_of
from launchers.ports import HOST, reserved_port
from launchers.salt import fresh_salt, salted
from launchers.scrape import Scraper, scraping
from launchers.supervisor import Launch, Server, running
from launchers.vacancy import Vacancy
from tuner.engineview import EngineFacts, view_of
from tuner.errors import BoxUnusable, FailureKind, Fault, MeasurementVoid, ServerFailed
from tuner.load.replay import Endpoint, Supervision, more_workers, replay, workers_needed
from tuner.load.validity import Tolerance
from tuner.requestlog import RequestLog, Status
from tuner.requests import Requests
from tuner.target import Load, Watch, Window

RESET_AGAIN_S = 0.1
# A first request may have to wait for kernels to be compiled.
SILENCE_LIMIT_S = 300.0


NOT_OFFERED = (404, 405, 501)


class Reset(Enum):
    """What a server says when it is asked to forget cached prefixes."""

    DONE = "done"
    REFUSED = "it refuses while requests are running"
    NOT_OFFERED = "not offered"
    NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Serving:
    """What to serve and how.

    `command` lacks only host, port and served name; `env` is added to ours; `port` 0 is any, `cores` () are all. A
    server that is not idle, and its cache empty, within `reset_timeout_s` hangs. Whether
    a client was too slow is judged by `tolerance`. A probe is stopped in which no token comes for
    `silence_limit_s`. `vacancy` is what has to be free before the server starts, `farewell` removes its container, if
    it is in one.
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
    tolerance: Tolerance = field(default_factory=Tolerance)
    reset_timeout_s: float = 60.0
    silence_limit_s: float = SILENCE_LIMIT_S
    ready_timeout_s: float | None = None
    vacancy: Vacancy = field(default_factory=Vacancy)


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
        cores, silence_limit_s = len(usable_cores()), self.serving.silence_limit_s
        workers = workers_needed(requests, load, cores)
        supervision = Supervision(
            watch, self._look_at_server, self.serving.tolerance, workers=workers, silence_limit_s=silence_limit_s
        )
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
        if (log.status == Status.FAILED).any():
            self.server.check_dead()
        self.scraper.end()
        if log.stopped or (log.status == Status.TIMED_OUT).any():
            self._check_back(log.stopped or "requests timed out")
        scrapes = self.scraper.scrapes(log.began_s or 0.0)
        return replace(log, engine=view_of(scrapes, window.warmup_s, window.end_s), scrapes=scrapes)

    def _look_at_server(self) -> None:
        self.server.check_alive()
        self.scraper.pass_by()

    def _check_back(self, stopped: str) -> None:
        """A server that was given too much becomes idle when nothing more comes; one that hangs does not."""
        try:
            self.reset_cache()
        except ServerFailed as failed:
            if failed.kind is not FailureKind.HUNG_UNDER_LOAD:
                raise
            raise ServerFailed(failed.fault, f"{stopped}; then {failed.message}", failed.log) from failed

    def reset_cache(self) -> None:
        """Forget cached prefixes. An engine refuses while requests are running, so this also waits until it is idle.

        An engine that has no way to gets other prompts for every probe instead. Raises MeasurementVoid where it is
        not offered, ServerFailed if the server has died or never becomes idle.
        """
        if not self.serving.engine.reset_path:
            self.salt = fresh_salt()
            return
        url = f"{self.endpoint.base_url}{self.serving.engine.reset_path}"
        timeout_s = self.serving.reset_timeout_s
        deadline_s = time.perf_counter() + timeout_s
        said = Reset.NO_ANSWER
        with httpx.Client(timeout=timeout_s, trust_env=False) as client:
            while time.perf_counter() < deadline_s:
                self.server.check_alive()
                said = _reset(client, url)
                if said is Reset.DONE:
                    return
                self.server.guard.wait(RESET_AGAIN_S)
        if said is Reset.NOT_OFFERED:
            raise MeasurementVoid(f"the prefix cache cannot be reset: the server does not offer it ({url})")
        raise self.server.hung(
            f"the server did not become idle within {timeout_s:g} s of the last request ({url}: {said.value})"
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
    serving.vacancy.wait()
    with _reserved(serving.port) as port:
        base_url = f"http://{HOST}:{port}"
        name = (engine.name_flag, serving.model) if engine.name_flag else ()
        address = (engine.host_flag, HOST, "--port", str(port), *name)
        launch = Launch(
            command=(*serving.command, *engine.measuring_flags, *address),
            health_url=f"{base_url}{engine.health_path}",
            log=serving.log,
            env={**engine.measuring_env, **serving.env},
            symptoms=engine.symptoms,
            ready_timeout_s=serving.ready_timeout_s or engine.ready_timeout_s,
            stop_grace_s=engine.stop_grace_s,
            cores=serving.cores,
            farewell=serving.farewell,
        )
        metrics = scraping(f"{base_url}{engine.metrics_path}", engine.metrics)
        try:
            with running(launch) as server, metrics as scraper:
                yield ServedTarget(serving, server, Endpoint(base_url, serving.model, serving.vocab), scraper)
        except ServerFailed as failed:
            raise serving.vacancy.blamed(failed) from failed


@contextmanager
def _reserved(wanted: int) -> Iterator[int]:
    """As `reserved_port`; in the middle of a study a port that is taken is a failure of the box like others."""
    with ExitStack() as stack:
        try:
            port = stack.enter_context(reserved_port(wanted))
        except BoxUnusable as taken:
            raise ServerFailed(Fault(FailureKind.PORT_IN_USE, str(taken)), "no server was started") from taken
        yield port


def _reset(client: httpx.Client, url: str) -> Reset:
    """What came of asking for an empty cache. vLLM answers 200 also where it has not done it, and says so."""
    try:
        answer = client.post(url)
    except httpx.TransportError:
        return Reset.NO_ANSWER
    if answer.status_code in NOT_OFFERED:
        return Reset.NOT_OFFERED
    done = answer.is_success and '"success":false' not in answer.text.replace(" ", "")
    return Reset.DONE if done else Reset.REFUSED
