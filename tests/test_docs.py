"""What the project's own documents say must be there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "benchmarks", "results", "results/published", "scripts")
    for path in (ROOT / folder).glob("*.md")
)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path):
    links = [link for link in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("benchmark", sorted(path.stem for path in (ROOT / "benchmarks").glob("*.md")))
def test_every_published_figure_has_the_script_that_made_it(benchmark: str):
    text = (ROOT / "benchmarks" / f"{benchmark}.md").read_text(encoding="utf-8")
    scripts = re.findall(r"(?:benchmarks|scripts)/\w+\.py", text)
    assert scripts and all((ROOT / script).is_file() for script in scripts)
    assert re.search(r"\b20\d\d-\d\d-\d\d\b", text), "it says when"
