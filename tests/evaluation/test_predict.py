from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.errors import CheckpointError, DataError
from whichcar.evaluation.classifier import Classifier
from whichcar.evaluation.predict import lines, pictures_named, predict, predict_from_folder
from whichcar.records import Box, Crop, Prediction, Skipped

Painter = Callable[..., Path]
NAMES = ["Blue", "Green", "Red"]
RED, GREEN, BLUE = (210, 40, 30), (30, 190, 40), (30, 40, 200)


@pytest.fixture
def cars(tmp_path: Path, painter: Painter) -> Path:
    for number, (name, colour) in enumerate({"Red": RED, "Blue": BLUE, "Green": GREEN}.items()):
        for copy in range(3):
            painter(tmp_path / "cars" / name / f"{copy}.jpg", colour, seed=10 * number + copy)
    painter(tmp_path / "cars" / "Green" / "3.jpg", RED)
    (tmp_path / "cars" / ".DS_Store").write_bytes(b"x")
    return tmp_path / "cars"


def left_edge_model() -> object:
    """A Keras model that looks at the leftmost eighth of the picture only."""
    import keras

    image = keras.Input((32, 32, 3))
    edge = keras.layers.Cropping2D(((0, 0), (0, 28)))(image)
    head = keras.layers.Dense(3, "softmax")
    model = keras.Model(image, head(keras.layers.GlobalAveragePooling2D()(edge)))
    head.set_weights([np.fliplr(np.eye(3)) / 50, np.zeros(3)])
    return model


def test_predict_from_folder_gives_two_equally_long_lists_of_class_names(cars: Path, colour_model: object) -> None:
    predictions, labels = predict_from_folder(str(cars), colour_model, 32, NAMES)
    assert labels == ["Blue"] * 3 + ["Green"] * 4 + ["Red"] * 3
    assert predictions == ["Blue"] * 3 + ["Green"] * 3 + ["Red"] + ["Red"] * 3


@pytest.mark.parametrize("size", [24, (24, 32), [32, 24]])
def test_the_input_size_is_one_number_or_height_and_width(cars: Path, colour_model: object, size: object) -> None:
    predictions, _ = predict_from_folder(cars, colour_model, size, NAMES)  # type: ignore[arg-type]
    assert len(predictions) == 10


def test_pictures_are_squeezed_and_not_cropped(tmp_path: Path) -> None:
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:] = GREEN
    wide[:, :60] = RED  # a centre crop, or a crop to a square, would lose this strip
    wide[:, 340:] = BLUE
    (tmp_path / "x").mkdir()
    Image.fromarray(wide).save(tmp_path / "x" / "wide.png")
    assert predict_from_folder(tmp_path, left_edge_model(), 32, NAMES) == (["Red"], ["x"])


def test_a_wrong_number_of_class_names_is_refused(cars: Path, colour_model: object) -> None:
    with pytest.raises(CheckpointError, match="3 values a picture, but 2 class names"):
        predict_from_folder(cars, colour_model, 32, ["Blue", "Green"])


def test_an_unreadable_picture_is_left_out_of_both_lists_and_logged(
    cars: Path, colour_model: object, caplog: pytest.LogCaptureFixture
) -> None:
    (cars / "Red" / "broken.jpg").write_bytes(b"nothing")
    with caplog.at_level(logging.WARNING):
        predictions, labels = predict_from_folder(cars, colour_model, 32, NAMES)
    assert len(predictions) == len(labels) == 10
    assert "broken.jpg: left out" in caplog.text


@pytest.mark.parametrize("content", [None, [], [b"broken"]])
def test_a_folder_without_a_readable_picture_is_an_error(
    tmp_path: Path, colour_model: object, content: list[bytes] | None
) -> None:
    folder = tmp_path / "folder"
    for number, data in enumerate(content or []):
        (folder / "x").mkdir(parents=True)
        (folder / "x" / f"{number}.jpg").write_bytes(data)
    if content == []:
        folder.mkdir()
    with pytest.raises(DataError, match="folder"):
        predict_from_folder(folder, colour_model, 32, NAMES)


def test_files_folders_and_a_list_name_pictures(cars: Path) -> None:
    listing = [f"{cars / 'Red' / '0.jpg'}\n", "\n", f"{cars / 'Blue'}\r\n"]
    named = list(pictures_named([cars / "Green", "-", "gone.jpg"], listing))
    shown = [path.relative_to(cars).as_posix() for path in named[:-1]]
    assert shown == [*(f"Green/{n}.jpg" for n in range(4)), "Red/0.jpg", *(f"Blue/{n}.jpg" for n in range(3))]
    assert named[-1] == Path("gone.jpg")


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures in it"):
        list(pictures_named([tmp_path]))


def test_a_list_is_read_as_it_comes(cars: Path) -> None:
    def listing() -> object:
        yield str(cars / "Red" / "0.jpg")
        raise AssertionError("read too far")

    assert next(pictures_named(["-"], listing())) == cars / "Red" / "0.jpg"  # type: ignore[arg-type]


def test_unreadable_files_are_rows(experiment: Path, cars: Path, tmp_path: Path) -> None:
    rows = list(predict(experiment, [cars / "Red" / "0.jpg", tmp_path / "gone.jpg"], top=2))
    assert isinstance(rows[0], Prediction) and rows[0].best == "Red Sedan 2011"
    assert isinstance(rows[1], Skipped) and "no such file" in rows[1].reason


def test_no_usable_picture_at_all_is_an_error_after_the_rows(experiment: Path, tmp_path: Path) -> None:
    rows = predict(Classifier(experiment), [tmp_path / "a.jpg", tmp_path / "b.jpg"])
    assert isinstance(next(rows), Skipped)
    assert isinstance(next(rows), Skipped)
    with pytest.raises(DataError, match="not one of 2 pictures could be read"):
        next(rows)
    with pytest.raises(DataError, match="no picture was given"):
        list(predict(Classifier(experiment), []))


ROWS: list[Prediction | Skipped] = [
    Prediction(Path("a, b.jpg"), ("Acura TL 2012", "Audi S4 2007"), (0.91, 0.05)),
    Skipped(Path("c.jpg"), "the file is empty"),
]


def test_json_has_one_object_a_line() -> None:
    first, second = map(json.loads, lines(ROWS, "json", top=2))
    assert first["path"] == "a, b.jpg"
    assert (first["prediction"], first["probability"]) == ("Acura TL 2012", 0.91)
    assert (first["class_2"], first["probability_2"], first["problem"]) == ("Audi S4 2007", 0.05, None)
    assert second == {"path": "c.jpg", "problem": "the file is empty"}


CAR = Crop("a.jpg", Box(3, 4, 50, 60), "truck", 0.8317, 3, "cropped")
NO_CAR = Crop("cat.jpg", Box(0, 0, 90, 70), "", None, 0, "whole: no vehicle")


def test_what_an_image_was_cropped_to_is_in_table_json_and_csv() -> None:
    rows = [Prediction(Path("a.jpg"), ("A", "B"), (0.9, 0.1), CAR), Prediction(Path("cat.jpg"), ("B",), (0.8,), NO_CAR)]
    assert list(lines(rows, "table", top=2, width=1)) == [
        "   90.0%  A  a.jpg  (truck 0.83, box 3,4,50,60, 1 of 3 vehicles)",
        "   10.0%  B",
        "   80.0%  B  cat.jpg  (no vehicle found, whole image used)",
    ]
    car = {"vehicle": "truck", "vehicle_score": 0.8317, "candidates": 3, "outcome": "cropped"}
    car |= {"left": 3, "top": 4, "right": 50, "bottom": 60}
    cat = {"vehicle": None, "vehicle_score": None, "candidates": 0, "outcome": "whole: no vehicle"}
    cat |= {"left": 0, "top": 0, "right": 90, "bottom": 70}
    for row, crop in zip(map(json.loads, lines(rows, "json", top=2)), (car, cat), strict=True):
        assert row | crop == row
    for line, crop in zip(csv.DictReader(lines(rows, "csv", top=2, crop=True), strict=True), (car, cat), strict=True):
        cells = {name: "" if value is None else str(value) for name, value in crop.items()}
        assert line | cells == line


def test_rows_make_a_data_frame_of_plain_cells() -> None:
    pandas = pytest.importorskip("pandas")
    rows = [Prediction(Path("a.jpg"), ("A", "B"), (0.9, 0.1), CAR), *ROWS]
    frame = pandas.DataFrame([row.as_row() for row in rows])
    assert frame["prediction"].tolist()[:2] == ["A", "Acura TL 2012"]
    assert frame["problem"].notna().tolist() == [False, False, True]
    assert not any(isinstance(cell, tuple | list | dict) for cell in frame.to_numpy().ravel())


def test_csv_has_a_header_and_as_many_cells_in_every_row() -> None:
    rows = list(csv.DictReader(lines(ROWS, "csv", top=3), strict=True))
    assert rows[0]["path"] == "a, b.jpg"
    assert (rows[0]["prediction"], rows[0]["class_2"], rows[0]["probability_3"]) == (
        "Acura TL 2012",
        "Audi S4 2007",
        "",
    )
    assert (rows[1]["prediction"], rows[1]["problem"]) == ("", "the file is empty")


def test_the_table_aligns_classes_and_names_the_picture_once() -> None:
    assert list(lines(ROWS, "table", top=2, width=14)) == [
        "   91.0%  Acura TL 2012   a, b.jpg",
        "    5.0%  Audi S4 2007",
        "       -  not readable    c.jpg: the file is empty",
    ]
