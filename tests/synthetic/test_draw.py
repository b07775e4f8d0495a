import csv
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from whichcar.errors import DataError
from whichcar.synthetic.draw import draw, draw_image, plan
from whichcar.synthetic.vehicles import VEHICLES


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "car_dataset_labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_has_its_image_of_the_size_asked_for(drawn: Path) -> None:
    rows = rows_of(drawn)
    assert len(rows) == 32
    assert {path.name for path in (drawn / "car_ims").iterdir()} == {row["img_name"] for row in rows}
    with Image.open(drawn / "car_ims" / "000001.jpg") as image:
        assert (image.size, image.mode) == ((64, 48), "RGB")


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(drawn: Path, tmp_path: Path) -> None:
    draw(tmp_path / "again", classes=4, per_class=8, size=(48, 64))
    draw(tmp_path / "other", classes=4, per_class=8, size=(48, 64), seed=8)
    first = {path.name: path.read_bytes() for path in (drawn / "car_ims").iterdir()}
    again = {path.name: path.read_bytes() for path in (tmp_path / "again" / "car_ims").iterdir()}
    other = {path.name: path.read_bytes() for path in (tmp_path / "other" / "car_ims").iterdir()}
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_a_quarter_of_each_class_is_for_the_test() -> None:
    counts = Counter((label.class_name, label.subset) for label, _ in plan(12, 40, seed=7))
    assert len(counts) == 24
    assert all(count == {"test": 10, "train": 30}[subset] for (_, subset), count in counts.items())


def test_two_images_a_class_are_divided_between_train_and_test() -> None:
    assert Counter(label.subset for label, _ in plan(3, 2, seed=7)) == {"train": 3, "test": 3}


def test_file_names_do_not_reveal_the_class() -> None:
    names = [label.class_name for label, _ in plan(12, 40, seed=7)]
    assert len(set(names[:40])) > 8


def test_there_are_twelve_classes_and_one_has_a_slash() -> None:
    names = [vehicle.name for vehicle in VEHICLES]
    assert len(set(names)) == 12
    assert sum("/" in name for name in names) == 1
    assert all(name.rsplit(" ", 1)[1].isdigit() for name in names)


def test_colours_say_little_about_the_class() -> None:
    """The mean colour of images of one class spreads more than twice as far as the classes' means."""
    means = np.array(
        [
            [np.asarray(draw_image(vehicle, (40, 53), Random(f"{vehicle.name}/{n}"))).mean((0, 1)) for n in range(24)]
            for vehicle in VEHICLES
        ]
    )
    within, between = means.std(axis=1).mean(), means.mean(axis=1).std(axis=0).mean()
    assert within > 2 * between


def test_a_second_run_draws_only_what_is_missing(tmp_path: Path) -> None:
    draw(tmp_path, classes=2, per_class=2, size=(48, 64))
    kept, lost = tmp_path / "car_ims" / "000001.jpg", tmp_path / "car_ims" / "000002.jpg"
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    draw(tmp_path, classes=2, per_class=2, size=(48, 64))
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == content


def test_a_folder_drawn_with_other_arguments_is_refused(tmp_path: Path) -> None:
    draw(tmp_path, classes=2, per_class=2, size=(48, 64))
    with pytest.raises(DataError, match="was drawn with"):
        draw(tmp_path, classes=2, per_class=3, size=(48, 64))


def test_an_interrupted_drawing_is_not_finished_with_other_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("whichcar.synthetic.draw.write_labels")
    with pytest.raises(NameError):
        draw(tmp_path, classes=2, per_class=2, size=(48, 64), seed=1)
    monkeypatch.undo()
    with pytest.raises(DataError, match="was drawn with"):
        draw(tmp_path, classes=2, per_class=2, size=(48, 64), seed=2)
    draw(tmp_path, classes=2, per_class=2, size=(48, 64), seed=1)


@pytest.mark.parametrize("name", ["car_dataset_labels.csv", "car_ims/000001.jpg"])
def test_a_folder_with_other_images_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "car_ims").mkdir()
    (tmp_path / name).write_text("of another")
    with pytest.raises(DataError, match="holds other images"):
        draw(tmp_path, classes=2, per_class=2)


@pytest.mark.parametrize(("classes", "per_class"), [(1, 40), (13, 40), (12, 1)])
def test_more_than_can_be_drawn_is_refused(tmp_path: Path, classes: int, per_class: int) -> None:
    with pytest.raises(DataError, match="can draw 2 to 12 classes"):
        draw(tmp_path, classes=classes, per_class=per_class)
