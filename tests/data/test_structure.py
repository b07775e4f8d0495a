import contextlib
from pathlib import Path

import pytest

from whichcar.cli import main
from whichcar.data.structure import splits_in, structure_of
from whichcar.errors import DataError


def laid_out(root: Path, *names: str) -> Path:
    """Make empty files; a name that ends in `/` is a folder."""
    root.mkdir()
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if name.endswith("/") else path.touch()
    return root


DIVIDED = ("train/A/1.jpg", "train/B/1.jpg")
SPLITS = {
    "Roboflow": ((*DIVIDED, "valid/A/1.jpg", "test/B/1.jpg", "README.txt"), "train validation=valid test"),
    "ImageNet": ((*DIVIDED, "val/A/1.jpg"), "train validation=val"),
    "Hugging Face": ((*DIVIDED, "validation/A/1.jpg", "test/A/1.jpg"), "train validation test"),
    "upper case": (("Training/A/1.jpg", "Training/B/1.jpg", "TESTING/A/1.jpg", "Dev/A/1.jpg"),
                   "train=Training validation=Dev test=TESTING"),
    "train only": (DIVIDED, "train"),
    "test only": (("test/A/1.jpg", "test/B/1.jpg"), "test"),
    "an empty test": ((*DIVIDED, "test/"), "train"),
    "one class": (("train/A/1.jpg", "test/A/1.jpg"), "train test"),
    "nested classes": (("train/Audi/A4/1.jpg", "train/BMW/X3/1.jpg", "val/Audi/A4/2.jpg"), "train validation=val"),
    "folders without images": ((*DIVIDED, "test/A/1.jpg", "labels/1.txt", "__MACOSX/train/._1.jpg"), "train test"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "splits"), SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("wrapped", ["", "wrapped/", "two/deep/"])
def test_split_folders_are_understood_by_any_common_name(
    tmp_path: Path, names: tuple[str, ...], splits: str, wrapped: str
) -> None:
    root = laid_out(tmp_path / "data", *(wrapped + name for name in names))
    found = structure_of(root)
    wanted = [pair.split("=") for pair in splits.split()]
    assert found.root == root / wrapped
    assert found.splits == {pair[0]: root / wrapped / pair[-1] for pair in wanted}
    assert found.remarks == []


@pytest.mark.parametrize(
    "names",
    [
        ("bus/1.jpg", "car/1.jpg", "train/1.jpg", "truck/1.jpg"),
        ("car/1.jpg", "train/1.jpg"),
        ("Test/1.jpg", "car/1.jpg", "truck/1.jpg"),
        ("bus/1.jpg", "car/1.jpg", "train/1.jpg", "train/more/1.jpg"),
        ("bus/a/1.jpg", "bus/b/1.jpg", "car/c/1.jpg", "train/e/1.jpg", "train/d/1.jpg"),
        ("bus/1.jpg", "bus/more/1.jpg", "train/1.jpg", "train/more/1.jpg"),
        ("BMW/train/1.jpg", "Audi/test/1.jpg"),
        ("BMW/1.jpg", "Audi/1.jpg", "train/"),
        ("BMW/front/1.jpg",),
        ("1.jpg", "2.jpg"),
    ],
)
def test_class_folders_stay_classes_whatever_they_are_called(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = laid_out(tmp_path / "data", *names)
    found = structure_of(root)
    assert (found.root, found.splits) == (root, {})


def test_class_folders_in_another_folder_are_found_there(tmp_path: Path) -> None:
    root = laid_out(tmp_path / "data", "cars/images/bus/1.jpg", "cars/images/train/1.jpg", "cars/licence.txt")
    assert structure_of(root).root == root / "cars" / "images"


@pytest.mark.parametrize("names", [(*DIVIDED, "test/B/1.jpg"), DIVIDED])
@pytest.mark.parametrize("more", ["extra/1.jpg", "extra/A/1.jpg"])
def test_one_more_folder_makes_no_classes_of_splits(tmp_path: Path, names: tuple[str, ...], more: str) -> None:
    root = laid_out(tmp_path / "data", *names, more)
    found = structure_of(root)
    assert found.splits["train"] == root / "train"
    assert found.remarks == [f"{root / 'extra'}: none of train, validation, test; its images are not used"]


def test_a_split_without_class_folders_is_reported(tmp_path: Path) -> None:
    root = laid_out(tmp_path / "data", *DIVIDED, "test/1.jpg", "extra/1.jpg", "more/1.jpg")
    found = structure_of(root)
    assert found.unlabelled == (root / "test",)
    assert found.left_out == (root / "extra", root / "more")
    assert structure_of(laid_out(tmp_path / "two", "train/1.jpg", "test/1.jpg")).splits.keys() == {"train", "test"}


@pytest.mark.parametrize(
    "names",
    [
        ("bus/1.jpg", "car/1.jpg", "train/A/1.jpg", "train/B/1.jpg"),
        ("car/1.jpg", "test/1.jpg", "train/1.jpg"),
    ],
)
def test_what_can_be_a_split_or_a_class_is_asked_about_in_one_line(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="may be meant as a split or as a class in addition to") as raised:
        structure_of(laid_out(tmp_path / "data", *names))
    assert "\n" not in str(raised.value)


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    root = laid_out(tmp_path / "data", *DIVIDED, "val/A/1.jpg", "valid/A/1.jpg")
    with pytest.raises(DataError, match="val/ and valid/ are both the validation split; keep one"):
        structure_of(root)


@pytest.mark.parametrize("place", ["", "out", "out/v1", "out/v1/train"])
@pytest.mark.parametrize(("content", "refused"), [('{"finished": false}', True), ('{"finished": true}', False),
                                                  ('{"photos": []}', False), ("[", False)])  # fmt: skip
def test_images_of_an_interrupted_crop_are_refused_wherever_its_record_lies(
    tmp_path: Path, place: str, content: str, refused: bool
) -> None:
    root = laid_out(tmp_path / "data", *(f"out/v1/{name}" for name in DIVIDED))
    (root / "out" / "crop.json").write_text(content)
    with pytest.raises(DataError, match="out: its crop was interrupted") if refused else contextlib.nullcontext():
        structure_of(root / place)
    with pytest.raises(DataError, match="out: its crop was interrupted") if refused else contextlib.nullcontext():
        splits_in(root / "out" / "v1")


TWO = tuple(
    f"{dataset}/{split}/{name}/1.jpg" for dataset in ("v1", "v2") for split in ("train", "test") for name in "AB"
)


@pytest.mark.parametrize(
    "names",
    [
        TWO,
        (*TWO, "notes/read.txt", "issues.csv"),
        (*(f"deep/{name}" for name in TWO), "README.txt"),
        ("v1/A/1.jpg", "v1/B/1.jpg", "v1/crop.json", "v2/train/A/1.jpg", "v2/train/B/1.jpg", "v2/split.json"),
        (
            "v1/Train/A/1.jpg",
            "v1/valid/A/1.jpg",
            "test/train/A/1.jpg",
            "test/test/A/1.jpg",
            "v2/A/1.jpg",
            "v2/crop.json",
        ),
    ],
)
def test_a_folder_of_datasets_is_refused_with_their_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = laid_out(tmp_path / "data", *names)
    place = root / names[0].split("/")[0] if names[0].startswith("deep") else root
    datasets = sorted({str(place / entry.name) for entry in place.iterdir() if any(entry.glob("**/*.jpg"))})
    with pytest.raises(DataError) as raised:
        structure_of(root)
    assert str(raised.value) == f"{place}: its folders are datasets, not classes; name one: {', '.join(datasets)}"


@pytest.mark.parametrize(
    "names",
    [
        (*TWO, "photos/1.jpg"),
        (*TWO, "1.jpg"),  # its label file may be elsewhere
        ("BMW/train/1.jpg", "BMW/test/1.jpg", "Audi/train/1.jpg", "Audi/test/1.jpg"),
        ("BMW/1.jpg", "BMW/crop.json", "Audi/1.jpg", "Audi/crop.json"),
        ("BMW/train/1.jpg", "BMW/test/1.jpg", "train/1.jpg"),
        ("BMW/X3/1.jpg", "BMW/X5/1.jpg", "Audi/A4/1.jpg", "Audi/A6/1.jpg"),
    ],
)
def test_class_folders_are_not_taken_for_datasets(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert structure_of(laid_out(tmp_path / "data", *names)).splits == {}


def test_a_wrapper_of_one_dataset_is_read_as_that_one(tmp_path: Path) -> None:
    root = laid_out(tmp_path / "data", *(name for name in TWO if name.startswith("v1")), "v2/", "v2/split.json")
    assert structure_of(root).root == root / "v1"


@pytest.mark.parametrize("command", ["check data", "split data out", "new mine --data data --weights none"])
def test_every_command_that_takes_a_dataset_refuses_a_folder_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    laid_out(tmp_path / "data", *TWO)
    monkeypatch.chdir(tmp_path)
    assert main.run(command.split()) == main.MISTAKE
    assert capsys.readouterr().err == "error: data: its folders are datasets, not classes; name one: data/v1, data/v2\n"
