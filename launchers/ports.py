"""A port on this machine for a server that does not listen yet."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tuner.errors import BoxUnusable

HOST = "127.0.0.1"


@contextmanager
def reserved_port(wanted: int = 0) -> Iterator[int]:
    """A port of 127.0.0.1 that nobody uses, and that the kernel gives to nobody else inside the block.

    The reservation is a socket that is bound but never listens: with SO_REUSEADDR, which every server sets, the
    server can bind to the same port. `wanted` asks for a certain port. Raises BoxUnusable if that is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reservation.bind((HOST, wanted))
        except OSError as error:
            raise BoxUnusable(
                f"port {wanted} of {HOST} cannot be used ({error.strerror}): stop what listens there "
                f"(see `ss -ltnp 'sport = :{wanted}'`), or let the tuner choose a free port"
            ) from error
        yield int(reservation.getsockname()[1])
