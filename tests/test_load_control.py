from tuner.load import control


def test_a_server_that_cannot_be_reached_is_not_healthy():
    assert not control.is_healthy("http://127.0.0.1:1/health", timeout_s=1.0)
