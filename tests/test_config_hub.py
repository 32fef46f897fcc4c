"""Hugging Face ids: the local cache first, then the hub, and clear words when neither helps."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tuner.config.catalog import load_model
from tuner.errors import ConfigError

CONFIG = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128,
          "vocab_size": 1000}  # fmt: skip
HINT = "give one of `tune list models`, or a local directory with a config.json"


class _Hub(BaseHTTPRequestHandler):
    """Knows one model."""

    def do_GET(self) -> None:
        known = self.path == "/org/known/resolve/main/config.json"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(CONFIG).encode() if known else b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def test_a_model_is_fetched_from_the_hub(hub: HTTPServer) -> None:
    model = load_model("org/known")
    assert (model.name, model.path, model.architecture.layers) == ("org/known", "org/known", 2)


def test_a_model_the_hub_does_not_know_is_told(hub: HTTPServer) -> None:
    with pytest.raises(ConfigError) as mistake:
        load_model("org/unknown")
    assert str(mistake.value) == f"no model 'org/unknown' on the hub (HTTP 404); {HINT}"


def test_a_hub_that_cannot_be_reached_is_told(hub: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ConfigError) as mistake:
        load_model("org/known")
    assert str(mistake.value) == f"the hub could not be asked for 'org/known' (ConnectError); {HINT}"


def test_offline_only_the_cache_is_asked(hub: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError) as mistake:
        load_model("org/known")
    assert str(mistake.value) == f"no model named 'org/known' here, and HF_HUB_OFFLINE is set; {HINT}"

    folder = tmp_path / "hub" / "models--org--known"
    for commit, layers in (("aaa", 5), ("zzz", 7)):
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("aaa")
    assert load_model("org/known").architecture.layers == 5
