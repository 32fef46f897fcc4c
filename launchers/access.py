"""Access: what a server asks to see before it answers. It goes into a header, never to a screen or into a file."""

import os
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from tuner.errors import ConfigError

OPTION, VARIABLE = "--api-key", "OPENAI_API_KEY"
HIDDEN = "***"


@dataclass(frozen=True)
class Access:
    """`authorization` is the value of the header, "" for none; `by` says where it is from. `secrets` are the texts
    that nobody may read, longest first."""

    authorization: str = field(default="", repr=False)
    by: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """What every request carries."""
        return {"authorization": self.authorization} if self.authorization else {}

    def hidden_in(self, text: str) -> str:
        """`text`, something that the server said, without what it may have repeated of the secrets."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return text


def access_of(url: str, api_key: str | None) -> tuple[str, Access]:
    """`url` without a name and password, and the access that these give, or else `api_key`, or $OPENAI_API_KEY.

    Raises ConfigError, with nothing secret in it, where `url` is no address or two of them were typed.
    """
    parts = _split(url)
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.username is not None:
        if api_key:
            raise ConfigError(f"--url has a name and password, and there is {OPTION} too; give one of them")
        return bare, _basic(unquote(parts.username), unquote(parts.password or ""))
    if api_key:
        return bare, _bearer(api_key, OPTION)
    key = os.environ.get(VARIABLE)
    return bare, _bearer(key, f"${VARIABLE}") if key else Access()


def _split(url: str) -> SplitResult:
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            return parts
        if parts.scheme == "https":
            raise ConfigError(
                f"--url {_shown(url)}: TLS is not supported; write http://HOST:PORT of the server itself"
            )
    raise ConfigError(f"--url {_shown(url)}: write http://HOST:PORT, for instance http://127.0.0.1:8000")


def _shown(url: str) -> str:
    """What may be shown of an address that is none: nothing of what stands before an @."""
    head, at, rest = url.rpartition("@")
    scheme = f"{head.partition('://')[0]}://" if "://" in head else ""
    return f"{scheme}{HIDDEN}@{rest}" if at else url


def _bearer(key: str, by: str) -> Access:
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"{by}: no key; it has spaces or characters that no header can carry")
    return Access(f"Bearer {key}", by, (key,))


def _basic(name: str, password: str) -> Access:
    encoded = b64encode(f"{name}:{password}".encode()).decode()
    secrets = tuple(sorted(filter(None, (encoded, password)), key=len, reverse=True))
    return Access(f"Basic {encoded}", "the name and password in --url", secrets)
