from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import whichcar
from whichcar.cli import main
from whichcar.detection import zoo
from whichcar.errors import CheckpointError, ConfigError, DataError, ImageError
from whichcar.images.inputs import Given, each
from whichcar.inference.classifier import Classifier
from whichcar.records import Prediction, Skipped

from ..loopback import served_folder
from ..permissions import only

Painter = Callable[..., Path]
RED, GREEN, BLUE = (210, 40, 30), (30, 190, 40), (30, 40, 200)


@pytest.fixture(scope="module")
def classifier(colour_experiment: Path) -> Classifier:
    return Classifier(str(colour_experiment))


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (40, 50)) -> np.ndarray:
    return np.full((*size, 3), colour, np.uint8)


def predicted(rows: list[Prediction | Skipped]) -> list[str]:
    return [row.best.split()[0] if isinstance(row, Prediction) else "-" for row in rows]


def test_one_path_as_text_is_one_image(classifier: Classifier, tmp_path: Path, painter: Painter) -> None:
    path = painter(tmp_path / "a.jpg", RED)
    for given in (str(path), path):
        rows = classifier.predict(given)
        assert predicted(rows) == ["Red"]
        assert rows[0].path == path


def test_a_folder_is_its_images_in_sorted_order(classifier: Classifier, tmp_path: Path, painter: Painter) -> None:
    for name, colour in (("b/2.jpg", GREEN), ("b/1.jpg", RED), ("a.jpg", BLUE)):
        painter(tmp_path / "images" / name, colour)
    assert predicted(classifier.predict(str(tmp_path / "images"))) == ["Blue", "Red", "Green"]


def test_paths_folders_arrays_and_pil_images_can_be_mixed(
    classifier: Classifier, tmp_path: Path, painter: Painter
) -> None:
    path = painter(tmp_path / "folder" / "a.jpg", GREEN)
    opened = Image.open(path)
    given = [str(path), plain(RED), path.parent, Image.fromarray(plain(BLUE)), opened, np.stack([plain(RED)] * 2)]
    rows = classifier.predict(given)
    assert predicted(rows) == ["Green", "Red", "Green", "Blue", "Green", "Red", "Red"]
    assert [row.path for row in rows] == [path, "image 2", path, "image 4", path, "image 6", "image 7"]
    assert predicted(classifier.predict(iter(given))) == predicted(rows)
    assert predicted(list(classifier.stream(given))) == predicted(rows)


def test_the_public_function_predicts_like_the_classifier(classifier: Classifier) -> None:
    rows = whichcar.predict(str(classifier.checkpoint), plain(RED), top=1)
    assert [row.as_row() for row in rows] == [row.as_row() for row in classifier.predict(plain(RED), top=1)]


@pytest.mark.parametrize(
    "array",
    [
        plain(GREEN),
        plain(GREEN).astype(np.int64),
        plain(GREEN).astype(np.float32),
        plain(GREEN) / 255,
        (plain(GREEN) / 255).astype(np.float16),
        np.dstack([plain(GREEN), np.full((40, 50), 255, np.uint8)]),
        np.asfortranarray(plain(GREEN)),
        plain(GREEN)[::-1, ::-1],
    ],
    ids=["uint8", "int64", "float 0..255", "float 0..1", "float16", "RGBA", "Fortran order", "reversed"],
)
def test_an_array_of_any_kind_counts_like_its_uint8_form(classifier: Classifier, array: np.ndarray) -> None:
    expected = classifier.probabilities(plain(GREEN))
    assert expected.shape == (1, 3)
    np.testing.assert_allclose(classifier.probabilities(array), expected, atol=2e-3)
    np.testing.assert_allclose(classifier.probabilities(np.stack([array] * 3)), np.repeat(expected, 3, 0), atol=2e-3)


def test_two_arrays_are_open_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def opened(given: Given | Skipped) -> None:
        assert isinstance(given, Given)
        with given.open(None):
            both.wait(timeout=60)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(opened, each([plain(RED)] * 2)))


def test_one_image_a_batch_and_grey_ones_give_a_row_an_image(classifier: Classifier) -> None:
    assert classifier.probabilities(plain(RED)).shape == (1, 3)
    assert classifier.probabilities(np.zeros((2, 9, 9, 3), np.uint8)).shape == (2, 3)
    assert classifier.probabilities(np.zeros((0, 9, 9, 3), np.uint8)).shape == (0, 3)
    assert classifier.predict([]) == []
    for grey in (np.full((30, 40), 90, np.uint8), np.full((30, 40, 1), 90, np.uint8)):
        np.testing.assert_array_equal(classifier.probabilities(grey), classifier.probabilities(plain((90, 90, 90))))
    assert classifier.probabilities(np.full((4, 30, 40, 1), 90, np.uint8)).shape == (4, 3)


def test_what_is_transparent_is_white_as_in_a_file(classifier: Classifier, tmp_path: Path) -> None:
    clear = np.dstack([plain(RED), np.full((40, 50), 40, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    expected = classifier.probabilities(tmp_path / "clear.png")
    np.testing.assert_allclose(classifier.probabilities(clear), expected, atol=1e-6)
    np.testing.assert_allclose(classifier.probabilities(Image.fromarray(clear)), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"])
def test_a_pil_image_of_any_mode_is_read(classifier: Classifier, mode: str) -> None:
    source = Image.fromarray(plain(RED))
    image = source.convert("I").convert(mode) if mode == "I;16" else source.convert("RGB" if mode == "LAB" else mode)
    assert classifier.probabilities(image).shape == (1, 3)
    if mode in ("P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"):
        assert predicted(classifier.predict(image)) == ["Red"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_is_rotated_as_its_file_is(classifier: Classifier, tmp_path: Path, orientation: int) -> None:
    half = plain(RED)
    half[:, :20] = BLUE
    half[:10] = GREEN
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(half).save(tmp_path / "turned.png", exif=exif)
    path = tmp_path / "turned.png"
    with Image.open(path) as image:
        of_pil, of_file = (next(iter(each(source))) for source in (image, path))
        assert isinstance(of_pil, Given) and isinstance(of_file, Given)
        with of_pil.open((24, 32)) as one, of_file.open((24, 32)) as other:
            np.testing.assert_array_equal(one.resized((24, 32)), other.resized((24, 32)))
            np.testing.assert_array_equal(one.pixels(), other.pixels())


def test_one_pil_image_given_many_times_is_read_safely(
    classifier: Classifier, tmp_path: Path, painter: Painter
) -> None:
    with Image.open(painter(tmp_path / "a.jpg", BLUE, size=(400, 300))) as image:
        assert predicted(classifier.predict([image] * 60)) == ["Blue"] * 60


def test_a_damaged_or_closed_pil_image_is_a_row(classifier: Classifier, tmp_path: Path, painter: Painter) -> None:
    path = painter(tmp_path / "a.jpg", BLUE, size=(400, 300))
    path.write_bytes(path.read_bytes()[:2000])
    closed = Image.open(painter(tmp_path / "b.jpg", BLUE))
    closed.close()
    with Image.open(path) as damaged:
        rows = classifier.predict([damaged, plain(RED), closed])
    assert predicted(rows) == ["-", "Red", "-"]
    assert "truncated" in rows[0].reason  # type: ignore[union-attr]
    with pytest.raises(ImageError, match=r"a\.jpg: .*truncated"):
        classifier.probabilities(path)


def test_a_column_of_paths_is_several_images(classifier: Classifier, tmp_path: Path, painter: Painter) -> None:
    paths = [str(painter(tmp_path / "a.jpg", RED)), str(painter(tmp_path / "b.jpg", BLUE))]
    pandas = pytest.importorskip("pandas")
    for column in (np.array(paths), pandas.Series(paths), tuple(paths), dict.fromkeys(paths).keys()):
        assert predicted(classifier.predict(column)) == ["Red", "Blue"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 3)[:1], np.uint8), r"got \(2,\)"),
        (np.zeros((3, 40, 50), np.uint8), r"channels last; got \(3, 40, 50\)"),
        (np.zeros((2, 3, 40, 50), np.uint8), r"channels last; got \(2, 3, 40, 50\)"),
        (np.zeros((0, 5, 3), np.uint8), r"got \(0, 5, 3\)"),
        (np.full((4, 4, 3), 4095, np.uint16), r"got 0 to 4095"),
        (np.full((4, 4, 3), -1.0), r"got -1 to 0"),
        (np.full((4, 4, 3), np.nan), "got nan to nan"),
        (np.zeros((4, 4, 3), complex), "got complex128"),
        (3, "got int"),
        (None, "got None"),
        (b"\xff\xd8\xff", "got bytes"),
        ({"image": "a.jpg"}, "got dict"),
        ([["a.jpg"]], "got list"),
        ("", "path is empty"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(classifier: Classifier, given: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(DataError, match=message) as caught:
        classifier.predict(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b.jpg", "line\nbreak.jpg", "no such.jpg"])
def test_a_name_that_the_system_refuses_is_a_row(classifier: Classifier, name: str) -> None:
    (row,) = classifier.predict(name)
    assert isinstance(row, Skipped)


def test_a_folder_that_may_not_be_listed_is_a_row(classifier: Classifier, tmp_path: Path, painter: Painter) -> None:
    path = painter(tmp_path / "a.jpg", RED)
    inner = tmp_path / "locked" / "inner"
    inner.mkdir(parents=True)
    with only(0, inner):
        rows = classifier.predict([path, inner.parent, path])
    assert predicted(rows) == ["Red", "-", "Red"]
    assert "inner cannot be listed (Permission denied)" in rows[1].reason  # type: ignore[union-attr]


@pytest.mark.parametrize(("options", "name"), [({"top": 0}, "top"), ({"batch_size": 0}, "batch size")])
def test_a_number_below_one_is_refused(classifier: Classifier, options: dict[str, int], name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: must be at least 1; got 0"):
        classifier.predict(plain(RED), **options)


def test_crop_holds_for_arrays_and_pil_images(
    classifier: Classifier, red_car_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(red_car_file))
    street = plain(GREEN, (120, 160))
    street[60:100, 40:80] = (230, 20, 20)
    Image.fromarray(street).save(tmp_path / "street.png")
    cropping = Classifier(classifier.checkpoint, crop=True)
    given = [street, Image.fromarray(street), tmp_path / "street.png", street / 255]
    assert predicted(classifier.predict(given)) == ["Green"] * 4
    rows = cropping.predict(given)
    assert predicted(rows) == ["Red"] * 4
    assert len({row.crop.box for row in rows if isinstance(row, Prediction) and row.crop is not None}) == 1
    assert cropping.probabilities(street).argmax() == 2


def test_a_missing_experiment_is_refused_in_one_line() -> None:
    with pytest.raises(CheckpointError, match="no such experiment, checkpoint or bundle"):
        whichcar.predict("no such experiment", "a.jpg")


@pytest.fixture
def address(tmp_path: Path, painter: Painter) -> Iterator[str]:
    """The address of a server that has car.png and page.html."""
    painter(tmp_path / "car.png", RED)
    (tmp_path / "page.html").write_text("<!DOCTYPE html><p>no image here</p>")
    with served_folder(tmp_path) as address:
        yield address


def test_addresses_are_classified_among_files_and_failures_are_rows(
    classifier: Classifier, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{address}/car.png", str(tmp_path / "car.png"), f"{address}/gone.jpg", f"{address}/page.html", "s3://b/a"]
    rows = classifier.predict(names)
    assert predicted(rows) == ["Red", "Red", "-", "-", "-"]
    assert rows[0].as_row() | {"path": ""} == rows[1].as_row() | {"path": ""}
    assert main.run(["predict", str(classifier.checkpoint), *names, "--json"]) == 0
    printed = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert [row["path"] for row in printed] == names
    assert [row["problem"] for row in printed[:3]] == [None, None, "the server answers 404 File not found"]
    assert "web page" in printed[3]["problem"]
    assert "whichcar-" not in printed[3]["problem"]  # a temporary file's name
    assert printed[4]["problem"].startswith("s3:// addresses are not supported")


def test_a_password_in_an_address_is_in_no_output(
    classifier: Classifier, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = address.replace("//", "//jo:secret@")
    for form in ("--json", "--csv", "--top=1"):
        names = [f"{secret}/car.png", f"{secret}/gone.jpg", f"{secret}/page.html"]
        assert main.run(["predict", str(classifier.checkpoint), *names, form]) == 0
        printed = capsys.readouterr()
        assert printed.out.count("jo:***@") == 3
        assert "secret" not in printed.out + printed.err
