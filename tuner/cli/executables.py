"""`--engine-bin [ENGINE=]PATH` and `--image [ENGINE=]NAME`: where engines are, by name."""

from launchers.engines import ENGINES
from tuner.errors import ConfigError


def named_places(option: str, texts: tuple[str, ...], otherwise: str = "vllm") -> dict[str, str]:
    """Engine → place; a place without a name is the engine `otherwise`'s. Raises ConfigError that names `option`."""
    found: dict[str, str] = {}
    for text in texts:
        engine, equals, path = text.partition("=")
        if not equals:
            engine, path = otherwise, text
        if engine not in ENGINES:
            raise ConfigError(f"{option} {text}: no engine '{engine}'; there is: {', '.join(ENGINES)}")
        found[engine] = path
    return found
