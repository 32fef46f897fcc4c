"""A port on this machine for a server that does not listen yet."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

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
            why = f"{error.strerror}{_by_whom(wanted)}"
            raise BoxUnusable(
                f"port {wanted} of {HOST} cannot be used ({why}): stop what listens there "
                f"(see `ss -ltnp 'sport = :{wanted}'`), or let the tuner choose a free port"
            ) from error
        yield int(reservation.getsockname()[1])


def _by_whom(port: int) -> str:
    """Who has the port, as far as this user may know."""
    try:
        sockets = psutil.net_connections(kind="tcp")
        pid = next((each.pid for each in sockets if each.laddr and each.laddr.port == port and each.pid), None)
        return f" by {psutil.Process(pid).name()}, pid {pid}" if pid else ""
    except psutil.Error:
        return ""
