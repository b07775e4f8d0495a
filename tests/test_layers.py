"""The architecture as a test: imports point down."""

import ast
import re
from pathlib import Path

import pytest

import whichcar

ROOT = Path(whichcar.__file__).parent
# From top to bottom; a module imports from its own layer or a lower one.
LAYERS = (
    {"__main__"},
    {"cli"},
    {"scale"},
    {"serving"},
    {"exporting"},
    {"evaluation"},
    {"inference"},
    {"search"},
    {"training"},
    {"detection", "synthetic"},
    {"data"},
    {"config"},
    {"images", "metrics", "taxonomy", "figures", "pages"},
    {"records", "files", "progress", "parallel", "environment", "onnx_session", "ray_cluster"},
    {"errors", "text", "install", "version"},
)
# The same inside the two largest packages.
INSIDE = {
    "data": (
        {"check", "explore"},
        {"dataset", "decoded_cache"},
        {"split"},
        {"duplicates", "fetch"},
        {"identity", "boxes"},
        {"labels"},
        {"structure"},
        {"split_names", "split_record"},
    ),
    "training": (
        {"refit"},
        {"new", "train"},
        {"throughput"},
        {"loop"},
        {"resuming"},
        {"tracking", "feature_cache", "memory", "remarks", "validation"},
        {"setup"},
        {"sizes"},
        {"usable", "weights"},
        {"run"},
        {"network"},
        {"batches", "hardware"},
        {"devices"},
        {"hosts"},
        {"mixup", "rand_augment", "recipe"},
        {"budget"},
    ),
}
HEAVY = {"keras", "tensorflow", "jax", "torch", "h5py", "tensorboardX"}
MAY_BE_HEAVY = {"exporting", "training", "search", "inference", "evaluation"}


def level(part: str, layers: tuple[set[str], ...]) -> int:
    """0 is the top, -1 is nowhere."""
    return next((number for number, layer in enumerate(layers) if part in layer), -1)


def imported(tree: ast.AST) -> set[str]:
    """Every module an import may name, wherever it stands; `from whichcar import x` may name `whichcar.x`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            packages = {"whichcar", *(f"whichcar.{package}" for package in INSIDE)}
            names |= {f"{module}.{alias.name}" for alias in node.names} if module in packages else {module}
    return names


def points_up(importer: list[str], target: list[str]) -> bool:
    if importer[0] != target[0]:
        return level(target[0], LAYERS) < level(importer[0], LAYERS)
    ranks = INSIDE.get(importer[0], ())
    return len(importer) > 1 < len(target) and level(target[1], ranks) < level(importer[1], ranks)


def upward_imports(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        importer = list(path.relative_to(root).with_suffix("").parts)
        if importer == ["__init__"]:
            continue
        for name in sorted(imported(ast.parse(path.read_text(encoding="utf-8")))):
            package, *target = name.split(".")
            if package == "whichcar" and target and points_up(importer, target):
                found.append(f"{path.relative_to(root)} imports {name}")
    return found


def parts_of(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}


def test_every_module_has_a_layer() -> None:
    assert {part for part in parts_of(ROOT) - {"__init__"} if level(part, LAYERS) < 0} == set()
    for package, ranks in INSIDE.items():
        assert {part for part in parts_of(ROOT / package) - {"__init__"} if level(part, ranks) < 0} == set()


def test_imports_point_down() -> None:
    assert upward_imports(ROOT) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("data/fetch/parquet.py", "from whichcar.cli.main import run"),
        ("data/labels.py", "import whichcar.evaluation.evaluate"),
        ("images/read.py", "from whichcar import data"),
        ("text.py", "from whichcar.files import read_json"),
        ("data/duplicates/scan.py", "from whichcar.data.check.issues import Issue"),
        ("data/labels.py", "from whichcar.data import dataset"),
        ("training/network/resnet50.py", "from whichcar.training.run import state"),
        ("training/run/state.py", "import whichcar.training.setup"),
    ],
)
def test_an_upward_import_is_seen(tmp_path: Path, module: str, line: str) -> None:
    path = tmp_path / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"def f() -> None:\n    {line}\n")
    assert len(upward_imports(tmp_path)) == 1
    path.write_text("from whichcar.errors import DataError\n")
    assert upward_imports(tmp_path) == []


def test_only_training_and_above_know_the_frameworks() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        package = path.relative_to(ROOT).with_suffix("").parts[0]
        if package not in MAY_BE_HEAVY and path.name != "detectron.py":  # the adapter to a detector that needs torch
            names = {name.split(".")[0] for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
            assert not names & HEAVY, path


def test_files_of_json_are_read_in_one_place() -> None:
    # What these read is no JSON file: messages of processes, lines, or text in a checkpoint, state, table or package.
    others = {"ray_launcher.py", "study.py", "state.py", "checkpoint.py", "parquet.py", "install.py"}
    others |= {"output_file.py", "workers.py", "client.py", "manifest.py", "ray_run.py", "work.py"}
    others |= {"listed_folder.py", "crop.py"}
    reading = {path.name for path in ROOT.rglob("*.py") if "json.load" in path.read_text(encoding="utf-8")}
    assert reading == {"files.py", *others}


def test_printed_commands_are_quoted_in_one_place() -> None:
    quoting = {p.name for p in ROOT.rglob("*.py") if re.search(r"shlex\.(join|quote)", p.read_text(encoding="utf-8"))}
    assert quoting == {"text.py"}
