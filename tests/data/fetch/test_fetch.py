"""From archives, tables, folders and a bucket to car_ims/ and car_dataset_labels.csv."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from whichcar.cli import main
from whichcar.data.fetch.fetch import SOURCE_VARIABLE, fetch
from whichcar.data.fetch.fetch import _put as put
from whichcar.data.labels import read_labels
from whichcar.data.split.split import split
from whichcar.errors import DataError
from whichcar.files import locked, walk_images

from ...loopback import served_folder


def packed(folder: Path, archive: Path, inside: str = ".") -> Path:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, f"{inside}/{path.relative_to(folder)}")
    else:
        with tarfile.open(archive, "w:gz") as file:
            file.add(folder, inside)
    return archive


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def by_class(drawn: Path, tmp_path: Path) -> Path:
    for row in read_labels(drawn / "car_dataset_labels.csv"):
        target = tmp_path / "by class" / row.class_name.replace("/", "-") / row.img_name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn / "car_ims" / row.img_name, target)
    return tmp_path / "by class"


@pytest.mark.parametrize("archive", ["cars.tgz", "cars.zip"])
@pytest.mark.parametrize("inside", [".", "stanford/cars"])
def test_an_archive_with_its_label_file_is_ready_to_be_split(
    drawn: Path, tmp_path: Path, archive: str, inside: str
) -> None:
    got = fetch([packed(drawn, tmp_path / archive, inside)], tmp_path / "data")
    assert (got.kind, got.images, got.labels, got.fresh) == ("label file", 32, 32, True)
    assert names(tmp_path / "data" / "car_ims") == names(drawn / "car_ims")
    assert read_labels(tmp_path / "data/car_dataset_labels.csv") == read_labels(drawn / "car_dataset_labels.csv")
    done = split(tmp_path / "data", tmp_path / "data/car_dataset_labels.csv", tmp_path / "v1", 0.25, 1)
    assert done.problems == []
    assert not (tmp_path / "data" / ".unpacked").exists()


def test_archive_and_label_file_may_come_apart(drawn: Path, tmp_path: Path) -> None:
    archive = packed(drawn / "car_ims", tmp_path / "car_ims.tgz", "car_ims")
    got = fetch([archive, drawn / "car_dataset_labels.csv"], tmp_path / "data")
    assert (got.images, got.labels) == (32, 32)
    manifest = json.loads((tmp_path / "data/raw/manifest.json").read_text())
    assert [len(one["sha256"]) for one in manifest["files"]] == [64, 64]


def test_a_folder_is_linked_and_not_copied(drawn: Path, tmp_path: Path) -> None:
    fetch([drawn], tmp_path / "data")
    one = names(drawn / "car_ims")[0]
    assert (tmp_path / "data/car_ims" / one).samefile(drawn / "car_ims" / one)


@pytest.mark.parametrize("as_archive", [False, True])
def test_a_folder_a_class_becomes_labels(by_class: Path, tmp_path: Path, as_archive: bool) -> None:
    source = packed(by_class, tmp_path / "a.zip", "wrapped") if as_archive else by_class
    got = fetch([source], tmp_path / "data")
    assert (got.kind, got.images) == ("folder per class", 32)
    rows = read_labels(tmp_path / "data/car_dataset_labels.csv")
    assert {row.class_name for row in rows} == {path.name for path in by_class.iterdir()}
    assert {row.subset for row in rows} == {""}  # `split` draws, with copies and groups on one side
    assert split(tmp_path / "data", rows, tmp_path / "v1", 0.25, 1).test_share == 0.25


def test_a_second_run_keeps_the_images_and_says_how_to_fetch_them_again(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = packed(drawn, tmp_path / "a.tgz")
    fetch([archive], tmp_path / "data")
    archive.write_bytes(b"gone bad")  # it is not even looked at
    again = fetch([archive], tmp_path / "data")
    assert (again.fresh, again.images, again.kind) == (False, 32, "label file")
    capsys.readouterr()
    assert main.run(["fetch", str(archive), "--into", str(tmp_path / "data")]) == 0
    command = f"whichcar fetch {archive} --into {tmp_path / 'data'} --redo"
    assert f"kept, also where the source has changed since; to fetch it again: {command}\n" in capsys.readouterr().out


def test_an_image_that_went_missing_is_brought_back_and_nothing_else_is_changed(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive, images = packed(drawn, tmp_path / "a.tgz"), tmp_path / "data" / "car_ims"
    fetch([archive], tmp_path / "data")
    labels = tmp_path / "data" / "car_dataset_labels.csv"
    corrected = labels.read_text().replace(",test", ",train")
    labels.write_text(corrected)
    gone, edited, *_ = names(images)
    (images / gone).unlink()
    (images / edited).write_bytes(b"edited")
    (images / "new folder").mkdir()
    shutil.copy(images / edited, images / "new folder" / "mine.jpg")  # as many images as before
    assert fetch([archive], tmp_path / "data").fresh
    assert f"1 file of the set not there any more, such as car_ims/{gone}; brought back" in caplog.text
    assert "nor in the source" not in caplog.text
    assert names(images) == sorted([*names(drawn / "car_ims"), "new folder/mine.jpg"])
    assert (images / edited).read_bytes() == b"edited"
    assert labels.read_text() == corrected
    assert not fetch([archive], tmp_path / "data").fresh


def test_of_a_source_that_has_changed_only_what_went_missing_is_brought_back(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, into = Path(shutil.copytree(drawn, tmp_path / "set")), tmp_path / "data"
    (source / "car_ims" / "new.jpg").touch()
    kept, lost, *others = names(drawn / "car_ims")
    fetch(drawn, into)
    manifest = into / "raw" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(drawn), str(source)))
    for name in (kept, lost):
        (into / "car_ims" / name).unlink()
    (source / "car_ims" / lost).unlink()
    assert fetch(source, into).images == 31
    assert f"such as car_ims/{lost}; nor in the source, which has changed" in caplog.text
    assert names(into / "car_ims") == [kept, *others]
    assert not fetch(source, into).fresh


@pytest.mark.parametrize("damage", [{"names": [5]}, {"files": [{}]}])
def test_a_damaged_manifest_is_reported(drawn: Path, tmp_path: Path, damage: dict[str, object]) -> None:
    fetch(drawn, tmp_path / "data")
    manifest = tmp_path / "data" / "raw" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | damage))
    with pytest.raises(DataError, match=r"manifest\.json: damaged, an entry of `files` or `names` is incomplete"):
        fetch(drawn, tmp_path / "data")


def test_another_set_does_not_take_the_place_of_the_first(drawn: Path, by_class: Path, tmp_path: Path) -> None:
    fetch([drawn], tmp_path / "data")
    with pytest.raises(DataError, match="give another folder, or --redo"):
        fetch([by_class], tmp_path / "data")
    fetch([by_class], tmp_path / "data", redo=True)
    assert names(tmp_path / "data/car_ims") == names(by_class)


def test_redo_deletes_no_images_that_were_added(drawn: Path, by_class: Path, tmp_path: Path) -> None:
    fetch([drawn], tmp_path / "data")
    own = tmp_path / "data" / "car_ims" / "new folder" / "mine.jpg"
    own.parent.mkdir()
    shutil.copy(next((drawn / "car_ims").iterdir()), own)
    message = "--redo would delete images that `whichcar fetch` did not write, such as car_ims/new folder/mine.jpg"
    with pytest.raises(DataError, match=message):
        fetch([by_class], tmp_path / "data", redo=True)
    own.unlink()
    fetch([by_class], tmp_path / "data", redo=True)
    assert names(tmp_path / "data/car_ims") == names(by_class)


def test_a_source_variable_with_an_open_quotation_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHICHCAR_SOURCE", "/data/Bob's cars.zip")
    with pytest.raises(DataError, match=r"^WHICHCAR_SOURCE: No closing quotation; quote its paths as in a shell$"):
        fetch(into=tmp_path / "data")


def test_rows_without_a_class_are_no_class(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "source")
    labels = tmp_path / "source" / "car_dataset_labels.csv"
    labels.write_text(labels.read_text() + "late.jpg,,train\n")
    assert len(fetch([tmp_path / "source"], tmp_path / "data").classes) == 4


def test_images_that_were_there_before_are_left_alone(drawn: Path, by_class: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "car_ims", tmp_path / "data" / "car_ims")
    with pytest.raises(DataError, match="has a car_ims/ that `whichcar fetch` did not write"):
        fetch([by_class], tmp_path / "data", redo=True)
    assert names(tmp_path / "data/car_ims") == names(drawn / "car_ims")


def test_labels_that_were_there_before_are_left_alone_also_where_they_are_a_source(drawn: Path, tmp_path: Path) -> None:
    name = "car_dataset_labels.csv"
    place, images = tmp_path / "data" / name, packed(drawn / "car_ims", tmp_path / "images.tgz", "car_ims")
    place.parent.mkdir()
    shutil.copy(drawn / "car_dataset_labels.csv", place)
    with pytest.raises(DataError, match=f"has a {name} that `whichcar fetch` did not write; give another folder"):
        fetch([images, drawn / "car_dataset_labels.csv"], tmp_path / "data")
    assert names(tmp_path / "data") == [name]
    with pytest.raises(DataError, match=f"{name}: would be overwritten; give another folder with --into"):
        fetch([images, place], tmp_path / "data")
    assert names(tmp_path / "data") == [name]


@pytest.mark.parametrize(
    ("separator", "ending", "encoding", "said"),
    [
        (",", "", "utf-8", None),
        (";", ";train", "utf-8", "separate columns by commas, not ';'"),
        (",", ",train", "latin-1", "not UTF-8 text; save it as CSV in UTF-8"),
        (",", ",train", "utf-16", "not UTF-8 text; save it as CSV in UTF-8"),
        (",", ",Train", "utf-8", "no column img_name, class; found Img_Name, Class"),
    ],
)
def test_a_label_file_that_lacks_something_is_not_passed_over(
    drawn: Path, tmp_path: Path, separator: str, ending: str, encoding: str, said: str | None
) -> None:
    rows = ["img_name,class" + (",subset" if ending else "")]
    rows += [
        f"images/{name},{'Citroën' if number % 2 else 'BMW'}{ending}"
        for number, name in enumerate(names(drawn / "car_ims"))
    ]
    shutil.copytree(drawn / "car_ims", tmp_path / "set" / "images")
    if ending.istitle():
        rows[0] = "Img_Name,Class,Subset"
    (tmp_path / "set" / "labels.csv").write_text("\n".join(rows).replace(",", separator), encoding)
    if said:
        with pytest.raises(DataError, match=f"labels.csv: .*{said}"):
            fetch(tmp_path / "set", tmp_path / "data")
        return
    got = fetch(tmp_path / "set", tmp_path / "data")
    assert (got.kind, got.classes, got.splits) == ("label file", ("BMW", "Citroën"), {})
    assert split(tmp_path / "data", tmp_path / "v1").counts["test"] == 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("filename,label,split\n1.jpg,Audi,train\n", "no column img_name, class, subset; found filename, label, split"),
        ("<!DOCTYPE html>\n<title>Log in</title>\n", "no column img_name, class; found <!DOCTYPE html>"),
    ],
)
def test_a_csv_that_is_a_source_must_be_a_label_file(by_class: Path, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(DataError, match=rf"labels\.csv: {said}"):
        fetch([packed(by_class, tmp_path / "a.zip"), tmp_path / "labels.csv"], tmp_path / "data")


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.ods", "Labels.CSV.gz", "labels.csv.xz"])
def test_spreadsheets_and_compressed_tables_are_not_taken_for_archives(drawn: Path, tmp_path: Path, name: str) -> None:
    source = packed(drawn / "car_ims", tmp_path / "a.zip", "xl").rename(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: spreadsheets and compressed tables are not read; unpack it, or"):
        fetch([source, drawn / "car_dataset_labels.csv"], tmp_path / "data")


@pytest.mark.parametrize("layout", ["one folder", "one folder as a zip", "images in a zip", "named with ./"])
def test_images_are_found_by_their_names_in_the_label_file(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, layout: str
) -> None:
    folder, labels = tmp_path / "cars", tmp_path / "labels.csv"
    shutil.copytree(drawn / "car_ims", folder)
    shutil.copy(drawn / "car_dataset_labels.csv", labels)
    if layout == "named with ./":
        labels.write_text(labels.read_text().replace("0000", "./0000"))
    if layout.startswith("one folder"):
        labels.rename(folder / "labels.csv")
    sources = [folder] if layout == "one folder" else [packed(folder, tmp_path / "a.zip", "cars")]
    fetch([*sources, *([labels] if labels.exists() else [])], tmp_path / "data")
    assert caplog.messages == []
    assert split(tmp_path / "data", tmp_path / "v1").problems == []


@pytest.mark.parametrize("folder", ["images", "cars/ae\u0301"])
def test_an_image_next_to_the_label_file_does_not_hide_the_folder_of_the_others(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, folder: str
) -> None:
    root = tmp_path / "set"
    shutil.copytree(drawn / "car_ims", root / folder)
    shutil.copy(drawn / "car_dataset_labels.csv", root / "labels.csv")
    shutil.copy(drawn / "car_ims" / "000001.jpg", root / "preview.jpg")
    fetch(root, tmp_path / "data")
    assert caplog.messages == [f"{root}: 1 image outside {Path(folder).name}/ left out"]
    assert split(tmp_path / "data", tmp_path / "v1").problems == []


@pytest.mark.parametrize("prefix", ["car_ims/", "./"])
def test_names_that_split_finds_in_car_ims_are_not_called_labels_without_an_image(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str
) -> None:
    shutil.copytree(drawn, tmp_path / "set")
    table = tmp_path / "set" / "car_dataset_labels.csv"
    table.write_text(table.read_text().replace("0000", f"{prefix}0000"))
    fetch(tmp_path / "set", tmp_path / "data")
    assert caplog.messages == []
    assert split(tmp_path / "data", tmp_path / "v1").problems == []


@pytest.mark.parametrize("kind", ["label file", "folder per class"])
def test_images_that_are_left_out_are_counted(
    drawn: Path, by_class: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    root = Path(shutil.copytree(drawn if kind == "label file" else by_class, tmp_path / "set"))
    for image in sorted((drawn / "car_ims").iterdir())[:2]:
        shutil.copy(image, root / f"unsorted {image.name}")
    assert fetch(root, tmp_path / "data").kind == kind
    place = "car_ims/" if kind == "label file" else "the class folders"
    assert caplog.messages == [f"{root}: 2 images outside {place} left out"]


def test_messages_about_an_unpacked_archive_name_the_archive(
    by_class: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (by_class / "Sphynx").mkdir()
    (by_class / "Sphynx" / "Thumbs.db").touch()
    archive = packed(by_class, tmp_path / "pets.zip", "pets")
    with pytest.raises(DataError, match=f"^{archive}/pets: 1 class folder without an image: 'Sphynx'"):
        fetch(archive, tmp_path / "data")
    shutil.rmtree(by_class / "Sphynx")
    (tmp_path / "split" / "test").mkdir(parents=True)
    by_class.rename(tmp_path / "split" / "train")
    shutil.copy(next((tmp_path / "split" / "train").rglob("*.jpg")), tmp_path / "split" / "test")
    archive = packed(tmp_path / "split", tmp_path / "split.zip")
    fetch(archive, tmp_path / "data")
    assert f"{archive}/test: images in no class folder; they have no class and are not used" in caplog.messages


def test_an_image_next_to_the_class_folders_of_an_archive_does_not_make_them_one_class(
    by_class: Path, tmp_path: Path
) -> None:
    shutil.copy(next(by_class.rglob("*.jpg")), by_class / "cover.jpg")
    archive = packed(by_class, tmp_path / "cars.zip", "cars")
    with pytest.raises(DataError, match=f"^{archive}/cars: images next to 4 folders of images, all of one class; if"):
        fetch(archive, tmp_path / "data")


@pytest.mark.parametrize("labelled", [True, False])
def test_a_table_that_names_images_and_no_class_is_no_label_file(
    drawn: Path, by_class: Path, tmp_path: Path, labelled: bool
) -> None:
    root = Path(shutil.copytree(drawn if labelled else by_class, tmp_path / "set"))
    (root / "sizes.csv").write_text("img_name,width,height\n000001.jpg,64,48\n")
    assert fetch(root, tmp_path / "data").kind == ("label file" if labelled else "folder per class")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("no-such-set", r"no-such-set: no such file or folder, nor a data set with a name \(stanford-cars\)"),
        ("empty", "no set of images; it must hold a .csv with img_name and class"),
    ],
)
def test_what_cannot_be_fetched_is_reported(
    tmp_path: Path, source: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said):
        fetch([source], tmp_path / "deep" / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_failed_fetch_leaves_a_folder_that_was_there_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="no such file or folder"):
        fetch(["no-such-set"], tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_wrong_checksum_is_refused(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its SHA-256 is"):
        fetch([packed(drawn, tmp_path / "a.tgz")], tmp_path / "data", sha256="0" * 64)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("sha256", "said"),
    [
        ("zz", "'zz': is not a SHA-256 checksum; give its 64 hexadecimal digits"),
        ("", "'': is not a SHA-256"),
        ("0" * 64, "is a folder, which has no SHA-256 checksum; leave the checksum out"),
    ],
)
def test_a_checksum_that_cannot_be_compared_is_refused_on_each_run(
    drawn: Path, tmp_path: Path, before: bool, sha256: str, said: str
) -> None:
    if before:
        fetch(drawn, tmp_path / "data")
    with pytest.raises(DataError, match=said):
        fetch(drawn, tmp_path / "data", sha256=sha256)
    assert (tmp_path / "data").exists() == before


def test_a_hostile_archive_leaves_nothing(tmp_path: Path, drawn: Path) -> None:
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as file:
        file.add(drawn / "car_ims", "car_ims")
        link = tarfile.TarInfo("car_ims/evil.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    with pytest.raises(DataError, match="is a link"):
        fetch([tmp_path / "a.tgz"], tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("bad", ["empty", "labels only"])
def test_a_new_set_that_fails_leaves_the_old_one(drawn: Path, tmp_path: Path, bad: str) -> None:
    fetch([drawn], tmp_path / "data")
    (tmp_path / "empty").mkdir()
    source = tmp_path / "empty" if bad == "empty" else drawn / "car_dataset_labels.csv"
    with pytest.raises(DataError):
        fetch([source], tmp_path / "data", redo=True)
    assert names(tmp_path / "data/car_ims") == names(drawn / "car_ims")
    assert not fetch([drawn], tmp_path / "data").fresh


def test_a_source_in_what_is_to_be_replaced_is_refused(drawn: Path, tmp_path: Path) -> None:
    fetch([drawn], tmp_path / "data")
    (tmp_path / "data" / "car_ims" / "inside").mkdir()
    with pytest.raises(DataError, match="car_ims: would be overwritten; give another folder with --into"):
        fetch([tmp_path / "data" / "car_ims"], tmp_path / "data", redo=True)
    for source, into in (
        (tmp_path / "data" / "car_ims" / "inside", tmp_path / "data"),
        (tmp_path / "data", tmp_path / "data"),
        (tmp_path / "data", tmp_path / "data" / "out"),
    ):
        with pytest.raises(DataError, match="lie in each other; give another folder with --into"):
            fetch([source], into, redo=True)
    assert names(tmp_path / "data/car_ims") == names(drawn / "car_ims")


def test_two_processes_do_not_fetch_into_one_folder(drawn: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "data/raw/lock"), pytest.raises(DataError, match="another process fetches into it"):
        fetch([drawn], tmp_path / "data")


def test_stopped_while_arranging_the_same_command_goes_on(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stop_at in range(4):
        calls = iter(range(100))

        def stopping(new: Path, place: Path, stop_at: int = stop_at, calls: Iterator[int] = calls) -> None:
            if next(calls) == stop_at:
                raise KeyboardInterrupt
            put(new, place)

        monkeypatch.setattr("whichcar.data.fetch.fetch._put", stopping)
        with contextlib.suppress(KeyboardInterrupt):
            fetch([drawn], tmp_path / f"data {stop_at}")
        monkeypatch.setattr("whichcar.data.fetch.fetch._put", put)
        fetch([drawn], tmp_path / f"data {stop_at}")
        assert names(tmp_path / f"data {stop_at}" / "car_ims") == names(drawn / "car_ims")


def test_archives_may_share_what_is_no_image_and_no_table(drawn: Path, tmp_path: Path) -> None:
    for name, kept in (("images.zip", "car_ims"), ("labels.zip", "car_dataset_labels.csv"), ("twice.zip", "car_ims")):
        made = tmp_path / name.removesuffix(".zip")
        made.mkdir()
        (shutil.copytree if kept == "car_ims" else shutil.copy)(drawn / kept, made / kept)
        (made / "README.md").write_text(name)
        packed(made, tmp_path / name)
    assert fetch([tmp_path / "images.zip", tmp_path / "labels.zip"], tmp_path / "data").images == 32
    with pytest.raises(DataError, match=r"twice\.zip: 'car_ims/.*' is in another source too; keep one"):
        fetch([tmp_path / "images.zip", tmp_path / "twice.zip"], tmp_path / "more")


def test_archives_of_one_name_do_not_overwrite_each_other(drawn: Path, tmp_path: Path) -> None:
    images = sorted((drawn / "car_ims").iterdir())
    with served_folder(tmp_path / "web") as address:
        for half, some in (("a", images[:16]), ("b", images[16:])):
            (tmp_path / "web" / half).mkdir(parents=True)
            with tarfile.open(tmp_path / "web" / half / "images.tgz", "w:gz") as file:
                for image in some:
                    file.add(image, f"car_ims/{image.name}")
        sources = [f"{address}/{half}/images.tgz" for half in "ab"]
        got = fetch([*sources, str(drawn / "car_dataset_labels.csv")], tmp_path / "data")
    assert got.images == 32


def test_a_wrong_checksum_is_reported_on_a_second_run_too(drawn: Path, tmp_path: Path) -> None:
    archive = packed(drawn, tmp_path / "a.tgz")
    fetch(str(archive), tmp_path / "data")
    with pytest.raises(DataError, match="its SHA-256 is"):
        fetch(archive, tmp_path / "data", sha256="0" * 64)


def test_file_addresses_and_links_are_followed(drawn: Path, tmp_path: Path) -> None:
    archive = packed(drawn, tmp_path / "a b.tgz")
    assert fetch(f"file://{archive}", tmp_path / "one").images == 32
    for image in (drawn / "car_ims").iterdir():
        target = tmp_path / "links" / "class" / image.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(image)
    fetch([tmp_path / "links"], tmp_path / "two")
    assert not any(path.is_symlink() for path in (tmp_path / "two/car_ims").rglob("*.jpg"))


def test_a_file_that_is_none_of_the_kinds_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.7z").write_bytes(b"7z whatever")
    with pytest.raises(DataError, match=r"a\.7z: is not an archive \(\.tar, .*\), label file"):
        fetch(tmp_path / "a.7z", tmp_path / "data")


def test_without_a_source_the_environment_is_asked(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(SOURCE_VARIABLE, raising=False)
    assert main.run(["fetch", "--into", str(tmp_path / "data")]) == main.MISTAKE
    assert SOURCE_VARIABLE in capsys.readouterr().err
    archive = packed(drawn / "car_ims", tmp_path / "car_ims.tgz", "car_ims")
    monkeypatch.setenv(SOURCE_VARIABLE, f"{archive} {drawn / 'car_dataset_labels.csv'}")
    assert main.run(["fetch", "--into", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert "32 images, 32 labels (label file)" in said
    assert "next: whichcar split" in said


@pytest.mark.parametrize("names", [("train", "valid", "test"), ("Training", "val"), ("train", "validation", "testing")])
def test_split_folders_by_any_common_name_become_splits_and_not_classes(
    by_class: Path,
    tmp_path: Path,
    names: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in names:
        shutil.copytree(by_class, tmp_path / "set" / "cars" / name)
    for other in ("extra", "__MACOSX"):
        (tmp_path / "set" / "cars" / other).mkdir()
        shutil.copy(next(by_class.rglob("*.jpg")), tmp_path / "set" / "cars" / other)
    (tmp_path / "set" / "README.md").touch()
    assert main.run(["fetch", str(tmp_path / "set"), "--into", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    splits = ["train", "validation", "test"][: len(names)]
    classes = ", ".join(sorted(path.name for path in by_class.iterdir()))
    assert f"4 classes: {classes}; {', '.join(f'{split_name} 32' for split_name in splits)}" in said
    assert [text.partition("cars/")[2] for text in caplog.messages] == [
        "extra: none of train, validation, test; its images are not used"
    ]
    rows = read_labels(tmp_path / "data/car_dataset_labels.csv")
    assert {row.img_name.split("/")[0] for row in rows} == set(names)
    assert len(rows) == sum(1 for _ in walk_images(tmp_path / "data" / "car_ims")) == 32 * len(names)


def test_a_class_called_train_becomes_a_class(by_class: Path, tmp_path: Path) -> None:
    first = sorted(by_class.iterdir())[0]
    first.rename(by_class / "train")
    got = fetch(by_class, tmp_path / "data")
    assert "train" in got.classes
    assert len(got.classes) == 4
    assert got.splits == {}


def test_linked_class_folders_are_fetched_and_broken_links_and_pipes_are_reported(
    by_class: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inside = sorted(by_class.iterdir())[0]
    (inside / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(inside / "pipe.jpg")
    (tmp_path / "set").mkdir()
    for folder in by_class.iterdir():
        (tmp_path / "set" / folder.name).symlink_to(folder)
    assert fetch(tmp_path / "set", tmp_path / "data").images == 32
    assert "2 names left out, such as" in caplog.text
    assert "gone.jpg: a broken link, or no regular file" in caplog.text


def test_files_of_formats_that_are_not_opened_are_counted(
    by_class: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, *_ = sorted(by_class.iterdir())
    (first / "phone.HEIC").touch()
    (second / "phone.avif").touch()
    assert fetch(by_class, tmp_path / "data").images == 32
    line = "2 files of a format that is not opened, such as HEIC, not used; convert to JPEG or PNG"
    assert caplog.messages == [f"{by_class}: {line}"]


def test_a_folder_whose_name_is_not_utf_8_is_fetched_and_a_second_time_known(by_class: Path, tmp_path: Path) -> None:
    source = by_class.rename(tmp_path / os.fsdecode(b"Autos_\xfc"))
    assert fetch(source, tmp_path / "data").images == 32
    assert not fetch(source, tmp_path / "data").fresh


def test_an_image_whose_name_is_not_utf_8_is_brought_back_too(by_class: Path, tmp_path: Path) -> None:
    image = next(by_class.rglob("*.jpg"))
    image = image.rename(image.with_name(os.fsdecode(b"\xff.jpg")))
    fetch(by_class, tmp_path / "data")
    (tmp_path / "data" / "car_ims" / image.relative_to(by_class)).unlink()
    assert fetch(by_class, tmp_path / "data").images == 32


def test_labels_that_match_no_image_are_counted_and_one_is_named(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(drawn, tmp_path / "set")
    table = tmp_path / "set" / "car_dataset_labels.csv"
    table.write_text(table.read_text().replace("000001.jpg", "images\\000001.JPG"))
    fetch(tmp_path / "set", tmp_path / "data")
    assert r"1 of 32 labels have no image, such as 'images\\000001.JPG'" in caplog.text
