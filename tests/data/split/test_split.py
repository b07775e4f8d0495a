import json
import os
import random
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from whichcar.cli import main
from whichcar.data.check.check import check
from whichcar.data.dataset import collect
from whichcar.data.labels import draw_share, labels_from_folders, write_labels
from whichcar.data.split import plan
from whichcar.data.split.split import Split, split
from whichcar.data.split.tree import read_tree
from whichcar.errors import DataError
from whichcar.records import Label

from .datasets import CLASSES, dataset, record, write_image

# Images of the real cars in train that test has a copy of, five of them under another label.
COPIES = [f"{number:06d}.jpg" for number in (984, 1074, 3356, 3607, 6715, 8131, 11178, 12452, 12469, 12559)]


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of change of everything below `root`, and of itself."""
    paths = [root, *root.rglob("*")]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def reasons(result: Split) -> dict[str, str]:
    return {str(problem.path): problem.reason for problem in result.problems}


def test_a_split_makes_subset_and_class_folders_of_hard_links(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    write_labels(tmp_path / "labels.csv", rows)
    output = tmp_path / "deep" / "er" / "v1"
    result = split(tmp_path / "data", tmp_path / "labels.csv", output)
    assert result.counts == {"train": 24, "validation": 5, "test": 6}
    assert result.problems == []
    assert result.unlabelled == 0
    assert result.classes == {name.replace("/", "-"): name for name in CLASSES}
    for row in rows:
        target = output / row.subset / row.class_name.replace("/", "-") / row.img_name
        assert target.samefile(tmp_path / "data" / "car_ims" / row.img_name)
    assert len([path for path in output.rglob("*") if path.is_file()]) == len(rows) + 1


def test_the_record_holds_seed_share_counts_classes_sources_and_validation(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    split(tmp_path / "data", rows, tmp_path / "v1", validation=0.25, seed=9)
    content = record(tmp_path / "v1")
    assert content["finished"] is True
    assert content["seed"] == 9
    assert content["validation_share"] == 0.25
    assert content["counts"] == {"train": 24, "validation": 6, "test": 6}
    assert content["classes"] == {name.replace("/", "-"): name for name in CLASSES}
    assert content["sources"] == {"data": str(tmp_path / "data"), "labels": "30 rows"}
    chosen = content["validation"]
    assert isinstance(chosen, list)
    assert chosen == sorted(chosen)
    assert all((tmp_path / "v1" / "train" / name).is_file() for name in chosen)


def test_images_may_lie_in_the_data_folder_itself(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data", folder="")
    assert split(tmp_path / "data", rows, tmp_path / "v1").counts["train"] == 24


def test_the_output_may_lie_in_the_data_folder(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data", folder="")
    for _ in range(2):
        result = split(tmp_path / "data", rows, tmp_path / "data" / "car_ims_v1")
        assert result.counts == {"train": 24, "validation": 5, "test": 6}
        assert result.unlabelled == 0


def test_across_file_systems_images_are_copied(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here to copy to")
    rows = dataset(tmp_path / "data")
    with tempfile.TemporaryDirectory(dir=shared) as elsewhere:
        output = Path(elsewhere) / "v1"
        assert split(tmp_path / "data", rows, output).counts["train"] == 24
        source = tmp_path / "data" / "car_ims" / "000001.jpg"
        copy = output / "train" / CLASSES[0] / "000001.jpg"
        assert copy.read_bytes() == source.read_bytes()
        assert not copy.samefile(source)
        before = snapshot(output)
        split(tmp_path / "data", rows, output)
        assert snapshot(output) == before


def test_a_link_among_the_images_is_followed(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    first = tmp_path / "data" / "car_ims" / "000001.jpg"
    first.rename(tmp_path / "elsewhere.jpg")
    first.symlink_to(Path("..") / ".." / "elsewhere.jpg")
    split(tmp_path / "data", rows, tmp_path / "v1")
    target = tmp_path / "v1" / "train" / CLASSES[0] / "000001.jpg"
    assert not target.is_symlink()
    assert target.samefile(tmp_path / "elsewhere.jpg")


def test_running_twice_changes_nothing(tmp_path: Path) -> None:
    rows = [*dataset(tmp_path / "data"), Label("gone.jpg", CLASSES[0], "train")]
    first = split(tmp_path / "data", rows, tmp_path / "v1")
    before = snapshot(tmp_path)
    assert split(tmp_path / "data", rows, tmp_path / "v1") == first
    assert snapshot(tmp_path) == before


def test_the_same_data_under_another_path_are_the_same(tmp_path: Path) -> None:
    rows = [*dataset(tmp_path / "data"), Label("gone.jpg", CLASSES[0], "train")]
    split(tmp_path / "data", rows, tmp_path / "v1")
    (tmp_path / "link").symlink_to("data")
    before = snapshot(tmp_path / "v1")
    split(tmp_path / "link", rows, tmp_path / "v1")
    assert snapshot(tmp_path / "v1") == before


def test_the_order_of_the_rows_changes_nothing(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    split(tmp_path / "data", rows, tmp_path / "v1")
    before = snapshot(tmp_path)
    split(tmp_path / "data", rows[::-1], tmp_path / "v1")
    assert snapshot(tmp_path) == before


def test_a_second_run_adds_what_is_missing(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    split(tmp_path / "data", rows, tmp_path / "v1")
    lost = tmp_path / "v1" / "train" / CLASSES[1]
    shutil.rmtree(lost)
    split(tmp_path / "data", rows, tmp_path / "v1")
    assert len(list(lost.iterdir())) == 8


def test_an_interrupted_split_is_refused_by_training_and_finished_by_a_second_run(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    blocked = tmp_path / "v1" / "train" / CLASSES[1]
    split(tmp_path / "data", rows, tmp_path / "v1")
    whole = record(tmp_path / "v1")
    shutil.rmtree(blocked)
    blocked.write_text("a file where a folder has to be")
    with pytest.raises(DataError, match="run it again"):
        split(tmp_path / "data", rows, tmp_path / "v1")
    with pytest.raises(DataError, match="interrupted; run `whichcar split` again"):
        read_tree(tmp_path / "v1", 0.2, 123)
    blocked.unlink()
    split(tmp_path / "data", rows, tmp_path / "v1")
    assert record(tmp_path / "v1") == whole
    assert len(read_tree(tmp_path / "v1", 0.2, 123).test) == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seed": 124}, "made with seed 123, not 124"),
        ({"validation": 0.3}, "made with validation share 0.2, not 0.3"),
        ({"labels": "fewer"}, "other labels or images"),
        ({"labels": "moved"}, "other labels or images"),
        ({"labels": "one more problem"}, "other labels or images"),
        ({"data": "changed"}, "other labels or images"),
    ],
)
def test_other_labels_data_or_settings_over_an_output_are_refused(
    tmp_path: Path, arguments: dict[str, str | float], said: str
) -> None:
    rows = dataset(tmp_path / "data")
    split(tmp_path / "data", rows, tmp_path / "v1")
    other = {
        "fewer": rows[:-1],
        "moved": [Label(rows[0].img_name, CLASSES[1], "train"), *rows[1:]],
        "one more problem": [*rows, Label("gone.jpg", CLASSES[0], "train")],
    }.get(str(arguments.get("labels")), rows)
    if "data" in arguments:
        changed = tmp_path / "data" / "car_ims" / "000001.jpg"
        changed.unlink()
        Image.new("RGB", (200, 200)).save(changed)
    before = snapshot(tmp_path / "v1")
    with pytest.raises(DataError, match=said) as raised:
        split(
            tmp_path / "data",
            other,
            tmp_path / "v1",
            float(arguments.get("validation", 0.2)),
            int(arguments.get("seed", 123)),
        )
    assert "choose another output folder, or delete this one" in str(raised.value)
    assert snapshot(tmp_path / "v1") == before


def test_other_groups_over_an_output_are_refused(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    split(tmp_path / "data", rows, tmp_path / "v1")
    with pytest.raises(
        DataError, match=r"or with other options \(--group-by, --keep-copies, --test-share\); choose another"
    ):
        split(tmp_path / "data", rows, tmp_path / "v1", group_by="^(.*)")


def test_what_is_wrong_with_the_output_is_an_error_before_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dataset(tmp_path / "data")
    split(tmp_path / "data", rows, tmp_path / "v1")
    monkeypatch.setattr("whichcar.data.split.split.make_plan", lambda *_: pytest.fail("images are read"))
    with pytest.raises(DataError, match="made with seed 123, not 4"):
        split(tmp_path / "data", rows, tmp_path / "v1", seed=4)
    with pytest.raises(DataError, match=r"split\.json: Not a directory; fix this and run it again"):
        split(tmp_path / "data", rows, tmp_path / "v1" / "split.json" / "v2")
    with pytest.raises(DataError, match="not empty"):
        split(tmp_path / "data", rows, tmp_path / "data")


def test_a_folder_with_other_things_or_a_file_is_no_output(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    with pytest.raises(DataError, match="not empty"):
        split(tmp_path / "data", rows, tmp_path / "data")
    (tmp_path / "v1").write_text("")
    with pytest.raises(DataError, match="is a file"):
        split(tmp_path / "data", rows, tmp_path / "v1")
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / ".DS_Store").touch()
    assert split(tmp_path / "data", rows, tmp_path / "v2").counts["test"] == 6


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(DataError, match=r"locked.*Permission denied"):
        split(tmp_path / "data", rows, tmp_path / "locked" / "v1")


def test_every_row_is_used_or_explained(tmp_path: Path) -> None:
    good = dataset(tmp_path / "data")
    ims = tmp_path / "data" / "car_ims"
    for name in ("twice.jpg", "quarrel.jpg", "leak.jpg", "val.jpg", "noclass.jpg", "lonely.jpg", ".hidden.jpg"):
        write_image(ims / name)
    (ims / "empty.jpg").touch()
    (ims / "notes.txt").write_text("x")
    (ims / "folder.jpg").mkdir()
    write_image(tmp_path / "outside.jpg")
    bmw, hummer = CLASSES[1], CLASSES[0]
    bad = [
        (Label("gone.jpg", bmw, "train"), "no such file in"),
        (Label("folder.jpg", bmw, "train"), "no such file in"),
        (Label("x" * 400 + ".jpg", bmw, "train"), "cannot be reached (File name too long)"),
        (Label("val.jpg", bmw, "extra"), "subset 'extra' is none of train, validation and test"),
        (Label("val.jpg", bmw, ""), "subset '' is none of train, validation and test"),
        (Label("noclass.jpg", "", "train"), "class is empty"),
        (Label("", bmw, "train"), "img_name is empty"),
        (Label("empty.jpg", bmw, "train"), "the file is empty"),
        (Label("notes.txt", bmw, "train"), "suffix '.txt' is none of"),
        (Label("000001", bmw, "train"), "suffix '' is none of"),
        (Label(".hidden.jpg", bmw, "train"), "hidden file"),
        (Label("../../outside.jpg", bmw, "train"), "img_name leads out of the data folder"),
        (Label("a/../000001.jpg", bmw, "train"), "img_name leads out of the data folder"),
        (Label(str(tmp_path / "outside.jpg"), bmw, "train"), "img_name leads out of the data folder"),
        (Label("a\0b.jpg", bmw, "train"), "contains bytes that are not text"),
        (Label("a\udcff.jpg", bmw, "train"), "contains bytes that are not text"),
        (Label("lonely.jpg", "Only In Test 2012", "test"), "has no usable image in train"),
        (Label("quarrel.jpg", bmw, "train"), "its rows disagree"),
        (Label("quarrel.jpg", hummer, "train"), "its rows disagree"),
        (Label("leak.jpg", bmw, "train"), "its rows disagree"),
        (Label("car_ims/leak.jpg", bmw, "test"), "its rows disagree"),
    ]
    twice = [Label("twice.jpg", bmw, "train"), Label("./twice.jpg", bmw, "train")]
    rows = [*good, *(row for row, _ in bad), *twice]
    result = split(tmp_path / "data", rows, tmp_path / "v1")

    assert result.counts["train"] + result.counts["test"] + len(result.problems) == len(rows)
    for problem, (_, reason) in zip(result.problems, [*bad, (twice[1], "repeats row 52")], strict=True):
        assert reason in problem.reason
    written = record(tmp_path / "v1")["problems"]
    assert isinstance(written, list)
    assert [entry["row"] for entry in written] == [*range(31, 31 + len(bad)), len(rows)]
    assert written[6]["img_name"] == ""
    names = {path.name for path in (tmp_path / "v1").rglob("*") if path.is_file()}
    assert names == {row.img_name for row in good} | {"twice.jpg", "split.json"}
    before = snapshot(tmp_path / "v1")
    assert split(tmp_path / "data", rows, tmp_path / "v1") == result
    assert snapshot(tmp_path / "v1") == before


def test_an_image_that_may_not_be_read_is_reported(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    locked = tmp_path / "data" / "car_ims" / "000001.jpg"
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user may read everything")
    assert "permissions" in reasons(split(tmp_path / "data", rows, tmp_path / "v1"))["000001.jpg"]


def test_images_without_a_row_are_counted(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    write_image(tmp_path / "data" / "car_ims" / "new.jpg")
    (tmp_path / "data" / "car_ims" / ".DS_Store").touch()
    wrong = Label(rows[1].img_name, rows[1].class_name, "extra")
    write_image(tmp_path / "data" / "car_ims" / "Löwchen" / "1.jpg")
    result = split(tmp_path / "data", [rows[0], wrong, *rows[2:]], tmp_path / "v1")
    assert result.unlabelled == 2


def test_when_no_row_can_be_used_the_commonest_reason_is_given(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"none of the 30 rows can be used; 30 of them: no such file in .*other"):
        split(tmp_path / "other", rows, tmp_path / "v1")
    with pytest.raises(DataError, match="no such folder"):
        split(tmp_path / "gone", rows, tmp_path / "v1")
    with pytest.raises(DataError, match="no labels given"):
        split(tmp_path / "data", [], tmp_path / "v1")
    with pytest.raises(DataError, match="cannot be read"):
        split(tmp_path / "data", tmp_path / "gone.csv", tmp_path / "v1")
    with pytest.raises(DataError, match="at least 0 and less than 1"):
        split(tmp_path / "data", rows, tmp_path / "v1", validation=1)
    assert not (tmp_path / "v1").exists()


def test_names_with_spaces_quotes_unicode_and_folders_arrive(tmp_path: Path) -> None:
    names = ["a b.jpg", "it's.jpg", 'say "x".jpg', "Škoda 車.jpg", "BMW X3/c d.jpg", "x%20;&$(y).PNG", "a\nb.jpg"]
    for shade, name in enumerate(names):
        write_image(tmp_path / "data" / name, shade)
    rows = [Label(name, class_name, "train") for name, class_name in zip(names, CLASSES * 3, strict=False)]
    write_labels(tmp_path / "labels.csv", rows)
    result = split(tmp_path / "data", tmp_path / "labels.csv", tmp_path / "v1")
    assert result.problems == []
    assert result.counts["train"] == len(names)
    assert (tmp_path / "v1" / "train" / CLASSES[1] / "c d.jpg").is_file()
    tree = read_tree(tmp_path / "v1", 0.2, 1)
    assert len(tree.train) + len(tree.validation) == len(names)


def test_a_name_written_in_another_unicode_form_is_found(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    write_image(tmp_path / "data" / "car_ims" / "Citroe\u0308n.jpg")
    result = split(tmp_path / "data", [*rows, Label("Citroën.jpg", CLASSES[0], "train")], tmp_path / "v1")
    assert result.problems == []


def test_images_that_would_meet_are_distinguished(tmp_path: Path) -> None:
    names = ["a.jpg", "x/a.jpg", "y/a.jpg", "y/A.JPG", "z/a (2).jpg"]
    for shade, name in enumerate(names):
        write_image(tmp_path / "data" / name, 1000 * shade)
    rows = [Label(name, "BMW", "train") for name in names] + [Label("x/b.jpg", "Audi", "train")]
    write_image(tmp_path / "data" / "x" / "b.jpg")
    result = split(tmp_path / "data", rows, tmp_path / "v1")
    placed = {path.name: path for path in (tmp_path / "v1" / "train" / "BMW").iterdir()}
    assert len(placed) == 5
    assert len({name.casefold() for name in placed}) == 5
    assert placed["a.jpg"].samefile(tmp_path / "data" / "a.jpg")
    for name, target in result.renamed.items():
        assert (tmp_path / "v1" / target).samefile(tmp_path / "data" / name)
    assert len(result.renamed) == 4
    before = snapshot(tmp_path)
    split(tmp_path / "data", rows[::-1], tmp_path / "v1")
    assert snapshot(tmp_path) == before


def test_many_images_of_one_name_are_numbered_without_gaps_in_linear_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{listing:03d}/1.jpg" for listing in range(300)]
    for shade, name in enumerate(names):
        write_image(tmp_path / "data" / name, 3 * shade)
    calls = Counter[str]()
    monkeypatch.setattr(plan, "_key", lambda name: calls.update([name]) or name.casefold())
    rows = [Label(name, ("BMW", "Audi")[index % 2], "train") for index, name in enumerate(names)]
    split(tmp_path / "data", rows, tmp_path / "v1", keep_copies=True)
    placed = sorted(path.name for path in (tmp_path / "v1" / "train" / "BMW").iterdir())
    assert placed == sorted(["1.jpg", *(f"1 ({number}).jpg" for number in range(2, 151))])
    assert calls.total() < 10 * len(names)


def test_classes_that_would_share_a_folder_are_distinguished(tmp_path: Path) -> None:
    names = ["Ram C/V", "Ram C-V", "Ram C:V", "RAM C-V", "..", "."]
    for shade, _ in enumerate(names):
        write_image(tmp_path / "data" / f"{shade}.jpg", shade)
    rows = [Label(f"{number}.jpg", name, "train") for number, name in enumerate(names)]
    result = split(tmp_path / "data", rows, tmp_path / "v1")
    assert sorted(result.classes.values()) == sorted(names)
    assert len({folder.casefold() for folder in result.classes}) == len(names)
    tree = read_tree(tmp_path / "v1", 0.2, 123)
    assert sorted(tree.class_names) == sorted(names)
    for sample in tree.train:
        assert tree.class_names[sample.class_index] == names[int(sample.path.stem)]


def test_validation_is_stratified_and_seeded(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data", per_class=25)
    chosen = {}
    for seed in (1, 2):
        split(tmp_path / "data", rows, tmp_path / f"v{seed}", seed=seed)
        tree = read_tree(tmp_path / f"v{seed}", 0.2, seed)
        assert [[s.class_index for s in tree.validation].count(number) for number in range(3)] == [4, 4, 4]
        chosen[seed] = {sample.path.name for sample in tree.validation}
    assert chosen[1] != chosen[2]


@pytest.mark.slow
@pytest.mark.skipif("WHICHCAR_DATA" not in os.environ, reason="real images: set WHICHCAR_DATA to their folder")
def test_of_the_real_cars_only_copies_of_test_images_are_left_out(tmp_path: Path) -> None:
    data = Path(os.environ["WHICHCAR_DATA"])
    result = split(data, data / "car_dataset_labels.csv", tmp_path / "v1")
    assert {problem.reason.partition(" of ")[0] for problem in result.problems} == {"a copy"}
    assert sorted(problem.path.name for problem in result.problems) == COPIES
    assert len(result.classes) == 196
    assert result.classes["Ram C-V Cargo Van Minivan 2012"].replace("/", "-") == "Ram C-V Cargo Van Minivan 2012"
    tree = read_tree(tmp_path / "v1", 0.2, 123)
    assert len(tree.validation) == round(0.2 * result.counts["train"])
    assert len(tree.train) + len(tree.validation) == result.counts["train"]


def drawn_rows(drawn_large: Path, tmp_path: Path) -> tuple[Path, list[Label]]:
    """Copy drawn images, two classes of eight, and return the folder and the labels, six a class in train."""
    data = tmp_path / "data"
    shutil.copytree(drawn_large / "car_ims", data / "car_ims")
    names = sorted(path.name for path in (data / "car_ims").iterdir())[:16]
    return data, [Label(name, CLASSES[n // 8], "test" if n % 8 > 5 else "train") for n, name in enumerate(names)]


def test_a_train_image_with_a_copy_in_test_is_left_out_and_reported(drawn_large: Path, tmp_path: Path) -> None:
    data, rows = drawn_rows(drawn_large, tmp_path)
    tested = next(row for row in rows if row.subset == "test")
    Image.open(data / "car_ims" / tested.img_name).resize((110, 80)).save(data / "car_ims" / "like.png")
    shutil.copy(data / "car_ims" / tested.img_name, data / "car_ims" / "same.jpg")
    copies = [Label("like.png", tested.class_name, "train"), Label("same.jpg", CLASSES[1], "train")]
    result = split(data, [*rows, *copies], tmp_path / "v1")
    reason = f"a copy of {tested.img_name} in test"
    assert reasons(result) == {"like.png": reason, "same.jpg": reason}
    assert result.counts == {"train": 12, "validation": 2, "test": 4}
    kept = split(data, [*rows, *copies], tmp_path / "v2", keep_copies=True)
    assert (kept.counts["train"], kept.problems) == (14, [])


def test_a_near_copy_under_another_label_is_left_out_too(drawn_large: Path, tmp_path: Path) -> None:
    data, rows = drawn_rows(drawn_large, tmp_path)
    tested = next(row for row in rows if row.subset == "test")
    Image.open(data / "car_ims" / tested.img_name).resize((110, 80)).save(data / "car_ims" / "like.png")
    result = split(data, [*rows, Label("like.png", CLASSES[1], "train")], tmp_path / "v1")
    assert reasons(result) == {"like.png": f"a copy of {tested.img_name} in test"}


def folders(root: Path, per_class: int = 8) -> Path:
    for index, class_name in enumerate(CLASSES[:2]):
        for number in range(per_class):
            write_image(root / class_name / f"{number:02d}.png", 100 * index + number)
    return root


@pytest.mark.parametrize("as_text", [True, False])
def test_a_folder_per_class_is_divided_without_a_label_file(tmp_path: Path, as_text: bool) -> None:
    folders(tmp_path / "cars")
    write_image(tmp_path / "cars" / "loose.png", 999)
    data, output = (str(path) if as_text else path for path in (tmp_path / "cars", tmp_path / "v1"))
    result = split(data, output)
    assert result.counts == {"train": 12, "validation": 2, "test": 4}
    assert (result.test_share, result.unlabelled, result.output) == (0.25, 1, tmp_path / "v1")
    assert {path.parent.name for path in (tmp_path / "v1" / "test").rglob("*.png")} == set(CLASSES[:2])
    assert split(data, output) == result
    other = split(data, output=tmp_path / "v2", test_share=0.5, seed=4)
    assert other.counts["test"] == 8
    assert split(data, tmp_path / "v3", test_share=0).counts == {"train": 16, "validation": 3, "test": 0}
    with pytest.raises(DataError, match=r"made with test share 0\.25, not 0\.5"):
        split(data, output, test_share=0.5)


def test_the_command_divides_a_folder_and_says_the_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, v1 = str(folders(tmp_path / "cars")), str(tmp_path / "v1")
    assert main.run(["split", data, v1]) == 0
    assert "test was drawn: a share of 0.25 of the images (--test-share)" in capsys.readouterr().out
    assert main.run(["split", data, str(tmp_path / "v2"), "--test-share", "0.5"]) == 0
    assert "test 8 images\n" in capsys.readouterr().out
    assert main.run(["split", "--help"]) == 0
    assert "[default: 0.25]" in " ".join(capsys.readouterr().out.split())
    for share in ("-1", "1", "nan"):
        assert main.run(["split", data, str(tmp_path / "v3"), "--test-share", share]) == 2
        assert "the test share must be at least 0 and less than 1" in capsys.readouterr().err
    assert main.run(["split", data]) == 2
    assert "no output folder" in capsys.readouterr().err
    assert main.run(["split", data, str(tmp_path / "cars" / "v1")]) == 2
    assert "whose folders are the classes; give an output folder outside" in capsys.readouterr().err


def test_a_test_share_of_0_says_that_no_test_split_was_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folders(tmp_path / "cars")
    assert main.run(["split", str(data), str(tmp_path / "v1"), "--test-share", "0"]) == 0
    out = capsys.readouterr().out
    assert "no test split was drawn (--test-share 0)" in out
    assert "test was drawn" not in out


@pytest.mark.parametrize("share", ["1.2", "1", "-0.1", "nan"])
def test_a_validation_share_outside_its_limits_is_reported_the_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: str
) -> None:
    assert main.run(["split", str(folders(tmp_path / "cars")), str(tmp_path / "v1"), f"--validation={share}"]) == 2
    assert "the validation share must be at least 0 and less than 1; got" in capsys.readouterr().err


@pytest.mark.parametrize("labelled", [False, True])
def test_unreadable_images_are_left_out_and_a_class_without_another_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], labelled: bool
) -> None:
    data = folders(tmp_path / "cars")
    (data / "Ford Ka").mkdir()
    for name in ("a.jpg", "b.png"):
        (data / "Ford Ka" / name).write_bytes(b"no image")
    some = next(data.glob("[!F]*/*"))
    some.write_bytes(some.read_bytes()[:40])
    arguments = [str(data), str(tmp_path / "v1")]
    if labelled:
        write_labels(tmp_path / "labels.csv", labels_from_folders(data))
        arguments.insert(1, str(tmp_path / "labels.csv"))
    assert main.run(["split", *arguments]) == 0
    out = capsys.readouterr().out
    assert "1 class without a usable image, left out: Ford Ka" in out
    assert f"3 {'rows' if labelled else 'images'} could not be used" in out
    assert "Ford Ka/a.jpg: " in out
    kept = record(tmp_path / "v1")
    assert kept["unused_classes"] == ["Ford Ka"]
    assert not list((tmp_path / "v1").rglob("Ford Ka"))
    assert [one["img_name"] for one in kept["problems"]] == sorted(
        ["Ford Ka/a.jpg", "Ford Ka/b.png", some.relative_to(data).as_posix()]
    )
    assert main.run(["split", *arguments]) == 0  # a second run agrees


def test_an_unreadable_image_belongs_to_no_group(tmp_path: Path) -> None:
    data = folders(tmp_path / "cars")
    paths = sorted(data.glob("*/*"))[:2]
    for path in paths:
        path.write_bytes(b"the same broken bytes")
    done = split(data, tmp_path / "v1", group_by=r"(\d+)\.png")
    assert {str(problem.path) for problem in done.problems} == {path.relative_to(data).as_posix() for path in paths}
    assert all(done.counts.values())


def test_copies_in_two_classes_are_counted_with_the_command_that_lists_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folders(tmp_path / "cars")
    one, other = sorted(path for path in data.iterdir())[:2]
    shutil.copy(next(one.iterdir()), other / "again.jpg")
    assert main.run(["split", str(data), str(tmp_path / "v1")]) == 0
    reason = f"2 images have a copy in another class; list them with: whichcar check {tmp_path / 'v1'}"
    assert reason in capsys.readouterr().out
    conflicts = [one for one in check(tmp_path / "v1").findings if one.issue == "label_conflict"]
    assert len(conflicts) == 2
    shutil.copy(next(one.iterdir()), one / "again.jpg")  # within a class it is none
    (other / "again.jpg").unlink()
    assert split(data, tmp_path / "v2").conflicts == 0


def test_a_folder_that_is_divided_already_keeps_its_division(tmp_path: Path) -> None:
    folders(tmp_path / "cars" / "train")
    folders(tmp_path / "cars" / "test", 3)
    for path in (tmp_path / "cars" / "test").rglob("*.png"):
        write_image(path, 1000 + hash(path) % 1000)
    result = split(tmp_path / "cars", tmp_path / "v1")
    assert result.counts == {"train": 16, "validation": 3, "test": 6}
    assert result.test_share is None
    with pytest.raises(DataError, match="cars: says what is in test already; leave out --test-share"):
        split(tmp_path / "cars", tmp_path / "v2", test_share=0.5)


def test_of_labels_that_are_all_in_train_a_test_split_can_be_drawn(tmp_path: Path) -> None:
    rows = [replace(row, subset="train") for row in dataset(tmp_path / "data")]
    assert split(tmp_path / "data", rows, tmp_path / "v1").counts["test"] == 0
    drawn = split(tmp_path / "data", rows, tmp_path / "v2", test_share=0.25)
    assert drawn.test_share == 0.25
    assert drawn.counts["test"] > 0
    blank = [*rows, Label("", "", "")]  # as the last row of a spreadsheet may be
    assert split(tmp_path / "data", blank, tmp_path / "v3", test_share=0.25).counts == drawn.counts


def test_a_split_that_is_split_keeps_its_validation_images_and_class_names(tmp_path: Path) -> None:
    rows = with_validation(dataset(tmp_path / "data"))
    first = split(tmp_path / "data", rows, tmp_path / "v1")
    again = split(tmp_path / "v1", tmp_path / "v2")
    assert (again.counts, again.classes) == (first.counts, first.classes)
    assert record(tmp_path / "v2")["validation"] == record(tmp_path / "v1")["validation"]
    written = json.dumps(record(tmp_path / "v1") | {"finished": False})
    (tmp_path / "v1" / "split.json").write_text(written)
    with pytest.raises(DataError, match="v1: its split was interrupted; run `whichcar split` again"):
        split(tmp_path / "v1", tmp_path / "v3")


def test_the_label_file_in_the_folder_is_used(tmp_path: Path) -> None:
    write_labels(tmp_path / "data" / "car_dataset_labels.csv", dataset(tmp_path / "data"))
    result = split(str(tmp_path / "data"), str(tmp_path / "v1"))
    assert result.counts == {"train": 24, "validation": 5, "test": 6}
    named = split(str(tmp_path / "data"), str(tmp_path / "data" / "car_dataset_labels.csv"), str(tmp_path / "v1"))
    assert named == result


def test_the_label_file_is_used_where_split_folders_hold_images_without_class_folders(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data", folder="")
    for row in rows:
        (tmp_path / "data" / row.subset).mkdir(exist_ok=True)
        (tmp_path / "data" / row.img_name).rename(tmp_path / "data" / row.subset / row.img_name)
    rows = [replace(row, img_name=f"{row.subset}/{row.img_name}") for row in rows]
    write_labels(tmp_path / "data" / "car_dataset_labels.csv", rows)
    assert split(tmp_path / "data", tmp_path / "v1").counts == {"train": 24, "validation": 5, "test": 6}
    assert {entry.class_name for entry in collect(tmp_path / "data").entries} == set(CLASSES)


def test_labels_without_a_subset_have_their_test_split_drawn(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    lines = ["img_name,class", *(f"{row.img_name},{row.class_name}" for row in rows)]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    result = split(tmp_path / "data", tmp_path / "labels.csv", tmp_path / "v1", test_share=0.2)
    assert result.counts == {"train": 24, "validation": 5, "test": 6}
    assert "bad_row" not in {one.issue for one in check(tmp_path / "data", tmp_path / "labels.csv").findings}
    lines[0] = "img_name,class,Split"
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"no column subset; found .*Split; call the column 'Split' subset"):
        split(tmp_path / "data", tmp_path / "labels.csv", tmp_path / "v2")


def test_one_folder_only_is_no_set_of_classes(tmp_path: Path) -> None:
    dataset(tmp_path / "data")
    with pytest.raises(DataError, match=r"one class folder only, 'car_ims'; .* or name a label file"):
        split(tmp_path / "data", tmp_path / "v1")


@pytest.mark.parametrize(
    "written",
    [
        r"sub\{stem}.jpg", r"C:\cars\{stem}.jpg", "SUB/{stem}.JPG", "sub/{stem}", "{stem}", "sub/{stem}.jpeg",
        " sub/{stem}.jpg ", "images/sub/{stem}.jpg", "/home/me/sub/{stem}.jpg", "{stem}.PNG", "sub / {stem}.jpg",
    ],
)  # fmt: skip
def test_when_no_row_can_be_used_an_example_and_what_it_may_mean_are_reported(tmp_path: Path, written: str) -> None:
    for number in range(6):
        write_image(tmp_path / "data" / "car_ims" / "sub" / f"{number:06d}.jpg", number)
    names = [written.format(stem=f"{number:06d}") for number in range(6)]
    rows = [Label(name, "A", "train") for name in ("", *names)]
    with pytest.raises(DataError, match="none of the 7 rows can be used; 6 of them: ") as raised:
        split(tmp_path / "data", rows, tmp_path / "v1")
    assert str(raised.value).endswith(f"such as {names[0]!r}; did you mean 'sub/000000.jpg'?")


def test_rows_without_a_file_say_what_they_may_mean(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    wrong = [Label("000003.JPG", CLASSES[0], "train"), Label("nothing like it.jpg", CLASSES[0], "train")]
    reason = reasons(split(tmp_path / "data", [*rows, *wrong], tmp_path / "v1"))
    assert reason["000003.JPG"].endswith("; did you mean '000003.jpg'?")
    assert "did you mean" not in reason["nothing like it.jpg"]
    write_labels(tmp_path / "labels.csv", [*rows, *wrong])
    found = {one.path: one.detail for one in check(tmp_path / "data", tmp_path / "labels.csv").findings}
    assert found["000003.JPG"].endswith("; did you mean '000003.jpg'?")


def test_a_broken_link_is_called_so_and_no_name_is_suggested_in_its_place(tmp_path: Path) -> None:
    for name in ("A/1.jpg", "B/1.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).symlink_to(tmp_path / "gone" / name)
    message = "2 of them: a link to a file that is not there; restore it, such as 'A/1.jpg'"
    with pytest.raises(DataError, match=f"none of the 2 rows can be used; {message}$"):
        split(tmp_path / "data", tmp_path / "v1")


def test_a_name_is_not_suggested_in_place_of_itself(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    image = tmp_path / "data" / "car_ims" / os.fsdecode(b"caf\xe9.jpg")
    write_image(image)
    os.mkfifo(image.with_name("pipe.jpg"))
    more = [Label(name, CLASSES[0], "train") for name in (image.name, "pipe.jpg")]
    reason = reasons(split(tmp_path / "data", [*rows, *more], tmp_path / "v1"))
    assert reason["caf\\udce9.jpg"] == "img_name contains bytes that are not text; rename it"
    assert reason["pipe.jpg"].startswith("no such file in ") and "did you mean" not in reason["pipe.jpg"]


def test_files_of_formats_that_are_not_opened_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = folders(tmp_path / "data")
    first, second, *_ = sorted(data.iterdir())
    (first / "phone.HEIC").touch()
    (first / "._phone.HEIC").touch()  # of a Mac
    split(data, tmp_path / "v1")
    line = "1 file of a format that is not opened, such as HEIC, not used; convert to JPEG or PNG"
    assert caplog.messages == [f"{data}: {line}"]
    for path in second.iterdir():
        path.rename(path.with_suffix(".heic"))
    advice = "HEIC and the like are not opened: convert them to JPEG or PNG"
    with pytest.raises(DataError, match=f"1 class folder without an image: '{second.name}'; {advice}$"):
        split(data, tmp_path / "v2")


def test_a_row_without_a_file_in_a_folder_whose_name_is_not_utf_8_is_recorded(tmp_path: Path) -> None:
    data = tmp_path / os.fsdecode(b"Autos_\xfc")
    rows = dataset(data)
    split(data, [*rows, Label("gone.jpg", CLASSES[0], "train")], tmp_path / "v1")
    assert record(tmp_path / "v1")["problems"] == [
        {"row": 31, "img_name": "gone.jpg", "reason": f"no such file in {data / 'car_ims'} or {data}"}
    ]


def copied_set(root: Path, seed: int) -> list[Label]:
    """Draw 4 classes of 8 images, and 20 copies: of the same bytes, encoded again, mirrored, cropped, copies of copies.

    A copy has any class and subset.
    """
    chance = random.Random(seed)
    classes = ["A 2012", "B 2012", "C 2012", "D 2012"]
    subsets = ["train", "train", "train", "validation", "test"] if seed % 2 else ["train", "train", "test"]
    paths = []
    for number in range(32):
        noise = np.random.default_rng(100 * seed + number)
        coarse, fine = (Image.fromarray(noise.integers(0, 256, (side, side, 3), np.uint8)) for side in (5, 24))
        paths.append(root / f"{number:02d}.png")
        root.mkdir(exist_ok=True)
        Image.blend(coarse.resize((96, 72), Image.Resampling.BICUBIC), fine.resize((96, 72)), 0.4).save(paths[-1])
    for number in range(20):
        of = chance.choice(paths)
        path = root / f"copy {number:02d}{of.suffix}"
        with Image.open(of) as opened:
            image = opened.convert("RGB")
        match chance.randrange(4):
            case 0:
                shutil.copyfile(of, path)
            case 1:
                path = path.with_suffix(".jpg")
                image.save(path, quality=80)
            case 2:
                ImageOps.mirror(image).save(path)
            case _:
                image.crop((4, 0, 96, 69)).resize((96, 72)).save(path)
        paths.append(path)
    return [Label(path.name, chance.choice(classes), chance.choice(subsets)) for path in paths]


@pytest.mark.parametrize("seed", range(4))
def test_check_finds_no_leak_in_a_fresh_split(tmp_path: Path, seed: int) -> None:
    rows = copied_set(tmp_path / "data", seed)
    drawn = [replace(row, subset="") for row in rows]
    for name, given in (("given", rows), ("drawn", drawn)):
        split(tmp_path / "data", given, tmp_path / name, seed=seed)
        found = check(tmp_path / name).findings
        assert [one for one in found if one.issue == "leak"] == []
        assert len([one for one in found if "duplicate" in one.issue]) > 0
    whole = record(tmp_path / "drawn")
    assert whole["counts"]["train"] + whole["counts"]["test"] == len(rows)  # type: ignore[index]  (nothing is left out)
    assert whole["counts"]["validation"] > 3  # type: ignore[index]
    split(tmp_path / "data", rows, tmp_path / "kept", seed=seed, keep_copies=True)
    assert [one for one in check(tmp_path / "kept").findings if one.issue == "leak"] != []


def test_a_set_without_copies_is_divided_as_it_always_was(drawn_large: Path, tmp_path: Path) -> None:
    data, rows = drawn_rows(drawn_large, tmp_path)
    split(data, rows, tmp_path / "v1", validation=0.25, seed=5)
    split(data, rows, tmp_path / "v2", validation=0.25, seed=5, keep_copies=True)
    assert record(tmp_path / "v1")["validation"] == record(tmp_path / "v2")["validation"]
    train: dict[str, list[str]] = {}
    for row in rows:
        if row.subset == "train":
            train.setdefault(row.class_name, []).append(f"{row.class_name}/{row.img_name}")
    assert record(tmp_path / "v1")["validation"] == sorted(draw_share(train, 0.25, 5))


def with_validation(rows: list[Label], name: str = "val") -> list[Label]:
    """Return the rows with the third and fourth image of every class in the validation split."""
    per_class = len(rows) // len(CLASSES)
    return [
        Label(row.img_name, row.class_name, name) if number % per_class in (2, 3) else row
        for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize("name", ["validation", "val", "Valid", "dev"])
def test_images_that_the_labels_give_to_validation_are_the_validation_split(tmp_path: Path, name: str) -> None:
    rows = with_validation(dataset(tmp_path / "data"), name)
    write_labels(tmp_path / "labels.csv", rows)
    result = split(tmp_path / "data", tmp_path / "labels.csv", tmp_path / "v1")
    assert (result.counts, result.problems) == ({"train": 24, "validation": 6, "test": 6}, [])
    tree = read_tree(tmp_path / "v1", 0.1, 7)  # a share is not asked for, since nothing is drawn
    held = {row.img_name for row in rows if row.subset == name}
    assert {sample.path.name for sample in tree.validation} == held
    assert not held & {sample.path.name for sample in tree.train}
    before = snapshot(tmp_path / "v1")
    split(tmp_path / "data", rows, tmp_path / "v1", validation=0.3)
    assert snapshot(tmp_path / "v1") == before


def test_labels_that_gained_a_validation_split_are_other_labels(tmp_path: Path) -> None:
    rows = dataset(tmp_path / "data")
    split(tmp_path / "data", rows, tmp_path / "v1")
    with pytest.raises(DataError, match="made from other labels"):
        split(tmp_path / "data", with_validation(rows), tmp_path / "v1")


def test_of_copies_the_one_in_the_most_held_out_split_stays(drawn_large: Path, tmp_path: Path) -> None:
    data, rows = drawn_rows(drawn_large, tmp_path)
    held = rows[0]
    rows[0] = Label(held.img_name, held.class_name, "validation")
    tested = next(row for row in rows if row.subset == "test")
    for source, name in ((held, "learned.jpg"), (tested, "chosen.jpg")):
        shutil.copy(data / "car_ims" / source.img_name, data / "car_ims" / name)
    rows += [Label("learned.jpg", held.class_name, "train"), Label("chosen.jpg", tested.class_name, "validation")]
    assert reasons(split(data, rows, tmp_path / "v1")) == {
        "learned.jpg": f"a copy of {held.img_name} in validation",
        "chosen.jpg": f"a copy of {tested.img_name} in test",
    }
