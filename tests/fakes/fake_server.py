"""A server that behaves as it is told: `fake_server.py BEHAVIOUR PORT PIDS`; PIDS gets the pids of all it started."""

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB."


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/die":
            print(OUT_OF_MEMORY, flush=True)
            os._exit(1)
        self.send_response(503 if sys.argv[1] == "unhealthy" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main(behaviour: str, port: int, pids: Path) -> None:
    pids.write_text(f"{os.getpid()}\n")
    if behaviour == "dies":
        sys.exit("ValueError: I cannot live like this")
    if behaviour == "chatty":
        sys.stdout.write(("x" * 99 + "\n") * 30_000)
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "daemonises":
        leave_daemons(pids)
    if behaviour == "deaf":
        time.sleep(1000)
    ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()


def leave_daemons(pids: Path) -> None:
    """Start a process in a session of its own whose parent ends at once, and which ignores SIGTERM."""
    daemon = (
        "import signal, os, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
        "time.sleep(1000)\n"
    )
    parent = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-I', '-S', '-c', {daemon!r}, sys.argv[1]], start_new_session=True)\n"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", parent, str(pids)], check=True)
    while len(pids.read_text().splitlines()) < 2:
        time.sleep(0.01)


main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
