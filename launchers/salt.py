"""Salt: the same requests with other texts, for servers whose prefix cache is not ours to empty."""

import os
from dataclasses import replace

from tuner.requests import Requests, Segment
from tuner.workload.chats import marked

SALTS_BELOW = 2**63


def fresh_salt() -> int:
    """One that nobody has used."""
    return int.from_bytes(os.urandom(8)) % SALTS_BELOW


def salted(requests: Requests, salt: int) -> Requests:
    """The same requests with other texts; equal segments stay equal. Real text only gets another beginning."""
    if requests.chats is not None:
        return replace(requests, chats=tuple(marked(chat, f"{salt:x}") for chat in requests.chats))
    segments = tuple(
        tuple(Segment(segment.seed ^ salt, segment.tokens) for segment in prompt) for prompt in requests.segments
    )
    return replace(requests, segments=segments)
