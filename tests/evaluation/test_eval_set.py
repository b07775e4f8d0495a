"""Which images an evaluation is about, by the layout of the folder and by what the checkpoint remembers."""

import dataclasses
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from whichcar.data.split.tree import read_tree
from whichcar.errors import DataError
from whichcar.evaluation.eval_set import choose_eval_set, labelled
from whichcar.records import Metadata

CLASSES = ("Audi S4 2012", "Citro\u00ebn C3 2012", "train")


def tree(root: Path, *splits: str, images: int = 5) -> Path:
    for split in splits or ("",):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for number in range(images):
                Image.new("RGB", (4, 4), (number, 0, 0)).save(root / split / name / f"{number}.png")
    return root


def trained_on(root: Path) -> Metadata:
    """Return what a checkpoint knows that was trained on a tree."""
    read = read_tree(root, 0.2, 1)
    settings = {"seed": 1, "data": {"directory": str(root), "validation_split": 0.2}}
    drawn = None if read.drawn is None else tuple(sorted(read.drawn))
    return Metadata(CLASSES, CLASSES, (4, 4), {}, settings, str(root), None, read.fingerprints, drawn)


def test_the_validation_images_of_a_folder_per_class_stay_those_of_training(tmp_path: Path) -> None:
    root = tree(tmp_path / "data")
    metadata = trained_on(root)
    before = choose_eval_set(None, metadata)
    assert (before.split, len(before.samples)) == ("validation", 3)
    for number in range(5, 30):
        Image.new("RGB", (4, 4)).save(root / CLASSES[0] / f"{number}.png")
    assert choose_eval_set(None, metadata).samples == before.samples
    drawn_again = choose_eval_set(None, dataclasses.replace(metadata, validation=None)).samples
    assert drawn_again != before.samples  # what would have happened without


def test_folders_of_no_class_are_named_with_the_class_that_is_spelt_otherwise(tmp_path: Path) -> None:
    metadata = trained_on(tree(tmp_path / "data"))
    for name, advice in (
        ("AUDI s4_2012", "rename 'AUDI s4_2012' to 'Audi S4 2012'"),
        ("Kia Rio 2011", "rename or remove what is no class, or evaluate a model trained on these classes"),
    ):
        folder = tmp_path / f"of {name}"
        (folder / name).mkdir(parents=True)
        with pytest.raises(DataError) as error:
            labelled(folder, metadata)
        assert str(error.value) == f"{folder}: 1 folder is named as no class of the model: {name!r}; {advice}"


def test_without_the_settings_of_its_training_a_bundle_takes_a_tree_for_other_images(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", "train", "val")
    metadata = dataclasses.replace(trained_on(root), data_root="", settings={})
    assert not choose_eval_set(root, metadata).own


def test_class_folders_from_a_mac_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    metadata = trained_on(tree(tmp_path / "data"))
    other = tree(tmp_path / "other")
    folder = other / CLASSES[1]
    folder.rename(folder.with_name(unicodedata.normalize("NFD", CLASSES[1])))
    assert sorted({sample.class_index for sample in labelled(other, metadata).samples}) == [0, 1, 2]


@pytest.mark.parametrize(
    ("splits", "name"),
    [(("train", "val", "Testing"), "test"), (("train", "valid"), "validation"), (("Training",), "train")],
)
def test_of_another_tree_the_most_held_out_split_is_evaluated(
    tmp_path: Path, splits: tuple[str, ...], name: str
) -> None:
    metadata = trained_on(tree(tmp_path / "data"))
    other = tree(tmp_path / "other", *splits)
    eval_set = choose_eval_set(other, metadata)
    assert (eval_set.split, len(eval_set.samples), eval_set.own) == (name, 15, False)
    assert {sample.path.parent.parent for sample in eval_set.samples} == {other / splits[-1]}


def test_where_all_images_were_trained_on_others_are_asked_for(tmp_path: Path) -> None:
    root = tree(tmp_path / "data")
    metadata = trained_on(root)
    metadata.settings["data"]["validation_split"] = 0
    all_trained_on = dataclasses.replace(metadata, validation=())
    with pytest.raises(DataError, match="no image that the experiment was not trained on; give others with --data DIR"):
        choose_eval_set(None, all_trained_on)


def test_the_own_tree_gives_its_test_split_or_its_given_validation_split(tmp_path: Path) -> None:
    whole, without = tree(tmp_path / "a", "train", "dev", "TEST"), tree(tmp_path / "b", "train", "dev")
    for root, name in ((whole, "test"), (without, "validation")):
        eval_set = choose_eval_set(None, trained_on(root))
        assert (eval_set.split, len(eval_set.samples), eval_set.own) == (name, 15, True)


def test_a_folder_with_the_class_called_train_alone_is_a_folder_per_class(tmp_path: Path) -> None:
    metadata = trained_on(tree(tmp_path / "data"))
    (tmp_path / "other" / "train").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "other" / "train" / "1.png")
    eval_set = labelled(tmp_path / "other", metadata)
    assert (eval_set.split, [sample.class_index for sample in eval_set.samples]) == ("images", [2])


def test_a_broken_link_in_place_of_a_class_is_named(tmp_path: Path) -> None:
    metadata = trained_on(tree(tmp_path / "data"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / CLASSES[0]).symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"Audi S4 2012: a link to .*gone, which is not there"):
        labelled(tmp_path / "other", metadata)


@pytest.mark.parametrize("splits", [(), ("train", "test")])
def test_images_of_an_interrupted_crop_are_not_evaluated(tmp_path: Path, splits: tuple[str, ...]) -> None:
    root = tree(tmp_path / "data", *splits)
    metadata = trained_on(root)
    (root / "crop.json").write_text('{"finished": false}')
    for data in (None, root):
        with pytest.raises(DataError, match="data: its crop was interrupted"):
            choose_eval_set(data, metadata)


def test_a_folder_of_datasets_is_not_evaluated(tmp_path: Path) -> None:
    metadata = trained_on(tree(tmp_path / "data" / "v1", "train", "test"))
    tree(tmp_path / "data" / "v2", "train", "test")
    with pytest.raises(DataError, match=r"its folders are datasets, not classes; name one: .*data/v1, .*data/v2"):
        choose_eval_set(tmp_path / "data", metadata)
