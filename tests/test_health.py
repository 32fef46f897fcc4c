"""Whether a server says that it is well; the servers are sockets that say what a test gives them."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from launchers.health import is_healthy

WITHIN_S = 20.0


@contextmanager
def saying(*parts: bytes) -> Iterator[str]:
    """The address of a server that answers its first client with `parts`, then keeps it waiting."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                for part in parts:
                    connection.sendall(part)
                over.wait(WITHIN_S)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/health"
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    ("parts", "healthy"),
    [
        ((b"HTTP/1.1 200 OK\r\n\r\n",), True),
        ((b"HTTP/1.1 2", b"00 OK\r", b"\n"), True),
        ((b"HTTP/1.1 503 Service Unavailable\r\n\r\n",), False),
        ((b"x" * 1000,), False),
        ((b"SSH-2.0-OpenSSH_9.6\r\n",), False),
    ],
)
def test_a_server_is_healthy_whose_first_line_says_200(parts: tuple[bytes, ...], healthy: bool) -> None:
    with saying(*parts) as url:
        assert is_healthy(url, WITHIN_S) is healthy


def test_a_server_that_never_ends_its_first_line_is_not_waited_for() -> None:
    with saying(b"HTTP/1.1 2") as url:
        assert not is_healthy(url, 0.05)


def test_a_server_that_is_not_there_is_not_healthy() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not is_healthy(f"http://127.0.0.1:{unused.getsockname()[1]}/health", WITHIN_S)
