"""A tuner that starts a fake server and waits to be killed: `fake_tuner.py BEHAVIOUR PORT FOLDER [forks]`.

It says `ready` once the server is. With `forks`, a child of its own, whose pid it adds, lives on and holds all its
descriptors open.
"""

import os
import sys
import time
from pathlib import Path

from launchers.supervisor import Launch, running

behaviour, port, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
server = Path(__file__).with_name("fake_server.py")
launch = Launch(
    command=(sys.executable, str(server), behaviour, port, str(folder / "pids")),
    health_url=f"http://127.0.0.1:{port}/health",
    log=folder / "server.log",
    env={},
    ready_timeout_s=60,
    stop_grace_s=0.2,
)
with running(launch):
    fork = os.fork() if "forks" in sys.argv else None
    if fork != 0:
        print("ready", fork or "", flush=True)
    time.sleep(1000)
