"""RemoteTarget: a server that somebody else runs, over HTTP. It is measured, never started, stopped or reset."""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from launchers.access import OPTION, VARIABLE, Access, access_of
from launchers.cpu import usable_cores
from launchers.engine import EngineMetrics
from launchers.engines import ENGINES
from launchers.salt import fresh_salt, salted
from launchers.scrape import Scraper, read, scraping
from tuner.config.catalog import load, names
from tuner.config.model import Model, model_from_config_json
from tuner.engineview import EngineFacts, view_of
from tuner.errors import BoxUnusable, ConfigError, FailureKind, Fault, MeasurementVoid, ServerFailed
from tuner.load.prompts import Bodies, ChatBodies, drawn_ids
from tuner.load.replay import Endpoint, Supervision, more_workers, replay, workers_needed
from tuner.load.validity import Tolerance
from tuner.requestlog import RequestLog
from tuner.requests import Requests
from tuner.target import Load, Watch, Window

ANSWER_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
GONE_AFTER = 3
NOT_ALLOWED = (401, 403)
# Ids below this are whole words or pieces of them in every vocabulary in use.
SAFE_VOCAB = 8000
UNKNOWN = "unknown"

Prompts = Literal["token-ids", "text"]
"""Token ids go through completions, real text through chat completions."""


@dataclass(frozen=True)
class Described:
    """What a running server says of itself.

    `engine` is known by its metrics (vllm, sglang), else it is who owns the model, or UNKNOWN. `max_model_len` is
    None where it does not say, `vocab` is SAFE_VOCAB where its model is not known here. `url` holds no password:
    `access` does.
    """

    url: str
    model: str
    engine: str
    vocab: int
    max_model_len: int | None
    access: Access = field(default_factory=Access)


@dataclass
class RemoteTarget:
    """A running server; implements `tuner.target.Target`.

    Its prefix cache is not ours to reset: each probe has prompts of its own instead, of the same lengths and shared
    in the same places, that no probe and no `tune` has sent before. What its metrics say is of all its traffic.
    """

    described: Described
    scraper: Scraper
    tolerance: Tolerance
    _salt: int = field(default_factory=fresh_salt)
    _started_s: float = field(default_factory=perf_counter)
    _refused: int = 0

    def replay(self, requests: Requests, load: Load, window: Window, watch: Watch) -> RequestLog:
        """As `Target.replay` says. A probe that the client spoilt is measured once more, with more workers."""
        cores = len(usable_cores())
        workers = workers_needed(requests, load, cores)
        supervision = Supervision(watch, self._look_at_server, self.tolerance, workers=workers)
        try:
            return self._replay(requests, load, window, supervision)
        except MeasurementVoid as void:
            self.reset_cache()
            supervision = replace(supervision, workers=more_workers(workers, cores))
            log = self._replay(requests, load, window, supervision)
            return replace(log, client=log.client and replace(log.client, voided=str(void)))

    def _replay(self, requests: Requests, load: Load, window: Window, supervision: Supervision) -> RequestLog:
        described, access = self.described, self.described.access
        endpoint = Endpoint(described.url, described.model, described.vocab, access.authorization)
        self.scraper.begin()
        log = replay(endpoint, salted(requests, self._salt), load, window, supervision)
        self.scraper.end()
        scrapes = self.scraper.scrapes(log.began_s or 0.0)
        view = view_of(scrapes, window.warmup_s, window.end_s)
        errors = tuple(access.hidden_in(error) for error in log.errors)
        return replace(log, engine=view, scrapes=scrapes, errors=errors)

    def _look_at_server(self) -> None:
        self.check_alive()
        self.scraper.pass_by()

    def reset_cache(self) -> None:
        """From here on, other prompts."""
        self._salt = fresh_salt()

    def facts(self) -> EngineFacts | None:
        """Nothing: what it was started with is its owner's business."""
        return None

    def clock_s(self) -> float:
        """Seconds since the measuring began."""
        return perf_counter() - self._started_s

    def check_alive(self) -> None:
        """Raises ServerFailed when nobody listens at the address several times in a row."""
        host, port = _address(self.described.url)
        try:
            socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
            self._refused = 0
        except OSError as error:
            self._refused += 1
            if self._refused >= GONE_AFTER:
                why = f"{self.described.url}: the server is gone: {error}"
                raise ServerFailed(Fault(FailureKind.DIED_UNDER_LOAD), why) from error


@contextmanager
def open_remote(described: Described, tolerance: Tolerance) -> Iterator[RemoteTarget]:
    """The server that was described, for the length of a block; its metrics are those of the engine it says it is.

    Whether the client is too slow for it is judged by `tolerance`.
    """
    engine = ENGINES.get(described.engine)
    path, metrics = (engine.metrics_path, engine.metrics) if engine else ("", EngineMetrics())
    with scraping(f"{described.url}{path}", metrics, described.access.headers) as scraper:
        yield RemoteTarget(described, scraper, tolerance)


def describe(url: str, model: str | None, api_key: str | None = None, prompts: Prompts = "token-ids") -> Described:
    """Ask the server at `url` what it serves, and try whether it answers `prompts` such as the workload has.

    `model`: the name to ask for; None: the one it serves. `api_key` as in `access_of`. Raises BoxUnusable if it
    cannot be measured, ConfigError if `url`, `model` or `api_key` is wrong.
    """
    bare, access = access_of(url, api_key)
    base = bare.rstrip("/").removesuffix("/v1")
    with httpx.Client(base_url=base, headers=access.headers, timeout=ANSWER_TIMEOUT_S, trust_env=False) as client:
        served = _served(client, base, access)
        chosen = _chosen(served, model, base)
        described = Described(
            url=base,
            model=chosen["id"],
            engine=_engine(client) or str(chosen.get("owned_by") or UNKNOWN),
            vocab=_vocab(chosen),
            max_model_len=chosen.get("max_model_len"),
            access=access,
        )
        _try_out(client, described, prompts)
    return described


def _address(base: str) -> tuple[str, int]:
    parts = urlsplit(base)
    assert parts.hostname
    return parts.hostname, parts.port or 80


def _served(client: httpx.Client, base: str, access: Access) -> list[dict[str, Any]]:
    """The models that `/v1/models` lists."""
    try:
        answer = client.get("/v1/models")
        listed = answer.json()["data"] if answer.is_success else None
    except httpx.TransportError as error:
        raise BoxUnusable(f"{base}: no server answers there: {error or type(error).__name__}") from error
    except (json.JSONDecodeError, KeyError, TypeError):
        listed = None
    if answer.status_code in NOT_ALLOWED:
        wish = f"it does not accept {access.by}" if access.by else f"it wants a key; give {OPTION} or set {VARIABLE}"
        raise BoxUnusable(f"{base}/v1/models: {wish} ({answer.status_code})")
    if not listed:
        raise BoxUnusable(f"{base}/v1/models: no list of models ({answer.status_code}); is it an OpenAI-like server?")
    return list(listed)


def _chosen(served: Sequence[dict[str, Any]], model: str | None, base: str) -> dict[str, Any]:
    known = [entry["id"] for entry in served]
    if model is None and len(served) > 1:
        raise ConfigError(f"{base} serves several models; name one with --model: {', '.join(known)}")
    if model is not None and model not in known:
        raise ConfigError(f"--model {model}: {base} does not serve it; it serves: {', '.join(known)}")
    return next(entry for entry in served if model in {None, entry["id"]})


def _engine(client: httpx.Client) -> str:
    """The engine whose metrics it exports; "" where it exports none that are known."""
    for engine in (one for one in ENGINES.values() if one.metrics.values):
        with suppress(httpx.TransportError):
            answer = client.get(engine.metrics_path)
            if answer.is_success and read(answer.text, engine.metrics, 0.0).values:
                return engine.name
    return ""


def _vocab(entry: dict[str, Any]) -> int:
    """The size of the vocabulary by a folder on this machine or by our catalog, else a safe small one."""
    called = {str(entry["id"]), str(entry.get("root") or entry["id"])}
    for folder in map(Path, sorted(called)):
        if (folder / "config.json").is_file():
            return model_from_config_json(folder.name, str(folder), folder / "config.json").architecture.vocab
    for name in names(Model):
        known = load(Model, name)
        if called & {name, known.path}:
            return known.architecture.vocab
    return SAFE_VOCAB


def _try_out(client: httpx.Client, described: Described, prompts: Prompts) -> None:
    """One short answer of the kind that is to be measured. Raises BoxUnusable with what the server said if there is
    none."""
    path, asked, went = _shortest(described, prompts)
    where = f"{described.url}{path}"
    try:
        answer = client.post(path, json={"model": described.model, **asked, "max_tokens": 1, "temperature": 0})
    except httpx.TransportError as error:
        raise BoxUnusable(f"{where}: no answer: {error or type(error).__name__}") from error
    if answer.status_code in {404, 405}:
        raise BoxUnusable(f"{where}: not offered ({answer.status_code}); {went}")
    if not answer.is_success:
        said = described.access.hidden_in(answer.text)[:300]
        raise BoxUnusable(f"{where}: a short completion was refused ({answer.status_code}): {said}")


def _shortest(described: Described, prompts: Prompts) -> tuple[str, dict[str, Any], str]:
    """Where a workload's requests go, a short one of them, and in which form they go there, in words."""
    if prompts == "text":
        return ChatBodies.path, {"messages": [{"role": "user", "content": "Hello"}]}, "real text goes there as chats"
    low, high = drawn_ids(described.vocab)
    return Bodies.path, {"prompt": [low, (low + high) // 2, high - 1]}, "prompts go there as token ids"
