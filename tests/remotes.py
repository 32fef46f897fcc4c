"""Servers that somebody else runs: one that answers what it is told to, and the fake that answers requests."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from launchers.access import Access
from launchers.remote import SAFE_VOCAB, Described, RemoteTarget, open_remote
from tests.fakes import openai_server as fake
from tuner.load.validity import Tolerance

NOBODY = Access()
# A client may be late on a busy machine.
PATIENT = Tolerance(lag_s=5.0)


@contextmanager
def saying(answers: dict[str, tuple[int, Any]]) -> Iterator[str]:
    """A server that answers each path with a status and JSON, and 404 to the others."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = answers.get(self.path, (404, {}))
            body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def remote_fake(access: Access = NOBODY) -> Iterator[tuple[str, RemoteTarget]]:
    """A fake server that somebody else runs, which exports no metrics: its address, and what measures it."""
    with (
        fake.running() as (url, _),
        open_remote(Described(url, "m", "vllm", SAFE_VOCAB, None, access), PATIENT) as target,
    ):
        yield url, target
