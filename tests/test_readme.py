"""What the README and the documentation show is what the program does."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from whichcar.data import boxes
from whichcar.data.check import issues, quarantine
from whichcar.evaluation.evaluate import evaluate
from whichcar.search import results
from whichcar.training.hardware import Hardware
from whichcar.training.run.folder import environment
from whichcar.training.run.history import Epoch

from .documented import described, undocumented

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXPERIMENTS = ROOT / "experiments" / "README.md"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of all table rows of a page."""
    return [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_the_programs_own(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == generator().filled(text), "run: python docs/generate.py"


def test_every_generated_table_is_on_some_page() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(text.count(f"<!-- {name} -->\n") == 1 for name in generator().TABLES)


def test_a_table_that_differs_is_seen() -> None:
    assert "`seed`" in generator().filled("<!-- settings -->\n| old |\n<!-- /settings -->\n")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 170


def test_the_results_of_the_readme_are_those_of_the_experiments() -> None:
    measured = {row[0]: row for row in reversed(rows_of(EXPERIMENTS.read_text(encoding="utf-8")))}
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## Results")[1].split("\n## ")[0]
    shown = rows_of(text)[2:]
    assert len(shown) >= 3
    for name, _, *numbers in shown:
        assert set(numbers) <= set(measured[name])


def test_the_speed_of_the_readme_is_that_of_the_benchmarks() -> None:
    measured = {cell for row in rows_of((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")) for cell in row}
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## Speed")[1].split("\n## ")[0]
    numbers = re.findall(r"([\d.]+) images/s|\*\*([\d.]+)\*\*", text)
    assert len(numbers) >= 9
    assert all(rate in measured or f"**{ratio}**" in measured for rate, ratio in numbers)


def test_dependencies_and_their_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {"base": project["dependencies"], **project["optional-dependencies"]}
    needed = {(re.split(r"[\s\[<>=;]", line)[0].lower(), extra) for extra, lines in extras.items() for line in lines}
    rows = rows_of((ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8"))[2:]
    assert all(purpose for _, purpose, _ in rows)
    names = [(re.sub(r"\[[^]]*\]| \([^)]*\)", "", row[0]).lower().split(", "), row[2]) for row in rows]
    listed = {(name, extra) for some, where in names for name in some for extra in re.findall(r"\w+", where)}
    shared = {("pytest", "reference"), ("onnx", "reference"), ("fsspec", "hf")}  # with their first purpose
    assert needed - shared == listed


def test_the_architecture_lists_the_packages_there_are() -> None:
    rows = rows_of((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    package = ROOT / "src" / "whichcar"
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert listed == {name for name in there if not name.startswith("__")}


@pytest.mark.parametrize("page", [*PAGES, EXPERIMENTS], ids=lambda page: page.name)
def test_a_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_readme_links_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"](docs/{page.name})" not in readme] == []


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "settings" / "index.html").read_text(encoding="utf-8")
    assert "<code>fit.epochs</code>" in page
    assert not re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?https?://""", page)


COLUMNS: dict[str, Callable[[], set[str]]] = {
    "boxes.csv": lambda: set(boxes.COLUMNS),
    "issues.csv": lambda: set(issues.COLUMNS),
    "quarantine.csv": lambda: set(quarantine.COLUMNS),
    "trials.csv": lambda: set(results.COLUMNS),
    "history.csv": lambda: {field.name for field in fields(Epoch)},
    "environment.json": lambda: set(environment(Hardware("tensorflow", "float32", "processor", 2))),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_is_described(name: str) -> None:
    assert COLUMNS[name]() <= described()[name]


def test_every_field_that_an_evaluation_writes_is_described(experiment: Path, tree: Path) -> None:
    evaluate(experiment)
    written = {path.name for path in experiment.iterdir()}
    assert {"result.json", "predictions.csv", "test_uses.json"} <= written
    assert undocumented(experiment) == []
    assert undocumented(tree) == []  # split.json


def test_a_field_without_a_description_is_seen(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"top_1": {"value": 1, "guess": 2}, "versions": {"keras": "3"}}')
    (tmp_path / "unknown.csv").write_text("a,b\n")
    assert undocumented(tmp_path) == ["result.json: guess", "unknown.csv: a", "unknown.csv: b"]
