"""One option: `--real-engines` runs the tests that start a real vLLM or SGLang. No test sees the user's own data."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.fakes import openai_server

# Tests don't time things: on a machine that is busy with others any example may take long.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A shell starts what it puts into the background with Ctrl-C ignored, and so would be what tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Calibrations are kept in a folder of the tests' own, in the processes they start too."""
    before = os.environ.get("XDG_DATA_HOME")
    os.environ["XDG_DATA_HOME"] = str(tmp_path_factory.mktemp("data"))
    yield
    if before is None:
        del os.environ["XDG_DATA_HOME"]
    else:
        os.environ["XDG_DATA_HOME"] = before


@pytest.fixture
def no_calibrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No calibration known yet, whatever other tests have kept."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    yield


@pytest.fixture(scope="module")
def fake_server() -> Iterator[str]:
    """The address of a fake OpenAI server, which says in its journal what it was sent (`tests.replays.journal`)."""
    with openai_server.running() as (url, _):
        yield url


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real-engines", action="store_true", help="also run the tests that start real engines")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--real-engines"):
        return
    for item in items:
        if item.get_closest_marker("real_engine"):
            item.add_marker(pytest.mark.skip(reason="starts a real engine; run with --real-engines"))
