"""Tables with images in them, alone and from a hub: its real client, and a server on loopback that answers it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from whichcar.data.fetch.fetch import fetch
from whichcar.data.labels import read_labels
from whichcar.data.split.split import split
from whichcar.errors import DataError
from whichcar.images.read import read_image

from ...loopback import Silent, served

pyarrow = pytest.importorskip("pyarrow", reason="whichcar[hf] is not installed")
from pyarrow import parquet  # noqa: E402

CLASSES = ["Audi S4 2012", "Ram C/V Cargo Van 2012"]


def table(path: Path, images: list[Path], image: object = "struct", label: str = "label", text: bool = False) -> Path:
    """Write a table as `datasets` does: images as structs, labels as numbers with their names in the metadata."""
    contents = [image.read_bytes() for image in images]
    rows = [{"bytes": content, "path": None} for content in contents] if image == "struct" else contents
    numbers = [number % 2 for number in range(len(images))]
    columns = {"image": rows, label: [CLASSES[number] for number in numbers] if text else numbers}
    made = pyarrow.table(columns)
    if not text:
        features = {label: {"names": CLASSES, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(made, path)
    return path


@pytest.fixture
def images(drawn: Path) -> list[Path]:
    return sorted((drawn / "car_ims").iterdir())


def test_both_halves_become_images_and_labels(images: list[Path], tmp_path: Path) -> None:
    train = table(tmp_path / "train-00000-of-00001.parquet", images[:20])
    test = table(tmp_path / "test-00000-of-00001.parquet", images[20:])
    got = fetch([train, test], tmp_path / "data")
    assert (got.kind, got.images, got.labels) == ("label file", 32, 32)
    rows = read_labels(tmp_path / "data/car_dataset_labels.csv")
    assert {(row.class_name, row.subset) for row in rows} == {(c, s) for c in CLASSES for s in ("train", "test")}
    assert sum(row.subset == "train" for row in rows) == 20
    first = next(row for row in rows if row.subset == "train")
    assert (read_image(tmp_path / "data/car_ims" / first.img_name) == read_image(images[0])).all()
    assert split(tmp_path / "data", rows, tmp_path / "v1", 0.25, 1).problems == []


@pytest.mark.parametrize(("image", "label", "text"), [("bytes", "label", False), ("struct", "class", True)])
def test_other_columns_are_understood_and_one_table_is_left_to_be_divided(
    images: list[Path], tmp_path: Path, image: str, label: str, text: bool
) -> None:
    table(tmp_path / "in" / ("train.parquet" if text else "cars.parquet"), images, image, label, text)
    fetch([tmp_path / "in"], tmp_path / "data")
    rows = read_labels(tmp_path / "data/car_dataset_labels.csv")
    assert {row.class_name for row in rows} == set(CLASSES)
    assert {row.subset for row in rows} == {""}


def test_a_validation_table_is_the_validation_split(images: list[Path], tmp_path: Path) -> None:
    table(tmp_path / "in" / "Training.parquet", images[:20])
    table(tmp_path / "in" / "cars_valid.parquet", images[20:])
    got = fetch([tmp_path / "in"], tmp_path / "data")
    assert got.splits == {"train": 20, "validation": 12}
    assert split(tmp_path / "data", tmp_path / "data/car_dataset_labels.csv", tmp_path / "v1").counts == {
        "train": 32,
        "validation": 12,
        "test": 0,
    }


def test_the_folder_of_a_table_tells_its_split_and_tables_of_no_split_are_left_out(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, some in (("train", images[:16]), ("test", images[16:24]), ("motion_blur", images[24:])):
        table(tmp_path / "in" / "default" / name / "0000.parquet", some)
    got = fetch([tmp_path / "in"], tmp_path / "data")
    assert (got.splits, got.images) == ({"train": 16, "test": 8}, 24)
    assert "8 rows in none of the splits train, validation, test left out" in caplog.text


def test_a_column_tells_the_split_of_each_row(images: list[Path], tmp_path: Path) -> None:
    contents = [image.read_bytes() for image in images[:6]]
    splits = ["train", "Train", "val", "validation", "test", "other"]
    made = pyarrow.table({"image": contents, "label": list("ababab"), "split": splits})
    parquet.write_table(made, tmp_path / "train.parquet")
    assert fetch(tmp_path / "train.parquet", tmp_path / "data").splits == {"train": 3, "validation": 2, "test": 1}
    parquet.write_table(made, tmp_path / "cars.parquet")
    assert fetch(tmp_path / "cars.parquet", tmp_path / "more").splits == {"train": 2, "validation": 2, "test": 1}


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
def test_a_split_column_is_read_whatever_kind_of_text_it_is(images: list[Path], tmp_path: Path, kind: str) -> None:
    splits = pyarrow.array(["train", "train", "test", None])
    splits = splits.dictionary_encode() if kind == "dictionary" else splits.cast(kind)
    contents = [image.read_bytes() for image in images[:4]]
    parquet.write_table(
        pyarrow.table({"image": contents, "label": list("abab"), "split": splits}), tmp_path / "a.parquet"
    )
    assert fetch(tmp_path / "a.parquet", tmp_path / "data").splits == {"train": 2, "test": 1}


@pytest.mark.parametrize(
    ("column", "values", "names", "said"),
    [
        ("split", [0, 1, 1, None], ["train", "test"], ""),
        ("split", [0, 1, 1, 0], [], "its column split holds int64, not text; not used"),
        ("subset", [["train"]] * 4, [], "its column subset holds list<"),
    ],
)
def test_a_split_column_without_text_is_used_where_its_numbers_have_names(
    images: list[Path],
    tmp_path: Path,
    column: str,
    values: list[object],
    names: list[str],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    contents = [image.read_bytes() for image in images[:4]]
    features = {column: {"names": names, "_type": "ClassLabel"} if column == "split" else [{"dtype": "string"}]}
    made = pyarrow.table({"image": contents, "label": list("abab"), column: values})
    made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(made, tmp_path / "cars.parquet")
    assert fetch(tmp_path / "cars.parquet", tmp_path / "data").splits == ({"train": 1, "test": 2} if names else {})
    assert said in caplog.text


def test_classes_may_be_whole_numbers_of_any_type(images: list[Path], tmp_path: Path) -> None:
    contents = [image.read_bytes() for image in images[:4]]
    for kind in ("double", "float", "halffloat"):
        labels = pyarrow.array([0.0, 1.0, -1.0, float("nan")], "float64").cast(kind)
        parquet.write_table(pyarrow.table({"image": contents, "label": labels}), tmp_path / "a.parquet")
        got = fetch(tmp_path / "a.parquet", tmp_path / kind)
        assert (got.classes, got.images) == (("class 0", "class 1"), 2)
    parquet.write_table(pyarrow.table({"image": contents[:1], "label": [0.5]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: a label is 0\.5, which is no class; give whole numbers or text"):
        fetch(tmp_path / "a.parquet", tmp_path / "data")


def test_the_image_is_the_column_of_that_name_or_a_struct_with_bytes(images: list[Path], tmp_path: Path) -> None:
    contents = [image.read_bytes() for image in images[:4]]
    sums = {"md5": [b"x"] * 4, "thumbnail": [{"size": 1}] * 4, "labels": [["a", "b"]] * 4, "label": list("abab")}
    structs = [{"path": None, "bytes": content} for content in contents]
    for number, columns in enumerate(
        [{"image": contents}, {"photo": structs}, {"image": structs, "photo": structs[::-1]}]
    ):
        into = tmp_path / str(number)
        parquet.write_table(pyarrow.table(sums | columns), tmp_path / "a.parquet")
        fetch(tmp_path / "a.parquet", into)
        assert sorted(path.read_bytes() for path in (into / "car_ims").iterdir()) == sorted(contents)


def test_rows_without_a_class_are_left_out(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contents = [image.read_bytes() for image in images[:4]]
    parquet.write_table(pyarrow.table({"image": contents, "label": [0, 1, -1, -1]}), tmp_path / "train.parquet")
    assert fetch(tmp_path / "train.parquet", tmp_path / "data").images == 2
    assert "2 rows without a class left out" in caplog.text


def test_a_table_without_images_or_labels_says_what_it_has(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.table({"a": [1], "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column of images; it has a, label"):
        fetch([tmp_path / "a.parquet"], tmp_path / "data")
    parquet.write_table(pyarrow.table({"image": [b"x"]}), tmp_path / "b.parquet")
    with pytest.raises(
        DataError, match=r"no column of labels \(label, .*\), a text or whole number each; it has image"
    ):
        fetch([tmp_path / "b.parquet"], tmp_path / "data")
    parquet.write_table(pyarrow.table({"image": [b"x"], "labels": [[0, 1]]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"no column of labels .*; it has image, labels"):
        fetch([tmp_path / "d.parquet"], tmp_path / "data")
    parquet.write_table(pyarrow.table({"image": [{"path": "x.jpg"}], "label": [0]}), tmp_path / "e.parquet")
    with pytest.raises(DataError, match="no column of images"):
        fetch([tmp_path / "e.parquet"], tmp_path / "data")
    (tmp_path / "c.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"c\.parquet: cannot be read as a table"):
        fetch([tmp_path / "c.parquet"], tmp_path / "data")


class Hub(Silent):
    """What the client of the Hugging Face hub asks for, for one data set."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].replace("/cars-v1.0", "/cars")
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": f"{len(content):040x}"}
            for name, content in self.files.items()
        ]
        if path == "/api/datasets/me/cars" or path.startswith("/api/datasets/me/cars/revision/"):
            self.say(json.dumps({"id": "me/cars", "sha": "a" * 40, "siblings": []}).encode())
        elif path.startswith("/api/datasets/me/cars/tree/"):
            self.say(json.dumps(entries).encode())
        elif path.startswith("/datasets/me/cars/resolve/main/"):
            self.say(self.files[path.removeprefix("/datasets/me/cars/resolve/main/")])
        elif path.startswith("/api/datasets/"):
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.say(b"{}")

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        found = [name for name in self.files if name in asked or name.replace("/", "%2F") in asked]
        entries = [
            {"type": "file", "path": n, "size": len(self.files[n]), "oid": f"{len(self.files[n]):040x}"} for n in found
        ]
        self.say(json.dumps(entries).encode())

    def say(self, content: bytes) -> None:
        wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = content[int(wanted[1]) : int(wanted[2]) + 1] if wanted else content
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", '"tag"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(part)


@pytest.fixture
def hub(images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("huggingface_hub", reason="whichcar[hf] is not installed")
    halves = {"data/train/0000.parquet": images[:20], "data/test/0000.parquet": images[20:]}
    halves["data/contrast/0000.parquet"] = images  # of no split: not even downloaded
    files = {name: table(tmp_path / "made" / name, some).read_bytes() for name, some in halves.items()}
    monkeypatch.setattr(Hub, "files", files | {"README.md": b"cars"})
    with served(Hub) as address:
        yield address


def run(hub: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: the client reads HF_ENDPOINT when it is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [sys.executable, "-m", "whichcar", *arguments]
    return subprocess.run(command, env=environment | {"HF_ENDPOINT": hub}, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", ["cars", "cars-v1.0"])
def test_a_data_set_of_the_hub_is_fetched(hub: str, tmp_path: Path, name: str) -> None:
    done = run(hub, "fetch", f"hf://datasets/me/{name}", "--into", str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    assert "32 images, 32 labels" in done.stdout
    assert sorted(path.name for path in (tmp_path / "data/raw").glob("*.parquet")) == [
        "data-test-0000.parquet",
        "data-train-0000.parquet",
    ]
    rows = read_labels(tmp_path / "data/car_dataset_labels.csv")
    assert sum(row.subset == "train" for row in rows) == 20


def test_a_data_set_that_is_not_there_is_reported(hub: str, tmp_path: Path) -> None:
    done = run(hub, "fetch", "hf://datasets/me/trucks", "--into", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "error: hf://datasets/me/trucks: there is no such file; check" in done.stderr
    assert "Traceback" not in done.stderr
