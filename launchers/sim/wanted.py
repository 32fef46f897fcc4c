"""Wanted: the body of a request, read and checked: bytes in, what is wanted or why it is refused out. Pure."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

import msgspec

BYTES_PER_TOKEN = 4
DEFAULT_COMPLETION_TOKENS = 16
DEFAULT_CHAT_TOKENS = 256

TokenId = Annotated[int, msgspec.Meta(ge=0)]
Prompt = list[TokenId]


@dataclass(frozen=True)
class Wanted:
    """One request, understood. `prompt` is token ids, or a text in UTF-8."""

    model: str | None
    prompt: Prompt | bytes
    tokens: int
    streams: bool
    usage: bool

    @property
    def prompt_tokens(self) -> int:
        """The length of the prompt."""
        if isinstance(self.prompt, bytes):
            return max(1, -(-len(self.prompt) // BYTES_PER_TOKEN))
        return len(self.prompt)


class BadRequest(Exception):
    """What the engines answer with HTTP 400, and this message."""


class StreamOptions(msgspec.Struct):
    """The part of `stream_options` that is read."""

    include_usage: bool | None = None


class Body(msgspec.Struct):
    """What both kinds of requests have in common; other fields are accepted and have no effect."""

    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class Completion(Body):
    """A request to go on with a text or token ids, alone or in a list of one."""

    prompt: str | list[TokenId | str | Prompt] | None = None


class Message(msgspec.Struct):
    """What somebody says in a chat."""

    content: Any = ""


class Chat(Body):
    """A request to answer the last of some messages."""

    messages: list[Message] = []


Kind = TypeVar("Kind", bound=Body)


def wanted_completion(body: bytes) -> Wanted:
    """A request to `/v1/completions`. Raises BadRequest."""
    asked = _read(body, Completion)
    match asked.prompt:
        case [str() | list(), _, *_]:
            raise BadRequest("the simulation answers one prompt at a time")
        case [str() | list() as prompt] | (str() | list() as prompt):
            pass
        case _:
            prompt = ""
    if isinstance(prompt, str) and prompt:
        return _wanted(asked, prompt.encode(), DEFAULT_COMPLETION_TOKENS)
    # Long prompts come between two steps: this looks at each token in C.
    if set(map(type, prompt)) != {int}:
        raise BadRequest("prompt must be a text or a list of token ids, and not empty")
    return _wanted(asked, cast(Prompt, prompt), DEFAULT_COMPLETION_TOKENS)


def wanted_chat(body: bytes) -> Wanted:
    """A request to `/v1/chat/completions`. Raises BadRequest."""
    asked = _read(body, Chat)
    if not asked.messages:
        raise BadRequest("messages must be a list of objects, and not empty")
    text = "".join(str(message.content) for message in asked.messages)
    return _wanted(asked, text.encode(), DEFAULT_CHAT_TOKENS)


def block_names(prompt: Prompt | bytes, block_tokens: int) -> list[int]:
    """Numbers of the full blocks of a prompt, each for its own tokens and all before them."""
    size = block_tokens * (BYTES_PER_TOKEN if isinstance(prompt, bytes) else 1)
    names = []
    name = 0
    for end in range(size, len(prompt) + 1, size):
        name = hash((name, *prompt[end - size : end]))
        names.append(name)
    return names


def _read(body: bytes, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error)) from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def _wanted(asked: Body, prompt: Prompt | bytes, default_tokens: int) -> Wanted:
    if asked.n not in (None, 1):
        raise BadRequest(f"the simulation gives one answer at a time, not n={asked.n}")
    named = [tokens for tokens in (asked.max_completion_tokens, asked.max_tokens) if tokens is not None]
    tokens = named[0] if named else default_tokens
    if tokens < 1:
        raise BadRequest(f"max_tokens must be at least 1, got {tokens}.")
    usage = bool(asked.stream_options and asked.stream_options.include_usage)
    return Wanted(asked.model, prompt, tokens, bool(asked.stream), usage)
