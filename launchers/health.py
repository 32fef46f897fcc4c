"""Whether a server says that it is well, within a time that counts for the whole answer."""

import socket
import time

import httpx

ENOUGH_BYTES = 64


def is_healthy(url: str, within_s: float) -> bool:
    """Whether GET `url` is answered with 200 before `within_s` seconds have passed.

    A client library's limit is on each read: a server that sends a byte now and then would keep it for ever.
    """
    deadline_s = time.monotonic() + within_s
    try:
        return _first_line(httpx.URL(url), deadline_s).split()[1:2] == [b"200"]
    except OSError:
        return False


def _first_line(url: httpx.URL, deadline_s: float) -> bytes:
    """The status line, or as much of it as has come. Raises OSError, and TimeoutError when the time is over."""
    ask = f"GET {url.raw_path.decode()} HTTP/1.1\r\nHost: {url.host}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((url.host, url.port or 80), _left_s(deadline_s)) as connection:
        connection.sendall(ask.encode())
        said = b""
        while b"\r\n" not in said and len(said) < ENOUGH_BYTES:
            connection.settimeout(_left_s(deadline_s))
            more = connection.recv(ENOUGH_BYTES)
            if not more:
                break
            said += more
    return said.partition(b"\r\n")[0]


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
