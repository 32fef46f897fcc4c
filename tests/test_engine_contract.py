"""What every engine of the table has to do, held by executables that take exactly the flags documented for them.

`tests/test_real_engines.py` holds real vLLM and real SGLang to the same.
"""

import json
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from launchers.command import command_of
from launchers.engines import ENGINES
from launchers.find import find_executable
from launchers.flags import fitted, installed
from launchers.open import open_target
from launchers.served import ServedTarget
from tests.builders import a_gpu, a_plan
from tuner.config.catalog import load
from tuner.config.engine import EngineSpec
from tuner.config.plan import Box, Plan
from tuner.configuration import Configuration
from tuner.errors import FailureKind, ServerFailed
from tuner.requestlog import Status
from tuner.requests import Requests, Segment
from tuner.space import spaces_of
from tuner.target import ClosedLoop, Window

FAKE = Path(__file__).parent / "fakes" / "documented_engine.py"
every_engine = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
def journal(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The engine is on PATH. Returns where it writes the words it was started with."""
    about = ENGINES[engine]
    executable = tmp_path / "bin" / about.executable
    executable.parent.mkdir()
    executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" {engine} "$@"\n')
    executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{executable.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCUMENTED_ENGINE_JOURNAL", str(tmp_path / "journal.json"))
    monkeypatch.delenv(about.variable, raising=False)
    return tmp_path / "journal.json"


def a_plan_for(engine: str) -> Plan:
    return a_plan(engines=(load(EngineSpec, engine),), box=Box(a_gpu(), (0, 1), None))


def some_requests(n: int) -> Requests:
    return Requests(
        seed=0,
        prompt_tokens=np.full(n, 64),
        output_tokens=np.full(n, 8),
        session=np.arange(n),
        unit_gaps=np.ones(n),
        think_s=np.zeros(n),
        segments=tuple((Segment(i, 64),) for i in range(n)),
    )


@every_engine
def test_every_knob_of_an_engine_is_known_to_it(engine: str, journal: Path) -> None:
    about = ENGINES[engine]
    here = installed(about, find_executable(about))
    assert fitted(load(EngineSpec, engine), here)[1] == ()
    if about.version:
        assert here.version


@every_engine
def test_a_server_starts_streams_forgets_its_cache_and_leaves_nothing_behind(
    engine: str, journal: Path, tmp_path: Path
) -> None:
    plan = a_plan_for(engine)
    default = spaces_of(plan)[engine].default
    with open_target(plan, default, (0,), tmp_path / "trial") as target:
        assert isinstance(target, ServedTarget)
        pids = [process.pid for process in psutil.Process(target.server.guard.pid).children(recursive=True)]
        for _ in range(2):
            target.reset_cache()
            log = target.replay(some_requests(200), ClosedLoop(2), Window(0.0, 0.3, 5.0), lambda _log: None)
            assert log.counted.any()
            assert (log.status[log.counted] == Status.OK).all(), log.errors
    assert pids and not any(psutil.pid_exists(pid) for pid in pids)
    words = json.loads(journal.read_text())
    assert words[: len(command_of(plan, default)) - 1] == list(command_of(plan, default))[1:]


@every_engine
def test_a_flag_that_an_engine_does_not_know_is_told_in_its_own_words(
    engine: str, journal: Path, tmp_path: Path
) -> None:
    plan = replace(a_plan_for(engine), extra_flags=("--no-such-flag", "1"))
    with (
        pytest.raises(ServerFailed) as failed,
        open_target(plan, Configuration(engine, {}), (0,), tmp_path / "trial"),
    ):
        pass
    assert failed.value.kind is FailureKind.BAD_FLAG
    assert "--no-such-flag" in failed.value.fault.evidence
