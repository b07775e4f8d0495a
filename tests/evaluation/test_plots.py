from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar import metrics
from whichcar.evaluation import plots


def matrix_of(classes: int) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, classes * 8)
    predicted = np.where(rng.random(len(labels)) < 0.2, rng.integers(0, classes, len(labels)), labels)
    return metrics.confusion(labels, predicted, classes), [
        f"Make Model Number {n:03d} Sedan 2012" for n in range(classes)
    ]


@pytest.mark.parametrize(
    ("classes", "pixels_a_class"), [(2, 40), (12, 40), pytest.param(196, 15, marks=pytest.mark.slow)]
)
def test_the_confusion_matrix_has_room_for_a_name_and_a_number_in_each_row(
    tmp_path: Path, classes: int, pixels_a_class: int
) -> None:
    plots.plot_confusion(tmp_path / "plots" / "confusion.png", *matrix_of(classes))
    with Image.open(tmp_path / "plots" / "confusion.png") as image:
        assert image.width >= classes * pixels_a_class
        assert image.width < 6000


def test_correct_predictions_are_green_and_errors_red(tmp_path: Path) -> None:
    plots.plot_confusion(tmp_path / "confusion.png", np.array([[9, 9], [0, 9]]), ["a", "b"])
    with Image.open(tmp_path / "confusion.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    green = (pixels[:, 1] > pixels[:, 0] + 40).mean()
    red = (pixels[:, 0] > pixels[:, 1] + 40).mean()
    assert green > red > 0.02


def test_classes_of_a_make_are_side_by_side(tmp_path: Path) -> None:
    names = ["2010 Audi A4 Sedan", "2010 Ford Focus Sedan", "2011 Audi A4 Sedan", "2011 Ford Focus Sedan"]
    mixed = np.kron(np.ones((2, 2), np.int64), 5 * np.eye(2, dtype=np.int64))  # years of one make are confused
    plots.plot_confusion(tmp_path / "mixed.png", mixed, names)
    plots.plot_confusion(
        tmp_path / "sorted.png",
        np.kron(5 * np.eye(2, dtype=np.int64), np.ones((2, 2), np.int64)),
        [names[number] for number in (0, 2, 1, 3)],
    )
    assert (tmp_path / "mixed.png").read_bytes() == (tmp_path / "sorted.png").read_bytes()


def test_more_classes_than_names_can_be_read_are_drawn_as_colours(tmp_path: Path) -> None:
    plots.plot_confusion(tmp_path / "confusion.png", *matrix_of(300))
    with Image.open(tmp_path / "confusion.png") as image:
        assert image.width < 6000


def test_plots_leave_no_global_state_of_matplotlib(tmp_path: Path) -> None:
    matrix, names = matrix_of(5)
    loaded = "matplotlib.pyplot" in sys.modules
    plots.plot_confusion(tmp_path / "confusion.png", matrix, names)
    assert ("matplotlib.pyplot" in sys.modules) == loaded


HOSTILE = [
    "Ba$$in 2012",
    "$x$ and $y",
    "a\\$b$c",
    "长城 Haval 2014",
    "🚗 car",
    "a\nb",
    "\udcff",
    "x" * 300,
    "{%s}_^",
    "$\\bad$",
]


def test_any_name_can_be_drawn(tmp_path: Path) -> None:
    matrix = np.eye(len(HOSTILE), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.plot_confusion(tmp_path / "confusion.png", matrix, HOSTILE)
    with Image.open(tmp_path / "confusion.png") as image:
        assert max(image.size) < 4000


def test_the_heading_of_a_small_matrix_is_whole(tmp_path: Path) -> None:
    plots.plot_confusion(tmp_path / "confusion.png", np.eye(2, dtype=np.int64), ["a", "b"])
    with Image.open(tmp_path / "confusion.png") as image:
        edge = np.asarray(image.convert("L"))[:40, -12:]
    assert edge.min() > 200
