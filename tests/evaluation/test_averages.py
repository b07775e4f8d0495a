from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from whichcar.cli.main import run
from whichcar.errors import ConfigError, DataError
from whichcar.evaluation.evaluate import evaluate
from whichcar.inference.bundle import write_bundle

from ..bundles import colour_bundle, colour_network
from ..colours import make_experiment
from ..permissions import only

NAMES = ("Blue C/V Van 2012", "Green Coupe 2010", "Red Sedan 2011")


def left_half() -> Any:  # noqa: ANN401
    """A network that sees the left half of an image of 24 x 32 alone."""
    import keras

    image = keras.Input((24, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Cropping2D(((0, 0), (0, 16)))(image))
    head = keras.layers.Dense(3, "softmax", name="predictions")
    model = keras.Model(image, head(x))
    head.set_weights([np.fliplr(np.eye(3)) / 50, np.zeros(3)])
    return model


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Red images: one is green on its left half, and less so than red on the right one."""
    for number, left in enumerate(((250, 0, 0), (0, 60, 0))):
        pixels = np.full((24, 32, 3), (250, 0, 0), np.uint8)
        pixels[:, :16] = left
        path = tmp_path / "mine" / "Red Sedan 2011" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "mine"


def test_averages_are_reported_next_to_the_plain_figure(
    experiment: Path, tree: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = make_experiment(tmp_path / "experiments" / "halves", tree, left_half())
    command = ["evaluate", str(halves), "--data", str(images), "--tta", "flip", "--with", str(experiment)]
    assert run(command) == 0
    (folder,) = (halves / "evaluations").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["top_1"]["correct"] == 1, "the plain figure stays what it is"
    rows = [(row["of"], row["top_1"]["correct"], row["difference"]["value"]) for row in result["averages"]]
    assert rows == [(["flip"], 2, 0.5), ([str(experiment)], 2, 0.5), ([str(experiment), "flip"], 2, 0.5)]
    assert [level["name"] for level in result["averages"][0]["levels"]] == [level["name"] for level in result["levels"]]
    assert result["averages"][0]["levels"][0]["top_1"]["correct"] == 2
    assert result["command"] == f"whichcar evaluate {' '.join(command[1:])}"
    shown = capsys.readouterr().out
    assert "accuracy    50.0%" in shown
    assert "averaged   100.0%   (with flip: +50.0 points, 95 % interval" in shown and "; no difference shown)" in shown
    page = (folder / "report.html").read_text()
    assert "<h2>Averages</h2>" in page and "<td>flip</td><td class=n>100.0\u00a0%</td>" in page
    uses = json.loads((experiment / "test_uses.json").read_text())
    assert [use["times"] for use in uses.values()] == [1], "the other experiment used these images too"


def test_a_network_that_was_trained_on_the_images_is_warned_of(experiment: Path, tree: Path, tmp_path: Path) -> None:
    moved = tmp_path / "other" / "train"
    moved.parent.mkdir()
    (tree / "test").rename(moved)
    (moved / "Blue C-V Van 2012" / "01.jpg").unlink()
    other = make_experiment(tmp_path / "other_experiment", tmp_path / "other", left_half())
    result = evaluate(experiment, data=moved, others=[other])
    assert any(warning.startswith(f"{other}: ") and "training images" in warning for warning in result.warnings)


def test_a_model_is_warned_of_for_its_own_images_where_there_is_no_test_split(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "test")
    first, other = (make_experiment(tmp_path / name, tree, left_half()) for name in ("first", "other"))
    warnings = evaluate(first, others=[other]).warnings
    assert [warning for warning in warnings if warning.startswith("there is no test split")] == [warnings[0]]
    assert any(warning.startswith(f"{other}: ") and "validation images on which" in warning for warning in warnings)


def test_a_model_that_is_named_twice_or_whose_uses_cannot_be_counted_is_refused_at_once(
    experiment: Path,
    images: Path,
    tmp_path: Path,
    colour_model: object,
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = make_experiment(tmp_path / "other", tmp_path / "gone", colour_model)
    with pytest.raises(ConfigError, match=r"--with .*other: is named twice; name each model once"):
        evaluate(experiment, data=images, others=[other, f"{other}/../other"])
    experiment.chmod(0o777)  # also for the user that root is below
    with only(0o555, other), pytest.raises(DataError, match=r"other: cannot be written \(Permission denied\)"):
        evaluate(experiment, data=images, others=[other])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model = shutil.copy(bundle, tmp_path / "model.whichcar")
    with (
        only(0o555, Path.cwd()),
        pytest.raises(DataError, match=r"^evaluations: cannot be written \(Permission denied\)"),
    ):
        evaluate(experiment, data=images, others=[model])
    assert not list(experiment.rglob("test_uses.json"))


def test_classes_are_matched_by_name(
    experiment: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the uses of a bundle are counted
    order = [2, 0, 1]
    matrix = (np.fliplr(np.eye(3)) / 50)[:, order].astype(np.float32)
    names = tuple(NAMES[number] for number in order)
    folders = tuple(name.replace("/", "-") for name in names)
    bundle = colour_bundle(network=colour_network(matrix=matrix), class_names=names, class_folders=folders)
    write_bundle(bundle, tmp_path / "other.whichcar")
    (row,) = evaluate(experiment, data=images, others=[tmp_path / "other.whichcar"]).averages
    assert (row.levels[0].top_1.correct, row.paired.lost) == (2, 0)


def test_other_classes_and_other_augmentations_are_refused(
    experiment: Path, images: Path, tree: Path, tmp_path: Path
) -> None:
    names = (*NAMES[:2], "Pink Sedan 2011")
    other = make_experiment(tmp_path / "other", tree, left_half(), class_names=names)
    with pytest.raises(DataError, match=r"other: has other classes than .*'Pink Sedan 2011' is not in both"):
        evaluate(experiment, data=images, others=[other])
    with pytest.raises(ConfigError, match="tta: must be flip; got 'crop'"):
        evaluate(experiment, data=images, tta="crop")  # type: ignore[arg-type]
