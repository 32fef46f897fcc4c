import httpx
import pytest

from tests.fakes import openai_server as fake
from tuner.load import control

PATIENCE_S = 30.0


def test_a_server_is_healthy_that_answers_with_success():
    with fake.running() as (url, _):
        assert control.is_healthy(f"{url}/health", PATIENCE_S)
        assert not control.is_healthy(f"{url}/no-such-page", PATIENCE_S)
        assert '"entries": []' in control.get_text(f"{url}/journal")
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            control.post(f"{url}/reset_prefix_cache")


def test_a_server_that_cannot_be_reached_is_not_healthy():
    assert not control.is_healthy("http://127.0.0.1:1/health", PATIENCE_S)
