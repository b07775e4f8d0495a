"""The notebooks run from top to bottom, offline, hold no outputs and no logic."""

import ast
import base64
import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from whichcar.synthetic.draw import draw

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
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


def text_of(outputs: list[NotebookNode]) -> str:
    data = [output.get("data", {}) for output in outputs]
    return "".join(str(one.get("text/html", "")) or str(one.get("text/plain", "")) for one in data)


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    draw(tmp_path / "cars", classes=3, per_class=8, size=(48, 64))
    return tmp_path / "cars"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_neither_outputs_nor_logic(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, LOGIC)]
            assert len([line for line in cell.source.splitlines() if line and "import" not in line]) <= 5


def test_the_first_look_runs_on_cars_it_draws_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHICHCAR_EDA", raising=False)
    monkeypatch.delenv("WHICHCAR_DETECTOR", raising=False)
    outputs = run(NOTEBOOKS[0], tmp_path)
    assert "no detector: write a file" in text_of(outputs)
    assert "<td>72</td>" in text_of(outputs)
    figures = [output for output in outputs if "application/vnd.plotly.v1+json" in output.get("data", {})]
    assert len(figures) == 7
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def test_the_first_look_runs_on_a_folder_and_cuts_with_a_detector(
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
