"""`tune engines install`: an engine of its own environment, made and tried out."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from launchers.engines import ENGINES
from launchers.install import install, try_out
from launchers.recipes import RECIPES
from tuner.gpus import devices


@dataclass(frozen=True)
class InstallOptions:
    """The options of `tune engines install`, as typed."""

    name: str
    version: str | None = None
    into: Path | None = None


def run_install(options: InstallOptions) -> None:
    """Install, try out where the machine can, and say how to go on. Raises EngineMissing."""
    console = Console(highlight=False, soft_wrap=True)

    def say(text: str) -> None:
        console.print(text, markup=False)

    recipe = RECIPES[options.name]
    made = install(recipe, options.version or recipe.version, options.into, say)
    engine = ENGINES[recipe.engine]
    if recipe.on_cpu or devices():
        try_out(engine, made.executable, on_cpu=recipe.on_cpu)
        say("it serves a tiny model")
    else:
        say("not tried out: there is no GPU here")
    by_name = f" --engine-bin {recipe.engine}={options.into}" if options.into else ""
    where = " --gpu cpu" if recipe.on_cpu else ""
    say(f"go on with: tune --model ... --slo ... --engine {recipe.engine}{where}{by_name}")
