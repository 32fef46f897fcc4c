"""Channel: a worker's two pipes to the process that supervises it, inside the worker's event loop."""

import asyncio
import sys

from tuner.load.wire import GO, STOP, Message, frame


class Words(asyncio.Protocol):
    """Hears `go <time>` and `stop`, one a line. The end of the pipe, when the supervisor has gone, stops as well."""

    def __init__(self) -> None:
        self.started: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.stopped = asyncio.Event()
        self._line = b""

    def data_received(self, data: bytes) -> None:
        """Take words from the supervisor."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == GO:
                self.started.set_result(float(rest))
            elif word == STOP:
                self.stopped.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The supervisor has gone."""
        self.started.cancel()
        self.stopped.set()


class Channel:
    """Hears words on stdin and sends messages on stdout.

    Sending never waits: what the supervisor has not read yet is kept in memory, so its pauses don't disturb timing.
    """

    def __init__(self, words: Words, out: asyncio.WriteTransport, closing: "_Closing") -> None:
        self.words = words
        self._out = out
        self._closing = closing

    def send(self, message: Message) -> None:
        """Send one message, without waiting."""
        self._out.write(frame(message))

    async def close(self) -> None:
        """Wait until everything has gone out."""
        self._out.close()
        await self._closing.closed.wait()


async def open_channel() -> Channel:
    """Connect to this process's own stdin and stdout."""
    loop = asyncio.get_running_loop()
    _, words = await loop.connect_read_pipe(Words, sys.stdin)
    out, closing = await loop.connect_write_pipe(_Closing, sys.stdout)
    return Channel(words, out, closing)


class _Closing(asyncio.BaseProtocol):
    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
