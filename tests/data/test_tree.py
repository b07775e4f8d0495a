import json
import os
from pathlib import Path

import pytest
from PIL import Image

from whichcar.data.split import split
from whichcar.data.tree import read_tree
from whichcar.errors import DataError
from whichcar.records import Label

CLASSES = ("AM General Hummer SUV 2000", "BMW X3 SUV 2012", "Ram C/V Cargo Van Minivan 2012")


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (shade % 256, shade // 256, 90)).save(path, format="PNG")


def dataset(root: Path, per_class: int = 10, folder: str = "car_ims") -> list[Label]:
    """Draw `per_class` pictures of each of the three classes, the last fifth of each for test."""
    rows = []
    for index, class_name in enumerate(CLASSES):
        for number in range(per_class):
            name = f"{index * per_class + number + 1:06d}.jpg"
            picture(root / folder / name, index * per_class + number)
            rows.append(Label(name, class_name, "test" if number >= 0.8 * per_class else "train"))
    return rows


def record(output: Path) -> dict[str, object]:
    content = json.loads((output / "split.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


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
            picture(root / class_name / f"{number:02d}.jpg")
    return root


def test_a_flat_tree_is_divided_once_and_for_all(tmp_path: Path) -> None:
    root = flat(tmp_path / "tree", {"b": 10, "a": 10, "one": 1})
    first = read_tree(root, 0.2, seed=5)
    assert first.class_names == ("a", "b", "one")
    assert (len(first.train), len(first.validation), first.test) == (17, 4, [])
    assert read_tree(root, 0.2, seed=6) == first
    assert record(root)["seed"] == 5
    picture(root / "a" / "99.jpg")
    later = read_tree(root, 0.2, seed=5)
    assert later.validation == first.validation
    assert len(later.train) == 18


def test_a_split_tree_without_its_record_gives_the_same_validation(tmp_path: Path) -> None:
    split(tmp_path / "data", dataset(tmp_path / "data"), tmp_path / "v1")
    before = read_tree(tmp_path / "v1", 0.2, 123)
    (tmp_path / "v1" / "split.json").unlink()
    after = read_tree(tmp_path / "v1" / "train", 0.2, 123)
    assert after.validation == before.validation
    assert after.test == before.test


def test_a_tree_that_may_not_be_written_is_divided_in_memory(tmp_path: Path) -> None:
    root = flat(tmp_path / "tree", {"a": 10, "b": 10})
    root.chmod(0o500)
    if os.access(root, os.W_OK):
        pytest.skip("this user may write everywhere")
    first = read_tree(root, 0.2, seed=5)
    assert not (root / "split.json").exists()
    assert read_tree(root, 0.2, seed=5) == first


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


def test_one_picture_a_class_stays_in_train(tmp_path: Path) -> None:
    tree = read_tree(flat(tmp_path / "tree", {"a": 1, "b": 1}), 0.5, 1)
    assert len(tree.train) == 2
    assert tree.validation == []


def test_trees_that_cannot_be_trained_on_are_named(tmp_path: Path) -> None:
    def refused(root: Path) -> str:
        with pytest.raises(DataError) as raised:
            read_tree(root, 0.2, 1)
        assert str(tmp_path) in str(raised.value)
        return str(raised.value)

    assert "no such folder" in refused(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "no class folders" in refused(tmp_path / "empty")
    assert "no picture in class folder 'b'" in refused(flat(tmp_path / "hollow", {"a": 2, "b": 0}))
    assert "one class only, 'a'" in refused(flat(tmp_path / "single", {"a": 2}))
    dataset(tmp_path / "raw")
    flat(tmp_path / "raw", {"crops": 2})
    assert "not yet split" in refused(tmp_path / "raw")
    flat(tmp_path / "both" / "train", {"a": 2, "b": 2})
    flat(tmp_path / "both" / "test", {"a": 2, "c": 1, "d": 1})
    assert "class 'c', 'd' is not in train" in refused(tmp_path / "both")
    (tmp_path / "both" / "split.json").write_text("{")
    assert "split.json: damaged" in refused(tmp_path / "both")
    (tmp_path / "both" / "split.json").write_text('{"seed": 1}')
    assert "`finished` is missing" in refused(tmp_path / "both")


def test_validation_pictures_that_were_deleted_are_left_out_but_not_all(tmp_path: Path) -> None:
    split(tmp_path / "data", dataset(tmp_path / "data"), tmp_path / "v1")
    held = read_tree(tmp_path / "v1", 0.2, 123).validation
    held[0].path.unlink()
    assert read_tree(tmp_path / "v1", 0.2, 123).validation == held[1:]
    for sample in held[1:]:
        sample.path.unlink()
    with pytest.raises(DataError, match="none of the 5 validation pictures"):
        read_tree(tmp_path / "v1", 0.2, 123)


def test_a_class_whose_learning_pictures_were_deleted_is_named(tmp_path: Path) -> None:
    split(tmp_path / "data", dataset(tmp_path / "data"), tmp_path / "v1")
    for sample in read_tree(tmp_path / "v1", 0.2, 123).train:
        if sample.class_index == 1:
            sample.path.unlink()
    with pytest.raises(DataError, match="BMW X3 SUV 2012: all its pictures are set aside for validation"):
        read_tree(tmp_path / "v1", 0.2, 123)
