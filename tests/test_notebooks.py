"""The notebooks run from top to bottom, offline; they show their outputs and hold no logic."""

import ast
import base64
import io
import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from whichcar.evaluation.mcnemar import Paired
from whichcar.metrics import Proportion
from whichcar.synthetic.draw import draw

CHARTS = {"EDA": 7, "evaluation": 0}
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CHART = "application/vnd.plotly.v1+json"
LOGIC = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.Try, ast.Lambda, ast.comprehension)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def run(path: Path, folder: Path) -> list[NotebookNode]:
    """Return the outputs of a notebook; a cell that raises fails the test."""
    notebook = read(path)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def run_here(path: Path) -> list[object]:
    """Return what the cells of a notebook show, run in this process: the start of a kernel takes seconds."""
    names: dict[str, object] = {}
    shown = []
    for cell in read(path).cells:
        if cell.cell_type == "code":
            for statement in ast.parse(cell.source).body:
                if isinstance(statement, ast.Expr):
                    shown.append(eval(compile(ast.Expression(statement.value), path.name, "eval"), names))
                else:
                    exec(compile(ast.Module([statement], []), path.name, "exec"), names)
    return shown


def text_of(outputs: list[NotebookNode]) -> str:
    data = [output.get("data", {}) for output in outputs]
    return "".join(str(shown.get("text/html", "")) or str(shown.get("text/plain", "")) for shown in data)


def without_images(output: NotebookNode) -> tuple[str, list[str], str]:
    """Return an output's kind, its forms but for the PNG of a chart, and its text without style and images."""
    data = output.get("data", {})
    text = re.sub(
        r"<style>.*?</style>|base64,[^\"]*", "", str(data.get("text/html") or data.get("text/plain")), flags=re.DOTALL
    )
    forms = sorted(set(data) - {"image/png"})
    return output.output_type, forms, "" if CHART in forms else text


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    draw(tmp_path / "cars", classes=3, per_class=8, size=(48, 64))
    return tmp_path / "cars"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_logic(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, LOGIC)]
            assert len([line for line in cell.source.splitlines() if line and "import" not in line]) <= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_its_outputs_without_a_path_of_the_machine(path: Path) -> None:
    notebook = read(path)
    assert path.stat().st_size < 2_000_000
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"execute_result", "display_data"}
    charts = [output.data for output in outputs if CHART in output.data]
    assert len(charts) == CHARTS[path.stem] and all("image/png" in data for data in charts)
    assert not re.search(
        r"/(?:<wbr>)?(?:home|root|tmp|usr|work|var)/", " ".join(str(without_images(output)) for output in outputs)
    )


@pytest.mark.slow
def test_the_stored_outputs_are_those_of_a_run_on_drawn_cars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHICHCAR_EDA", raising=False)
    monkeypatch.delenv("WHICHCAR_DETECTOR", raising=False)
    stored = [output for cell in read(NOTEBOOKS[0]).cells for output in cell.get("outputs", [])]
    outputs = run(NOTEBOOKS[0], tmp_path)
    assert "<td>72</td>" in text_of(outputs)
    assert list(map(without_images, outputs)) == list(map(without_images, stored))


@pytest.mark.slow
def test_the_notebook_runs_on_a_folder_and_crops_with_a_detector(
    cars: Path, red_car_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((60, 80, 3), 128, np.uint8)
    image[20:40, 30:60] = 255, 0, 0
    for name in cars.glob("car_ims/*.jpg"):  # whichever is chosen, it has a red car
        Image.fromarray(image).save(name, quality=95)
    monkeypatch.setenv("WHICHCAR_EDA", str(cars))
    monkeypatch.setenv("WHICHCAR_DETECTOR", str(red_car_file))
    page = text_of(run(NOTEBOOKS[0], cars.parent))
    assert "<td>24</td>" in page
    crop = re.search(r'base64,([^"]+)"><figcaption>the crop, (\d+) x (\d+)<', page)
    assert crop
    inside = np.asarray(Image.open(io.BytesIO(base64.b64decode(crop[1]))))
    assert abs(int(crop[2]) - 30) <= 4 and abs(int(crop[3]) - 20) <= 4
    assert inside[:, :, 0].mean() > 200 and inside[:, :, 1].mean() < 60
    assert page.count("<div class=pair>") == 23


def test_the_evaluation_runs_on_an_experiment(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHICHCAR_EXPERIMENT", str(experiment))
    monkeypatch.chdir(tmp_path)
    *parts, averaged = run_here(NOTEBOOKS[1])
    page = "".join(getattr(part, "data", "") for part in parts)
    assert "correct on 4 of 5 test images" in page and "<td>Red Sedan 2011</td>" in page
    assert averaged == (("flip",), Proportion(4, 5), Paired(5, 0, 0))
    (use,) = json.loads((experiment / "test_uses.json").read_text()).values()
    assert use["times"] == 2
