"""A tuner with a real engine that waits to be killed: `-m tests.fakes.real_tuner ENGINE FOLDER`. It says `ready`."""

import sys
import time
from pathlib import Path

from tests.real_engines import open_real

with open_real(sys.argv[1], Path(sys.argv[2])):
    print("ready", flush=True)
    time.sleep(1000)
