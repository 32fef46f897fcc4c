"""Access: a key or a password reaches the server that it is for, and nobody else gets to see it."""

from base64 import b64decode

import pytest

from launchers.access import access_of
from tuner.errors import ConfigError

SECRET = "s3cr3t/pw"
URL = "http://127.0.0.1:8000"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("url", "option", "variable", "carried"),
    [
        pytest.param(URL, None, "", ("", ""), id="nobody asks who asks"),
        pytest.param(URL, "typed", "", ("Bearer typed", "--api-key"), id="a key that was typed"),
        pytest.param(URL, None, "set", ("Bearer set", "$OPENAI_API_KEY"), id="a key of the environment"),
        pytest.param(URL, "typed", "set", ("Bearer typed", "--api-key"), id="what was typed comes first"),
        pytest.param(
            "http://me:pw@127.0.0.1:8000", None, "set", ("Basic bWU6cHc=", "the name and password in --url"),
            id="a password in the address comes before the environment",
        ),
    ],
)  # fmt: skip
def test_a_request_carries_what_was_given_for_this_server(
    url: str, option: str | None, variable: str, carried: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", variable)
    bare, access = access_of(url, option)
    assert bare == URL
    assert (access.headers.get("authorization", ""), access.by) == carried


def test_a_password_is_taken_as_it_was_before_it_was_escaped_for_the_address() -> None:
    bare, access = access_of("http://me:s3cr3t%2Fpw@host:80/v1", None)
    assert bare == "http://host:80/v1"
    assert b64decode(access.authorization.removeprefix("Basic ")).decode() == f"me:{SECRET}"


@pytest.mark.parametrize(
    ("url", "option", "message"),
    [
        pytest.param(
            f"https://me:{SECRET}@host", None, "TLS is not supported; write http://HOST:PORT", id="not http"
        ),
        pytest.param(f"me:{SECRET}@host:8000", None, "write http://HOST:PORT", id="no scheme"),
        pytest.param(f"http://me:{SECRET}@host:8000", None, "write http://HOST:PORT", id="a slash not escaped"),
        pytest.param("http://host:port", None, "write http://HOST:PORT", id="a port that is none"),
        pytest.param("http://me:pw@host", SECRET, "give one of them", id="two ways to say who asks"),
        pytest.param(URL, f"{SECRET}\n", "--api-key: no key", id="a key that breaks the header"),
        pytest.param(URL, f"my {SECRET}", "--api-key: no key", id="a key of two words"),
    ],
)
def test_a_mistake_is_told_without_what_is_secret(url: str, option: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as mistake:
        access_of(url, option)
    assert not any(part in str(mistake.value) for part in SECRET.split("/"))


@pytest.mark.parametrize(("url", "option"), [(URL, SECRET), ("http://me:s3cr3t%2Fpw@host", None)])
def test_what_a_server_repeats_of_a_secret_is_not_shown(url: str, option: str | None) -> None:
    _, access = access_of(url, option)
    said = f"wrong: {SECRET} ({access.authorization})"
    assert SECRET not in access.hidden_in(said)
    assert access.authorization not in access.hidden_in(said)
    assert SECRET not in repr(access) and access.authorization not in repr(access)
