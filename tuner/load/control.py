"""Control: the few synchronous requests around a probe. Each has a time limit."""

import httpx

POST_TIMEOUT_S = 30.0
GET_TIMEOUT_S = 5.0


def is_healthy(url: str, timeout_s: float) -> bool:
    """Whether a GET of `url` is answered with a 2xx within `timeout_s`."""
    try:
        return httpx.get(url, timeout=timeout_s, trust_env=False).is_success
    except httpx.TransportError:
        return False


def post(url: str, timeout_s: float = POST_TIMEOUT_S) -> None:
    """POST without a body. Raises httpx.HTTPError if it is not answered with a 2xx in time."""
    httpx.post(url, timeout=timeout_s, trust_env=False).raise_for_status()


def get_text(url: str, timeout_s: float = GET_TIMEOUT_S) -> str:
    """The text at `url`. Raises httpx.HTTPError if it is not answered with a 2xx in time."""
    return httpx.get(url, timeout=timeout_s, trust_env=False).raise_for_status().text
