"""The architecture as a test: imports point down."""

import ast
import re
from pathlib import Path

import pytest

import whichcar

ROOT = Path(whichcar.__file__).parent
# From top to bottom; a module imports from its own layer or a lower one.
LAYERS = (
    {"cli", "cli_settings", "cli_streams", "demo", "summary", "__main__"},
    {"serving"},
    {"evaluation"},
    {"training"},
    {"detection"},
    {"data"},
    {"config_file", "config_problems"},
    {"config", "config_table", "config_section", "config_augmentations"},
    {"records", "files", "figures", "errors", "progress", "text", "metrics", "version", "environment", "install"},
)
HEAVY = {"keras", "tensorflow", "jax", "torch", "h5py", "tensorboardX"}
MAY_BE_HEAVY = {"training", "evaluation", "serving"}


def level(part: str) -> int:
    """0 is the top; `config_file` and its like belong to `config`."""
    part = "config" if part.startswith("config_") else part
    return next((number for number, layer in enumerate(LAYERS) if part in layer), -1)


def imported(tree: ast.AST) -> set[str]:
    """Every module an import names, wherever it stands, `from whichcar import x` as `whichcar.x`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names |= {f"{module}.{alias.name}" for alias in node.names} if module == "whichcar" else {module}
    return names


def upward_imports(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        here = path.relative_to(root).with_suffix("").parts[0]
        if here == "__init__":
            continue
        for name in sorted(imported(ast.parse(path.read_text(encoding="utf-8")))):
            _, _, inner = name.partition("whichcar.")
            part = inner.split(".")[0]
            if name.startswith("whichcar.") and level(part) < level(here):
                found.append(f"{path.relative_to(root)} imports {name}")
    return found


def test_every_module_has_a_layer() -> None:
    parts = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert all(level(part) >= 0 for part in parts - {"__init__"})


def test_imports_point_down() -> None:
    assert upward_imports(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "from whichcar.cli import run",
        "import whichcar.evaluation.evaluate",
        "from whichcar import demo",
        "from whichcar import __version__",
    ],
)
def test_an_upward_import_is_seen(tmp_path: Path, line: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images.py").write_text(f"def f() -> None:\n    {line}\n")
    assert len(upward_imports(tmp_path)) == 1


def test_only_training_and_above_know_the_frameworks() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        here = path.relative_to(ROOT).with_suffix("").parts[0]
        if here not in MAY_BE_HEAVY and path.name != "detectron.py":  # the adapter to a detector that needs torch
            names = {name.split(".")[0] for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
            assert not names & HEAVY, path


def test_files_of_json_are_read_in_one_place() -> None:
    # What these read is no file of ours: messages between processes, or text in a checkpoint, state, table or package.
    others = {"cluster.py", "cluster_link.py", "study.py", "state.py", "checkpoint.py", "parquet.py", "install.py"}
    reading = {path.name for path in ROOT.rglob("*.py") if "json.load" in path.read_text(encoding="utf-8")}
    assert reading == {"files.py", *others}


def test_printed_commands_are_quoted_in_one_place() -> None:
    quoting = {p.name for p in ROOT.rglob("*.py") if re.search(r"shlex\.(join|quote)", p.read_text(encoding="utf-8"))}
    assert quoting == {"text.py"}
