"""The config.json of a Hugging Face id: from the local cache, else from the hub."""

import os
from pathlib import Path

import httpx

from tuner.errors import ConfigError

TIMEOUT_S = 10.0


def config_json_of(model_id: str) -> Path:
    """Where the `config.json` of `model_id` lies on this machine, fetched if need be. Raises ConfigError."""
    return _in_hub_cache(model_id) or _fetch(model_id)


def _in_hub_cache(model_id: str) -> Path | None:
    """The file in the snapshot that `main` was last seen at, as huggingface_hub lays them out."""
    folder = _hub_cache() / f"models--{model_id.replace('/', '--')}"
    main = folder / "refs" / "main"
    if not main.is_file():
        return None
    file = folder / "snapshots" / main.read_text(encoding="utf-8").strip() / "config.json"
    return file if file.is_file() else None


def _hub_cache() -> Path:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub"))


def _fetch(model_id: str) -> Path:
    hint = "give one of `tune list models`, or a local directory with a config.json"
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise ConfigError(f"no model named '{model_id}' here, and HF_HUB_OFFLINE is set; {hint}")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    token = os.environ.get("HF_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        url = f"{endpoint}/{model_id}/resolve/main/config.json"
        answer = httpx.get(url, headers=headers, follow_redirects=True, timeout=TIMEOUT_S)
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        raise ConfigError(f"no model '{model_id}' on the hub (HTTP {error.response.status_code}); {hint}") from error
    except httpx.HTTPError as error:
        raise ConfigError(f"the hub could not be asked for '{model_id}' ({type(error).__name__}); {hint}") from error
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "goodtune" / model_id.replace("/", "--")
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "config.json").write_bytes(answer.content)
    return cache / "config.json"
