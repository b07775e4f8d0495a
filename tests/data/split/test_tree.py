import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest

from whichcar.data.split.split import split
from whichcar.data.split.tree import check_outside, read_tree
from whichcar.errors import DataError
from whichcar.records import Label

from .datasets import CLASSES, dataset, record, write_image


def test_training_reads_the_tree_with_true_names_and_the_recorded_validation(tmp_path: Path) -> None:
    split(tmp_path / "data", dataset(tmp_path / "data"), tmp_path / "v1")
    tree = read_tree(tmp_path / "v1", 0.2, seed=77)
    assert tree.root == tmp_path / "v1"
    assert tree.class_names == CLASSES
    assert tree.class_folders == (*CLASSES[:2], "Ram C-V Cargo Van Minivan 2012")
    assert (len(tree.train), len(tree.validation), len(tree.test)) == (19, 5, 6)
    held = [sample.path.relative_to(tmp_path / "v1" / "train").as_posix() for sample in tree.validation]
    assert held == record(tmp_path / "v1")["validation"]
    for sample in [*tree.train, *tree.validation, *tree.test]:
        assert sample.path.parent.name == tree.class_folders[sample.class_index]
    assert len({sample.path for sample in [*tree.train, *tree.validation]}) == 24
    assert read_tree(tmp_path / "v1" / "train", 0.2, seed=78) == tree


def test_another_share_than_the_recorded_one_says_both_ways_out(tmp_path: Path) -> None:
    split(tmp_path / "data", dataset(tmp_path / "data"), tmp_path / "v1")
    with pytest.raises(DataError, match=r"set data.validation_split to 0.2, or split into another folder with 0.1"):
        read_tree(tmp_path / "v1", 0.1, 123)


def test_a_folder_among_those_of_the_classes_is_refused(tmp_path: Path) -> None:
    for name in (
        "plain/a",
        "plain/b",
        "split/train/a",
        "split/train/b",
        "split/test/a",
        "one/train/a",
        "outer/plain/a",
        "outer2/split/train/a",
        "outer2/split/test/a",
    ):
        write_image(tmp_path / name / "1.jpg")
    (tmp_path / "link").symlink_to("plain")
    for inside, data, root in (
        ("plain", "plain", "plain"),
        ("plain/exp", "plain", "plain"),
        ("link/a/exp", "plain", "plain"),
        ("plain/exp", "link", "link"),
        ("split/train/exp", "split", "split/train"),
        ("split/test/exp", "split", "split/test"),
        ("one/exp", "one", "one"),
        ("outer/exp", "outer", "outer"),
        ("outer2/exp", "outer2", "outer2"),
    ):
        with pytest.raises(
            DataError, match=f"{inside}: lies in {tmp_path / root}, where it would be taken for a class"
        ):
            check_outside(tmp_path / inside, tmp_path / data)
    for outside, data in (
        ("exp", "plain"),
        ("plain2", "plain"),
        ("plain/.exp", "plain"),
        ("split/exp", "split"),
        ("outer2/split/exp", "outer2"),
        ("exp", "no"),
    ):
        check_outside(tmp_path / outside, tmp_path / data)


def test_the_working_folder_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split(tmp_path / "data", dataset(tmp_path / "data"), tmp_path / "v1")
    monkeypatch.chdir(tmp_path / "v1")
    assert len(read_tree(Path("train"), 0.2, 123).test) == 6
    monkeypatch.chdir(tmp_path / "v1" / "train")
    assert len(read_tree(Path(), 0.2, 123).test) == 6
    assert len(read_tree(Path(".."), 0.2, 123).test) == 6


def flat(root: Path, counts: dict[str, int]) -> Path:
    for class_name, count in counts.items():
        (root / class_name).mkdir(parents=True)
        for number in range(count):
            write_image(root / class_name / f"{number:02d}.jpg")
    return root


def test_a_folder_per_class_is_divided_by_names_share_and_seed_alone(tmp_path: Path) -> None:
    root = flat(tmp_path / "tree", {"b": 10, "a": 10, "one": 1})
    first = read_tree(root, 0.2, seed=5)
    assert first.class_names == ("a", "b", "one")
    assert (len(first.train), len(first.validation), first.test) == (17, 4, [])
    assert read_tree(str(root), 0.2, seed=5) == first
    assert read_tree(root, 0.2, seed=6).drawn != first.drawn
    shutil.copytree(root, tmp_path / "copy")
    assert read_tree(tmp_path / "copy", 0.2, seed=5).drawn == first.drawn


def test_a_class_name_is_text_whatever_its_folder_is_called(tmp_path: Path) -> None:
    folder = os.fsdecode(b"Citro\xebn C3 2012")
    tree = read_tree(flat(tmp_path / "tree", {"a": 10, folder: 10}), 0.2, seed=5)
    assert tree.class_names == ("Citro\\udcebn C3 2012", "a")
    assert tree.class_folders == (folder, "a")


def test_reading_a_tree_writes_nothing(tmp_path: Path) -> None:
    root = flat(tmp_path / "tree", {"a": 10, "b": 10})
    read_tree(root, 0.2, seed=5)
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]


def test_what_was_drawn_stays_drawn_when_images_come_or_go(tmp_path: Path) -> None:
    root = flat(tmp_path / "tree", {"b": 10, "a": 10})
    first = read_tree(root, 0.2, seed=5)
    for number in range(20):
        write_image(root / "a" / f"{number:02d} more.jpg")
    later = read_tree(root, 0.2, 5, first.drawn)
    assert later.validation == first.validation
    assert len(later.train) == len(first.train) + 20
    first.validation[0].path.unlink()
    assert read_tree(root, 0.2, 5, first.drawn).validation == first.validation[1:]


def test_the_record_that_earlier_versions_wrote_into_a_folder_per_class_still_holds(tmp_path: Path) -> None:
    root = flat(tmp_path / "tree", {"a": 10, "b": 10})
    chosen = ["a/03.jpg", "b/04.jpg", "b/07.jpg"]
    content = {"finished": True, "validation_share": 0.2, "classes": {"a": "a", "b": "b"}, "validation": chosen}
    (root / "split.json").write_text(json.dumps(content))
    tree = read_tree(root, 0.2, seed=5)
    assert [sample.path.relative_to(root).as_posix() for sample in tree.validation] == chosen
    assert tree.drawn is None


def test_a_split_tree_without_its_record_gives_the_same_validation(tmp_path: Path) -> None:
    split(tmp_path / "data", dataset(tmp_path / "data"), tmp_path / "v1")
    before = read_tree(tmp_path / "v1", 0.2, 123)
    (tmp_path / "v1" / "split.json").unlink()
    after = read_tree(tmp_path / "v1" / "train", 0.2, 123)
    assert after.validation == before.validation
    assert after.test == before.test


def test_class_order_is_sorted_whatever_order_the_folders_were_made_in(tmp_path: Path) -> None:
    root = flat(tmp_path / "tree", {"c": 2, "B": 2, "a": 2, "10": 2, "2": 2})
    assert read_tree(root, 0.2, 1).class_folders == ("10", "2", "B", "a", "c")


def test_ds_store_stray_files_and_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    root = flat(tmp_path / "tree", {"a": 3, "b": 3})
    for name in (".DS_Store", "Thumbs.db", "stray.jpg", "a/.DS_Store", "b/._00.jpg", ".ipynb_checkpoints/x.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    tree = read_tree(root, 0.2, 1)
    assert tree.class_names == ("a", "b")
    assert len(tree.train) + len(tree.validation) == 6


def test_one_image_a_class_stays_in_train(tmp_path: Path) -> None:
    tree = read_tree(flat(tmp_path / "tree", {"a": 1, "b": 1}), 0.5, 1)
    assert len(tree.train) == 2
    assert tree.validation == []


@pytest.mark.parametrize("kind", ["recorded", "drawn", "given"])
def test_validation_images_may_be_trained_on_too_and_those_for_test_never(tmp_path: Path, kind: str) -> None:
    split(tmp_path / "data", dataset(tmp_path / "data"), tmp_path / "v1")
    if kind != "recorded":
        (tmp_path / "v1" / "split.json").unlink()
    if kind == "given":
        shutil.copytree(tmp_path / "v1" / "test", tmp_path / "v1" / "validation")
    before = read_tree(tmp_path / "v1", 0.2, 123)
    after = read_tree(tmp_path / "v1", 0.2, 123, train_on_validation=True)
    assert before.validation
    assert after.train == [*before.train, *before.validation]
    assert (after.validation, after.drawn, after.test) == ([], None, before.test)
    assert after.fingerprints == before.fingerprints
    assert f"{len(after.train)} training, 0 validation, " in after.summary


def test_trees_that_cannot_be_trained_on_are_named(tmp_path: Path) -> None:
    def refused(root: Path) -> str:
        with pytest.raises(DataError) as raised:
            read_tree(root, 0.2, 1)
        assert str(tmp_path) in str(raised.value)
        return str(raised.value)

    assert "no such folder" in refused(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "no class folders" in refused(tmp_path / "empty")
    assert "1 class folder without an image: 'b'" in refused(flat(tmp_path / "hollow", {"a": 2, "b": 0}))
    assert "one class only, 'a'" in refused(flat(tmp_path / "single", {"a": 2}))
    dataset(tmp_path / "raw")
    flat(tmp_path / "raw", {"crops": 2})
    assert "not yet split" in refused(tmp_path / "raw")
    flat(tmp_path / "both" / "train", {"a": 2, "b": 2})
    flat(tmp_path / "both" / "test", {"a": 2, "c": 1, "d": 1})
    lacking = f"{tmp_path / 'both' / 'test'}: 2 classes that {tmp_path / 'both' / 'train'} lacks: 'c', 'd'"
    assert lacking in refused(tmp_path / "both")
    (tmp_path / "both" / "split.json").write_text("{")
    assert "split.json: damaged" in refused(tmp_path / "both")
    (tmp_path / "both" / "split.json").write_text('{"seed": 1}')
    assert "`finished` is missing" in refused(tmp_path / "both")


def test_validation_images_that_were_deleted_are_left_out_but_not_all(tmp_path: Path) -> None:
    split(tmp_path / "data", dataset(tmp_path / "data"), tmp_path / "v1")
    held = read_tree(tmp_path / "v1", 0.2, 123).validation
    held[0].path.unlink()
    assert read_tree(tmp_path / "v1", 0.2, 123).validation == held[1:]
    for sample in held[1:]:
        sample.path.unlink()
    with pytest.raises(DataError, match="none of its 5 validation images"):
        read_tree(tmp_path / "v1", 0.2, 123)


def test_a_class_whose_learning_images_were_deleted_is_named(tmp_path: Path) -> None:
    split(tmp_path / "data", dataset(tmp_path / "data"), tmp_path / "v1")
    for sample in read_tree(tmp_path / "v1", 0.2, 123).train:
        if sample.class_index == 1:
            sample.path.unlink()
    with pytest.raises(DataError, match="BMW X3 SUV 2012: all its images are set aside for validation"):
        read_tree(tmp_path / "v1", 0.2, 123)


def divided(root: Path, *splits: str, classes: dict[str, int] | None = None) -> Path:
    """Draw a folder per split and class."""
    for split_name in splits:
        flat(root / split_name, classes or {"a": 4, "b": 4})
    return root


@pytest.mark.parametrize("name", ["valid", "val", "validation", "Dev"])
def test_a_given_validation_split_is_used_and_none_is_drawn(tmp_path: Path, name: str) -> None:
    root = divided(tmp_path / "data", "train", name, "test")
    tree = read_tree(root, 0.2, 1)
    assert (len(tree.train), len(tree.validation), len(tree.test), tree.drawn) == (8, 8, 8, None)
    assert {sample.path.parent.parent for sample in tree.validation} == {root / name}
    assert read_tree(root / "train", 0.2, 1) == tree
    assert f"8 training, 8 validation (given in {name}/), 8 test images" in tree.summary


def test_a_class_may_be_missing_or_empty_in_held_out_splits_but_not_be_new_there(tmp_path: Path) -> None:
    root = divided(tmp_path / "data", "train")
    flat(root / "val", {"a": 2, "b": 0})
    assert len(read_tree(root, 0.2, 1).validation) == 2
    flat(root / "val", {"c": 1})
    with pytest.raises(DataError, match=r"1 class that .*train lacks: 'c'"):
        read_tree(root, 0.2, 1)


def test_splits_in_a_wrapping_folder_are_read(tmp_path: Path) -> None:
    divided(tmp_path / "data" / "cars", "Training", "Testing")
    tree = read_tree(tmp_path / "data", 0.25, 1)
    assert (tree.root, len(tree.test)) == (tmp_path / "data" / "cars", 8)


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    root = flat(tmp_path / "data", {"bus": 5, "car": 5, "train": 5})
    assert read_tree(root, 0.2, 1).class_names == ("bus", "car", "train")


def test_folders_that_hold_no_training_classes_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no training split, only val/, test/; add train/"):
        read_tree(divided(tmp_path / "data", "val", "test"), 0.2, 1)
    flat(tmp_path / "loose", {"train": 2, "test": 2})
    with pytest.raises(DataError, match=r"train: images in no class folder; sort them"):
        read_tree(tmp_path / "loose", 0.2, 1)


def test_class_folders_in_either_unicode_form_are_the_same_classes(tmp_path: Path) -> None:
    composed, apart = "Citro\u00ebn C3 2012", "Citroe\u0308n C3 2012"
    nfc = flat(tmp_path / "nfc", {composed: 5, "Audi": 5, "Citroz": 5})
    nfd = flat(tmp_path / "nfd", {apart: 5, "Audi": 5, "Citroz": 5})
    first, second = read_tree(nfc, 0.2, 1), read_tree(nfd, 0.2, 1)
    assert first.class_folders == second.class_folders == ("Audi", "Citroz", composed)
    assert first.drawn == second.drawn
    assert {sample.path.parent.name for sample in second.train} == {apart, "Audi", "Citroz"}
    flat(nfc, {apart: 3})
    assert len(read_tree(nfc, 0.2, 1).train) == len(first.train) + 2


def test_a_split_tree_that_came_from_a_mac_keeps_names_and_validation(tmp_path: Path) -> None:
    name = "Citro\u00ebn C/3 2012"
    rows = [Label(row.img_name, name if row.class_name == CLASSES[0] else row.class_name, row.subset)
            for row in dataset(tmp_path / "data")]  # fmt: skip
    split(tmp_path / "data", rows, tmp_path / "v1")
    before = read_tree(tmp_path / "v1", 0.2, 123)
    for part in ("train", "test"):
        folder = tmp_path / "v1" / part / name.replace("/", "-")
        folder.rename(folder.with_name(unicodedata.normalize("NFD", folder.name)))
    after = read_tree(tmp_path / "v1", 0.2, 123)
    assert after.class_names == before.class_names
    assert [sample.path.name for sample in after.validation] == [sample.path.name for sample in before.validation]


def test_linked_class_and_split_folders_are_read_and_broken_links_are_reported(tmp_path: Path) -> None:
    store = divided(tmp_path / "store", "one", "two")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(store / "one")
    (tmp_path / "data" / "test").symlink_to(store / "two")
    assert len(read_tree(tmp_path / "data", 0.25, 1).test) == 8
    root = flat(tmp_path / "flat", {"a": 3})
    (root / "b").symlink_to(store / "one" / "b")
    assert read_tree(root, 0.25, 1).class_names == ("a", "b")
    (root / "c").symlink_to(store / "gone")
    with pytest.raises(DataError, match=r"flat/c: a link to .*gone, which is not there; restore that or remove"):
        read_tree(root, 0.25, 1)


def test_the_summary_says_that_split_json_chose_the_validation_images(drawn: Path, tmp_path: Path) -> None:
    split(drawn, drawn / "car_dataset_labels.csv", tmp_path / "v1")
    tree = read_tree(tmp_path / "v1", 0.2, 1)
    assert f"{len(tree.validation)} validation (given in split.json), " in tree.summary
    assert "given" not in read_tree(tmp_path / "v1", 0, 1).summary
