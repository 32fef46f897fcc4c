"""One option: `--real-engines` runs the tests that start a real vLLM or SGLang."""

import pytest
from hypothesis import settings

# Tests don't time things: on a machine that is busy with others any example may take long.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real-engines", action="store_true", help="also run the tests that start real engines")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--real-engines"):
        return
    for item in items:
        if item.get_closest_marker("real_engine"):
            item.add_marker(pytest.mark.skip(reason="starts a real engine; run with --real-engines"))
