from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.cli import main
from whichcar.errors import CheckpointError, DataError
from whichcar.inference.bundle import write_bundle
from whichcar.inference.predict import columns, lines, names_of, one_usable, predict, predict_from_folder
from whichcar.records import Answer, Box, Crop, Prediction, Skipped

from ..bundles import calibrated_for, colour_bundle

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
    """A Keras model that looks at the leftmost eighth of the image only."""
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


def test_images_are_resized_and_not_cropped(tmp_path: Path) -> None:
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:] = GREEN
    wide[:, :60] = RED  # a centre crop, or a crop to a square, would lose this strip
    wide[:, 340:] = BLUE
    (tmp_path / "x").mkdir()
    Image.fromarray(wide).save(tmp_path / "x" / "wide.png")
    assert predict_from_folder(tmp_path, left_edge_model(), 32, NAMES) == (["Red"], ["x"])


def test_a_wrong_number_of_class_names_is_refused(cars: Path, colour_model: object) -> None:
    with pytest.raises(CheckpointError, match="3 values an image, but 2 class names"):
        predict_from_folder(cars, colour_model, 32, ["Blue", "Green"])


def test_an_unreadable_image_is_left_out_of_both_lists_and_logged(
    cars: Path, colour_model: object, caplog: pytest.LogCaptureFixture
) -> None:
    (cars / "Red" / "broken.jpg").write_bytes(b"nothing")
    with caplog.at_level(logging.WARNING):
        predictions, labels = predict_from_folder(cars, colour_model, 32, NAMES)
    assert len(predictions) == len(labels) == 10
    assert "broken.jpg: left out" in caplog.text


@pytest.mark.parametrize("content", [None, [], [b"broken"]])
def test_a_folder_without_a_readable_image_is_an_error(
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


def test_a_dash_stands_for_the_lines_of_a_list() -> None:
    listing = io.BytesIO(b"\xef\xbb\xbfa b.jpg\r\n\n  \nfolder\ncaf\xe9.jpg")
    assert list(names_of(["first.jpg", "-", "last.jpg"], listing)) == [
        "first.jpg", "a b.jpg", "folder", os.fsdecode(b"caf\xe9.jpg"), "last.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_list_in_utf_16_is_refused(encoding: str) -> None:
    with pytest.raises(DataError, match="UTF-16; save it as UTF-8"):
        list(names_of(["-"], io.BytesIO("\ufeffa.jpg\n".encode(encoding))))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_an_image_on_standard_input_is_refused_before_a_line_of_it_is_taken_for_a_name(form: str) -> None:
    image = io.BytesIO()
    Image.fromarray(np.full((30, 40, 3), RED, np.uint8)).save(image, form)
    with pytest.raises(DataError, match=r"standard input is no text, such as an image; - reads a list of names"):
        next(names_of(["-"], io.BufferedReader(io.BytesIO(image.getvalue()))))
    with pytest.raises(DataError, match="standard input is no text"):
        list(names_of(["-"], io.BytesIO(b"a.jpg\nb\0.jpg\n")))


@pytest.mark.parametrize("name", ["a\0b.jpg", "a\0*.jpg", "https://example.org/a\0.jpg"])
def test_a_name_with_a_nul_character_is_a_row_that_says_so(bundle: Path, name: str) -> None:
    assert predict(bundle, [name]) == [
        Skipped(name, "holds a NUL character, as no path does; check what wrote this name")
    ]


def test_a_list_from_a_closed_standard_input_is_refused() -> None:
    with pytest.raises(DataError, match="standard input is closed"):
        list(names_of(["-"], None))


def test_a_list_is_read_as_it_comes() -> None:
    with os.fdopen(os.open(os.devnull, os.O_RDONLY), "rb") as nothing:
        assert list(names_of(["-"], nothing)) == []
    read, write = os.pipe()
    with os.fdopen(read, "rb") as listing, os.fdopen(write, "wb", buffering=0) as writer:
        names = names_of(["-"], listing)
        writer.write(b"a.jpg\n")
        assert next(names) == "a.jpg"  # would wait for ever if it needed the end


def test_unreadable_files_are_rows(experiment: Path, cars: Path, tmp_path: Path) -> None:
    rows = predict(str(experiment), [cars / "Red" / "0.jpg", tmp_path / "gone.jpg"], top=2)
    assert isinstance(rows[0], Prediction) and rows[0].best == "Red Sedan 2011"
    assert isinstance(rows[1], Skipped) and "no such file" in rows[1].reason


def test_no_usable_image_at_all_is_an_error_after_the_rows() -> None:
    rows = one_usable([Skipped(Path("a.jpg"), "gone"), Skipped(Path("b.jpg"), "gone")])
    assert isinstance(next(rows), Skipped)
    assert isinstance(next(rows), Skipped)
    with pytest.raises(DataError, match="none of 2 paths could be used"):
        next(rows)
    with pytest.raises(DataError, match="no image was given"):
        list(one_usable([]))


def test_a_folder_without_images_is_a_row_among_the_others(
    experiment: Path, cars: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    asked = [str(experiment), str(cars / "Red"), str(tmp_path / "empty"), str(cars / "Blue"), "--csv", "--top", "1"]
    assert main.run(["predict", *asked]) == 0
    printed = capsys.readouterr()
    rows = list(csv.DictReader(printed.out.splitlines()))
    assert [row["prediction"][:3] for row in rows] == ["Red"] * 3 + [""] + ["Blu"] * 3
    assert rows[3]["path"] == str(tmp_path / "empty")
    assert rows[3]["problem"].startswith("no images in it")
    assert printed.err == ""


def test_only_unusable_paths_are_rows_and_status_2(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main.run(["predict", str(experiment), str(tmp_path / "empty"), str(tmp_path / "gone.jpg"), "--json"]) == 2
    printed = capsys.readouterr()
    assert [json.loads(line)["path"] for line in printed.out.splitlines()] == [
        str(tmp_path / "empty"), str(tmp_path / "gone.jpg"),
    ]  # fmt: skip
    assert printed.err == (
        "error: predict: none of 2 paths could be used; "
        "name image files, folders with images, or - for a list of paths\n"
    )


def test_an_interrupted_prediction_keeps_the_rows_printed_so_far(
    experiment: Path, cars: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stream(*_: object) -> Iterator[Prediction]:
        yield Prediction(cars / "Red" / "0.jpg", ("Red Sedan 2011",), (0.9,))
        raise KeyboardInterrupt

    monkeypatch.setattr("whichcar.inference.classifier.Classifier.stream", stream)
    assert main.run(["predict", str(experiment), str(cars), "--csv", "--top", "1"]) == 130
    printed = capsys.readouterr()
    assert [row["prediction"] for row in csv.DictReader(printed.out.splitlines())] == ["Red Sedan 2011"]
    assert printed.err == (
        "\ninterrupted; the rows printed so far are complete\nrun the same command again to classify all images\n"
    )


ROWS: list[Prediction | Skipped] = [
    Prediction(Path("a, b.jpg"), ("Acura TL 2012", "Audi S4 2007"), (0.91, 0.05)),
    Skipped(Path("c.jpg"), "the file is empty"),
]


@pytest.mark.parametrize("crop", [False, True])
def test_json_has_one_object_a_line_with_the_same_keys_as_the_csv_has_columns(crop: bool) -> None:
    first, second = map(json.loads, lines(ROWS, "json", columns(2, crop)))
    header = next(lines(ROWS, "csv", columns(2, crop))).split(",")
    assert list(first) == list(second) == header
    assert first["path"] == "a, b.jpg"
    assert (first["prediction"], first["probability"]) == ("Acura TL 2012", 0.91)
    assert (first["class_2"], first["probability_2"], first["problem"]) == ("Audi S4 2007", 0.05, None)
    assert second == dict.fromkeys(header) | {"path": "c.jpg", "problem": "the file is empty"}


CAR = Crop("a.jpg", Box(3, 4, 50, 60), "truck", 0.8317, 3, "cropped")
NO_CAR = Crop("cat.jpg", Box(0, 0, 90, 70), "", None, 0, "whole: no vehicle")


def test_what_an_image_was_cropped_to_is_in_table_json_and_csv() -> None:
    rows = [Prediction(Path("a.jpg"), ("A", "B"), (0.9, 0.1), CAR), Prediction(Path("cat.jpg"), ("B",), (0.8,), NO_CAR)]
    assert list(lines(rows, "table", columns(2), width=1)) == [
        "   90.0%  A  a.jpg  (truck 0.83, box 3,4,50,60, 1 of 3 vehicles)",
        "   10.0%  B",
        "   80.0%  B  cat.jpg  (no vehicle found, whole image used)",
    ]
    alone = Prediction(Path("a.jpg"), ("A",), (0.9,), dataclasses.replace(CAR, candidates=1))
    assert next(lines([alone], "table", columns(1))).endswith("a.jpg  (truck 0.83, box 3,4,50,60, the only vehicle)")
    car = {"vehicle": "truck", "vehicle_score": 0.8317, "candidates": 3, "outcome": "cropped"}
    car |= {"left": 3, "top": 4, "right": 50, "bottom": 60}
    cat = {"vehicle": None, "vehicle_score": None, "candidates": 0, "outcome": "whole: no vehicle"}
    cat |= {"left": 0, "top": 0, "right": 90, "bottom": 70}
    for row, crop in zip(map(json.loads, lines(rows, "json", columns(2, crop=True))), (car, cat), strict=True):
        assert row | crop == row
    for line, crop in zip(
        csv.DictReader(lines(rows, "csv", columns(2, crop=True)), strict=True), (car, cat), strict=True
    ):
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
    rows = list(csv.DictReader(lines(ROWS, "csv", columns(3)), strict=True))
    assert rows[0]["path"] == "a, b.jpg"
    assert (rows[0]["prediction"], rows[0]["class_2"], rows[0]["probability_3"]) == (
        "Acura TL 2012",
        "Audi S4 2007",
        "",
    )
    assert (rows[1]["prediction"], rows[1]["problem"]) == ("", "the file is empty")


def test_a_path_with_line_breaks_is_one_row_of_csv() -> None:
    rows = [Prediction(Path("a\nb\r.jpg"), ("A",), (0.9,)), Skipped(Path("c.jpg"), "gone")]
    text = "".join(f"{line}\n" for line in lines(rows, "csv", columns(1)))
    assert [row["path"] for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)] == [
        "a\nb\r.jpg",
        "c.jpg",
    ]


def test_the_table_aligns_classes_and_names_the_image_once() -> None:
    assert list(lines(ROWS, "table", columns(2), width=14)) == [
        "   91.0%  Acura TL 2012   a, b.jpg",
        "    5.0%  Audi S4 2007",
        "       -  not readable    c.jpg: the file is empty",
    ]


def test_a_class_name_with_a_line_break_stays_on_its_row_of_the_table() -> None:
    row = Prediction(Path("a.jpg"), ("Red\nSedan", "Blue\tVan"), (0.9, 0.1))
    broken = Skipped(Path("b.jpg"), "no\nimage")
    assert list(lines([row, broken], "table", columns(2), width=10)) == [
        "   90.0%  Red\\nSedan  a.jpg",
        "   10.0%  Blue\\tVan",
        "       -  not readable  b.jpg: no\\nimage",
    ]


def test_an_answer_is_all_that_a_row_of_the_table_shows() -> None:
    answers = (Answer("class", "Audi S4 2012", 0.97), Answer("make", "Audi", 0.9612), Answer("", "unknown", 0.4))
    rows = [Prediction(f"{number}.jpg", ("a", "b"), (0.7, 0.3), None, one) for number, one in enumerate(answers)]
    assert list(lines(rows, "table", columns(2), 14)) == [
        "   97.0%  Audi S4 2012    0.jpg",
        "   96.1%  Audi (make)     1.jpg",
        "       -  unknown         2.jpg",
    ]


def test_the_command_answers_as_specifically_as_the_accuracy_allows(
    tmp_path: Path, painter: Painter, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("Audi A4 Sedan 2012", "Ford Focus Sedan 2010", "Ford Fiesta Sedan 2011")  # blue, green and red
    least = {"class": 0.8, "make": 0.9}
    bundle = colour_bundle(class_names=names, class_folders=names, thresholds=calibrated_for(least))
    write_bundle(bundle, tmp_path / "a.whichcar")
    painter(tmp_path / "red.jpg", RED)
    painter(tmp_path / "yellow.jpg", (170, 170, 30))
    painter(tmp_path / "grey.jpg", (120, 120, 120))
    command = ["predict", str(tmp_path / "a.whichcar"), str(tmp_path), "--confidence", "0.9", "--top", "1"]
    assert main.run([*command, "--csv"]) == 0
    rows = {Path(row["path"]).stem: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert {name: (row["answer"], row["answer_level"]) for name, row in rows.items()} == {
        "red": ("Ford Fiesta Sedan 2011", "class"),
        "yellow": ("Ford", "make"),
        "grey": ("unknown", ""),
    }
    assert float(rows["yellow"]["probability"]) < 0.8 < float(rows["yellow"]["answer_probability"])
    output = ["--output", str(tmp_path / "answers.jsonl")]
    assert main.run([*command, *output]) == 0
    assert main.run([*command, *output, "--confidence", "0.99"]) == 2
    assert "was written with --confidence 0.9, now with --confidence 0.99" in capsys.readouterr().err
