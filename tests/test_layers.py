"""The layers of ARCHITECTURE.md: imports only go down the list, and there is no cycle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = [
    ["search_spaces", "tuner", "tuner.errors"],
    ["tuner.config"],
    ["tuner.configuration", "tuner.constraints", "tuner.requests", "tuner.seeds", "tuner.engineview"],
    ["tuner.requestlog", "tuner.workload"],
    ["tuner.target"],
    ["tuner.fluidity", "tuner.health", "tuner.latencies"],
    ["tuner.score", "tuner.space"],
    ["tuner.load"],
    ["launchers", "tuner.curve", "tuner.crest", "tuner.finalvalue", "tuner.horizon"],
    ["tuner.finalruns", "tuner.stride", "tuner.users"],
    ["tuner.goodput", "tuner.finalists", "tuner.outcome", "tuner.probe", "tuner.gpus", "tuner.summary", "tuner.ramp"],
    [
        *(
            "tuner.rawlog",
            "tuner.record",
            "tuner.events",
            "tuner.mishaps",
            "tuner.answers",
            "tuner.idle",
            "tuner.capacity",
            "tuner.pause",
        ),
        "tuner.taken",
        "tuner.stretch",
    ],
    ["tuner.trial", "tuner.search", "tuner.storage", "tuner.verdict", "tuner.finished"],
    ["tuner.bench", "tuner.benched", "tuner.benchorder", "tuner.evaluate"],
    ["tuner.confirm"],
    ["tuner.conclude"],
    ["tuner.calibrate"],
    ["tuner.predict"],
    ["tuner.study", "tuner.rescore", "tuner.benchfolder", "tuner.rescorebench"],
    ["tuner.wording"],
    ["tuner.report", "tuner.terminal"],
    ["tuner.cli", "tuner.__main__"],
]


def modules() -> list[str]:
    paths = [path for package in ("tuner", "launchers", "search_spaces") for path in (ROOT / package).rglob("*.py")]
    return sorted(module_name(path) for path in paths)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> int:
    """The layer of the longest prefix of `module` that is in the list."""
    found = [
        (len(name), number)
        for number, layer in enumerate(LAYERS)
        for name in layer
        if module == name or module.startswith(f"{name}.")
    ]
    named_exactly = [entry for entry in found if entry[0] > len("tuner")] or [e for e in found if module == "tuner"]
    assert named_exactly, f"{module} is in no layer: add it to LAYERS and to ARCHITECTURE.md"
    return max(named_exactly)[1]


def imports_of(module: str) -> Iterator[str]:
    """Our own modules that `module` imports, wherever in the file."""
    path = ROOT / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (known(f"{node.module}.{alias.name}", node.module) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def known(longer: str, shorter: str) -> str:
    """`from package import name`: the module, if `name` is one."""
    path = ROOT / Path(*longer.split("."))
    return longer if path.is_dir() or path.with_suffix(".py").exists() else shorter


def ours(module: str) -> bool:
    return module.partition(".")[0] in {"tuner", "launchers", "search_spaces"}


@pytest.mark.parametrize("module", modules())
def test_imports_only_go_down(module: str) -> None:
    upward = [other for other in imports_of(module) if ours(other) and layer_of(other) > layer_of(module)]
    assert not upward, f"{module} imports from a layer above its own: {upward}"


def test_no_two_modules_import_each_other_however_far_round() -> None:
    graph = {module: {other for other in imports_of(module) if ours(other)} for module in modules()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join((*trail, module))
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("launchers")])
def test_no_launcher_imports_an_engine(module: str) -> None:
    assert not {other.partition(".")[0] for other in imports_of(module)} & {"vllm", "sglang", "torch"}
