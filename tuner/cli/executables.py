"""`--engine-bin [ENGINE=]PATH`: where engines are, by name."""

from launchers.engines import ENGINES
from tuner.errors import ConfigError


def named_executables(texts: tuple[str, ...], otherwise: str = "vllm") -> dict[str, str]:
    """Engine → path; a path without a name is the engine `otherwise`'s. Raises ConfigError."""
    found: dict[str, str] = {}
    for text in texts:
        engine, equals, path = text.partition("=")
        if not equals:
            engine, path = otherwise, text
        if engine not in ENGINES:
            raise ConfigError(f"--engine-bin {text}: no engine '{engine}'; there is: {', '.join(ENGINES)}")
        found[engine] = path
    return found
