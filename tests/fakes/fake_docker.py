"""`docker`, as far as an engine in a container needs it: a client, and the daemon that runs what it asks for.

    fake_docker.py version|image|pull|run|rm ...     the client; $FAKE_DOCKER is the daemon's folder

A container is a process of the daemon's and no descendant of the client's, as with the real one: it outlives a client
that is killed. `--entrypoint vllm IMAGE ARGUMENTS` runs `documented_engine.py vllm ARGUMENTS`. Every call is a line
of `calls` in the daemon's folder, every container that is there a file in `containers`.
"""

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

DOCUMENTED = Path(__file__).parent / "documented_engine.py"
FLAGS_WITH_VALUE = ("--name", "--network", "--ipc", "--gpus", "--volume", "--workdir", "--env", "--entrypoint")
ENGINE_OF = {"text-generation-launcher": "tgi", "/tgi-entrypoint.sh": "tgi", "trtllm-serve": "trtllm"}


def client(words: list[str]) -> int:
    folder = Path(os.environ["FAKE_DOCKER"])
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    match words:
        case ["version", *_]:
            return 0 if (folder / "socket").exists() else sys.exit("Cannot connect to the Docker daemon")
        case ["image", "inspect", *_, image]:
            return print("sha256:0123") or 0 if (folder / "pulled").exists() else sys.exit(f"No such image: {image}")
        case ["pull", *_]:
            (folder / "pulled").touch()
            return 0
        case _:
            return _asked_of_daemon(folder, words)


def _asked_of_daemon(folder: Path, words: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.connect(str(folder / "socket"))
        daemon.sendall(json.dumps({"words": words, "environment": dict(os.environ)}).encode() + b"\n")
        signal.signal(signal.SIGTERM, lambda *_: daemon.sendall(b"TERM\n"))
        for line in daemon.makefile():
            if line.startswith("exit "):
                return int(line.split()[1])
            print(line, end="", flush=True)
    return 125


class Daemon(socketserver.ThreadingUnixStreamServer):
    """Started by a test, in its own process."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "containers").mkdir(parents=True)
        self.running: dict[str, subprocess.Popen[str]] = {}
        super().__init__(str(folder / "socket"), _Asked)

    def serve(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Asked(socketserver.StreamRequestHandler):
    server: Daemon

    def handle(self) -> None:
        asked = json.loads(self.rfile.readline())
        match asked["words"]:
            case ["rm", "--force", name]:
                self._end(name)
            case ["run", *words]:
                self._run(words, asked["environment"])

    def _end(self, name: str) -> None:
        process = self.server.running.get(name)
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._say(f"exit {0 if process else 1}")

    def _run(self, words: list[str], environment: dict[str, str]) -> None:
        options, rest = _read(words)
        name = options.get("--name", f"nameless-{id(self)}")
        entrypoint = options["--entrypoint"]
        command = [sys.executable, *rest[1:]]
        if entrypoint != "python3":
            command = [sys.executable, str(DOCUMENTED), ENGINE_OF.get(entrypoint, entrypoint), *rest[1:]]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=environment,
        )
        self.server.running[name] = process
        mark = self.server.folder / "containers" / name
        mark.write_text(str(process.pid))
        threading.Thread(target=self._pass_signals, args=(process,), daemon=True).start()
        with process:
            assert process.stdout
            for line in process.stdout:
                self._say(line.rstrip("\n"))
        code = process.returncode
        mark.unlink()
        self._say(f"exit {code if code >= 0 else 128 - code}")

    def _pass_signals(self, process: subprocess.Popen[str]) -> None:
        for _ in self.rfile:
            process.terminate()

    def _say(self, line: str) -> None:
        try:
            self.wfile.write(line.encode() + b"\n")
        except OSError:
            return


def _read(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options of `run`, and the image with what stands behind it."""
    options: dict[str, Any] = {}
    while words[0].startswith("--"):
        if words[0] in FLAGS_WITH_VALUE:
            options[words[0]] = words[1]
            words = words[2:]
        else:
            assert words[0] == "--rm", f"unknown flag: {words[0]}"
            words = words[1:]
    return options, words


if __name__ == "__main__":
    sys.exit(client(sys.argv[1:]))
