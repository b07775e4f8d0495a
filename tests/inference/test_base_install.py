"""The base install, without Keras, its backends, h5py and matplotlib, predicts and evaluates with a bundle."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from ..colours import FOLDERS

ABSENT = ("keras", "tensorflow", "jax", "torch", "matplotlib", "h5py", "tensorboardX", "pandas", "plotly", "onnx")
WITHOUT = f"""
import sys
from importlib.machinery import PathFinder

class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT!r} else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from whichcar.cli.main import run
"""


def test_prediction_and_evaluation_need_only_the_base(tree: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "model.h5").touch()
    image = tree / "test" / FOLDERS[2] / "21.jpg"
    code = (
        WITHOUT
        + f"""
assert run(["predict", {str(image)!r}, "--model", {str(bundle)!r}, "--crop", "--json"]) == 0
assert run(["evaluate", "--model", {str(bundle)!r}, "--data", {str(tree / "test")!r}]) == 0
assert run(["predict", "experiments/exp_1", {str(image)!r}]) == 2
assert run(["export", "model.h5"]) == 2
assert not set({ABSENT!r}) & set(sys.modules)
"""
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[0])
    assert row["prediction"] == "Red Sedan 2011" and row["outcome"]
    (folder,) = (tmp_path / "evaluations").glob("colours.whichcar-*")
    result = json.loads((folder / "result.json").read_text())
    assert (result["experiment"], result["top_1"]["correct"], result["top_1"]["total"]) == ("colours", 4, 5)
    assert (folder / "report.html").is_file() and not (folder / "plots").exists()
    assert "error: onnx is not installed; install it with" in done.stderr
    assert "matplotlib is not installed; install it with" in done.stderr
    assert (tmp_path / "evaluations" / "test_uses.json").is_file()


@pytest.mark.slow
@pytest.mark.network
def test_a_real_environment_with_the_base_alone_predicts(tree: Path, bundle: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    program = tmp_path / "venv" / "bin"
    checkout = Path(__file__).parents[2]
    subprocess.run(
        [program / "pip", "install", "-q", "-c", checkout / "constraints.txt", checkout], check=True, timeout=600
    )
    command = [program / "whichcar", "predict", tree / "test", "--model", bundle, "--csv", "--top", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PATH": ""})
    rows = {Path(row["path"]).name: row for row in csv.DictReader(done.stdout.splitlines())}
    assert rows["21.jpg"]["prediction"] == "Red Sedan 2011"
    assert rows["01.jpg"]["problem"]
    assert subprocess.run([program / "python", "-c", "import keras"], capture_output=True).returncode
