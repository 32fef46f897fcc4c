"""Answer: what a simulated server knows of one request between its coming and its last token."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Answer:
    """An answer on its way. `held` tokens were made and not yet handed out (`stream_interval`), `pending` ones were
    handed out and not yet taken; `wake` says that something is to be taken. When it ends, `cached_prompt_tokens` says
    how much of the prompt was in the prefix cache.

    While `transport` is set, tokens that come are written to it at once, spelt by `piece`. Times are those of the
    server's clock; `admitted_s` is None in the queue.
    """

    number: int
    prompt_tokens: int
    wanted: int
    came_s: float
    admitted_s: float | None = None
    first_s: float = 0.0
    last_s: float = 0.0
    said: int = 0
    held: int = 0
    pending: int = 0
    cached_prompt_tokens: int = 0
    finish_reason: str | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    transport: asyncio.WriteTransport | None = None
    piece: Callable[[int], bytes] = bytes

    def send(self) -> None:
        """Hand out what is held, at once where there is a transport."""
        tokens, self.held = self.held, 0
        if not self.transport:
            self.pending += tokens
            self.wake.set()
        # A client may have left without our having been told yet.
        elif not self.transport.is_closing():
            self.transport.write(self.piece(tokens))

    def end(self, reason: str) -> None:
        """There will be no more tokens; whoever waits takes what is held."""
        self.finish_reason = reason
        self.transport = None
        self.send()
