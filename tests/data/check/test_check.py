import csv
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from whichcar.cli import main
from whichcar.data.check.check import Checked, check
from whichcar.data.check.issues import ISSUES
from whichcar.data.check.page import write_report
from whichcar.data.duplicates.scan import ScanCache
from whichcar.data.labels import read_labels, write_labels
from whichcar.data.split.split import split
from whichcar.errors import DataError
from whichcar.images.read import read_image
from whichcar.records import Label


@pytest.fixture
def data(drawn_large: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn_large, tmp_path / "data set")
    return tmp_path / "data set"


@pytest.fixture
def tree(drawn_large: Path, tmp_path: Path) -> Path:
    split(drawn_large, drawn_large / "car_dataset_labels.csv", tmp_path / "v1", 0.25)
    return tmp_path / "v1"


def by_issue(checked: Checked) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in checked.findings:
        found.setdefault(one.issue, []).append(one.path)
    return found


def first(data: Path) -> Image.Image:
    return Image.fromarray(read_image(data / "car_ims" / "000001.jpg"))


def animated(path: Path, image: Image.Image) -> None:
    image.save(path, save_all=True, append_images=[image.rotate(90), image.rotate(180)])


def turned(path: Path, image: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


def shortened(path: Path, image: Image.Image) -> None:
    image.save(path)
    path.write_bytes(path.read_bytes()[:-200])


NASTY: dict[str, tuple[str, Callable[[Path, Image.Image], object], set[str]]] = {
    "empty": ("a.jpg", lambda path, _: path.touch(), {"unreadable"}),
    "not an image": ("a.jpg", lambda path, _: path.write_text("<html>404</html>"), {"unreadable"}),
    "truncated": ("a.jpg", shortened, {"truncated"}),
    "wrong extension": ("a.png", lambda path, image: image.save(path, "JPEG", quality=50), {"wrong_extension"}),
    "extension unknown": ("a.jfif", lambda path, image: image.save(path, "JPEG"), {"wrong_extension"}),
    "cmyk": ("a.jpg", lambda path, image: image.convert("CMYK").save(path), {"odd_mode"}),
    "16 bit": (
        "a.png",
        lambda path, image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path),
        {"odd_mode"},
    ),
    "palette": ("a.png", lambda path, image: image.convert("P").save(path), {"odd_mode"}),
    "grey": ("a.jpg", lambda path, image: image.convert("L").save(path), {"odd_mode"}),
    "grey as rgb": ("a.jpg", lambda path, image: image.convert("L").convert("RGB").save(path), {"odd_mode"}),
    "transparent": ("a.png", lambda path, image: image.convert("RGBA").save(path), {"odd_mode"}),
    "exif rotated": ("a.jpg", turned, {"exif_rotated"}),
    "animated": ("a.gif", animated, {"animated", "odd_mode"}),
    "tiny": ("a.png", lambda path, image: image.resize((60, 40)).save(path), {"tiny"}),
    "long": ("a.png", lambda path, image: image.resize((640, 70)).save(path), {"odd_aspect"}),
    "blank": ("a.png", lambda path, _: Image.new("RGB", (90, 90), (120, 180, 130)).save(path), {"blank"}),
    "dark": ("a.png", lambda path, image: image.point(lambda value: value // 6).save(path), {"dark"}),
    "bright": ("a.png", lambda path, image: image.point(lambda value: 245 + value // 26).save(path), {"bright"}),
    "blurry": (
        "a.png",
        lambda path, image: image.resize((640, 480)).filter(ImageFilter.GaussianBlur(80)).save(path),
        {"blurry"},
    ),
}


# What shows no more of the image that it was made from; all others are copies under another label.
NO_COPY = {"empty", "not an image", "truncated", "extension unknown", "exif rotated", "blank", "bright", "blurry"}


@pytest.mark.parametrize("kind", NASTY)
def test_each_kind_of_odd_image_is_found(data: Path, kind: str) -> None:
    name, make, issues = NASTY[kind]
    path = data / "car_ims" / name
    make(path, first(data))
    write_labels(data / "labels.csv", [*read_labels(data / "car_dataset_labels.csv"), Label(name, "A 2012", "train")])
    found = by_issue(check(data, data / "labels.csv"))
    about = {issue for issue, paths in found.items() if f"car_ims/{name}" in paths}
    assert about == issues | (set() if kind in NO_COPY else {"near_duplicate", "label_conflict"})
    assert not {issue for issue in found if issue in ("unreadable", "truncated", "tiny", "animated")} - issues


def test_a_good_set_has_no_findings(data: Path) -> None:
    assert check(data).findings == []


def test_copies_across_parts_are_leaks_and_the_one_in_test_stays(tree: Path) -> None:
    tested = sorted((tree / "test").rglob("*.jpg"))[0]
    twin = tree / "train" / tested.parent.name / "twin.jpg"
    shutil.copy(tested, twin)
    held = next(entry for entry in check(tree).collection.entries if entry.split == "validation")
    smaller = tree / "train" / Path(held.path).parent.name / "smaller.png"
    Image.open(tree / held.path).resize((100, 75)).save(smaller)
    checked = check(tree)
    found = by_issue(checked)
    assert found["exact_duplicate"] == [twin.relative_to(tree).as_posix()]
    assert found["near_duplicate"] == [smaller.relative_to(tree).as_posix()]
    assert sorted(found["leak"]) == sorted([*found["exact_duplicate"], *found["near_duplicate"]])
    leak = next(one for one in checked.findings if one.issue == "leak" and one.path.endswith("twin.jpg"))
    assert leak.detail == f"in train, and in test as {tested.relative_to(tree).as_posix()}"
    assert leak.severity == "error"
    assert "label_conflict" not in found


def test_copies_with_other_labels_are_conflicts_of_both(tree: Path) -> None:
    classes = sorted(folder.name for folder in (tree / "train").iterdir())
    one = sorted((tree / "train" / classes[0]).iterdir())[0]
    other = tree / "train" / classes[1] / "same.jpg"
    shutil.copy(one, other)
    Image.open(sorted((tree / "train" / classes[2]).iterdir())[0]).resize((100, 75)).save(
        tree / "train" / classes[3] / "like.png"
    )
    checked = check(tree)
    conflicts = [found for found in checked.findings if found.issue == "label_conflict"]
    certain = [found for found in conflicts if found.severity == "error"]
    assert {found.path for found in certain} == {path.relative_to(tree).as_posix() for path in (one, other)}
    assert len(conflicts) == 4  # cars that look alike may be two: a near copy is a warning
    assert repr(classes[0]) in certain[0].detail
    assert repr(classes[1]) in certain[0].detail


def test_rows_and_files_that_do_not_fit_are_found(data: Path) -> None:
    rows = read_labels(data / "car_dataset_labels.csv")
    bad = [
        Label("gone.jpg", rows[0].class_name, "train"),
        Label(rows[1].img_name, "Other 2012", "train"),
        Label(rows[2].img_name, rows[2].class_name, "extra"),
    ]
    write_labels(data / "car_dataset_labels.csv", [*rows[:-1], *bad])
    found = by_issue(check(data))
    assert found["row_without_file"] == ["gone.jpg"]
    assert found["label_conflict"] == [f"car_ims/{rows[1].img_name}"]
    assert found["bad_row"] == [rows[2].img_name]
    assert found["file_without_row"] == [f"car_ims/{rows[-1].img_name}"]


def test_a_row_whose_image_is_a_broken_link_is_found_as_an_unreadable_image_alone(data: Path) -> None:
    image = data / "car_ims" / read_labels(data / "car_dataset_labels.csv")[0].img_name
    image.unlink()
    image.symlink_to("gone.jpg")
    found = check(data).findings
    assert [(one.path, one.issue) for one in found] == [(f"car_ims/{image.name}", "unreadable")]
    assert "a link to gone.jpg, which is not there; restore that" in found[0].detail


def test_classes_that_are_missing_or_uneven_are_found(tree: Path) -> None:
    classes = sorted(folder.name for folder in (tree / "train").iterdir())
    shutil.rmtree(tree / "train" / classes[0])
    shutil.rmtree(tree / "test" / classes[1])
    for path in sorted((tree / "train" / classes[2]).iterdir())[1:]:
        path.unlink()
    shutil.rmtree(tree / "test" / classes[2])
    (tree / "train" / "Sphynx").mkdir()
    shutil.copytree(tree / "train" / classes[3], tree / "validation" / "Sphynx")
    (tree / "split.json").unlink()
    checked = check(tree)
    missing = {one.path: (one.severity, one.detail) for one in checked.findings if one.issue == "missing_class"}
    assert missing[classes[0]] == ("error", "2 test images and none in train")
    assert missing[classes[1]] == ("note", "6 images in train and none in test")
    assert missing[classes[2]] == ("note", "1 image in train and none in test")
    assert missing["Sphynx"] == ("error", "its folder has no image; add some, or remove it")
    assert [one.detail for one in checked.findings if one.issue == "imbalance"] == [
        "one image only: none can be set aside for validation"
    ]


def test_a_folder_of_one_class_or_none_can_be_checked(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "car_ims", tmp_path / "one" / "BMW X3 2012")
    assert check(tmp_path / "one").findings == []
    (tmp_path / "one" / "empty").mkdir()
    assert [one.path for one in check(tmp_path / "one").findings] == ["empty"]
    assert check(data / "car_ims").findings == []


@pytest.mark.parametrize(
    "name", ['a "b" c.jpg', "a'b.jpg", "日本 ü.jpg", "a,b;c.jpg", "</script>.jpg".replace("/", "-"), "a\rb.jpg"]
)
def test_any_name_is_in_table_and_page(data: Path, name: str) -> None:
    (data / "car_ims" / name).write_text("no image")
    assert main.run(["check", str(data)]) == 0
    with (data / "issues.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["issue"] == "unreadable"]
    assert [row["path"] for row in rows] == [f"car_ims/{name}"]


def test_a_name_that_is_no_text_is_reported_readably(data: Path) -> None:
    (data / "car_ims" / os.fsdecode(b"\xff.jpg")).symlink_to(data / "car_ims" / "000001.jpg")
    assert main.run(["check", str(data)]) == 0
    assert "\\udcff.jpg" in (data / "issues.csv").read_text(encoding="utf-8")


def test_the_command_writes_table_and_page_and_fails_on_what_is_named(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "car_ims" / "000002.jpg").write_text("no image")
    assert main.run(["check", str(data), "--fail-on", "leak"]) == 0
    out = capsys.readouterr().out
    assert "1  error    unreadable" in out
    for list_ in ("unreadable,leak", "error", "any", " unreadable "):
        assert main.run(["check", str(data), "--fail-on", list_]) == 1
        assert "unreadable 1" in capsys.readouterr().err
    page = (data / "check.html").read_text(encoding="utf-8")
    assert "000002.jpg" in page.replace("<wbr>", "")
    assert "http" not in page.replace("http-equiv", "")
    assert (data / "issues.csv").read_text().startswith("path,issue,severity,detail\n")


def test_what_check_wrote_is_not_checked_the_next_time(data: Path) -> None:
    shutil.rmtree(data / "car_ims" / "x", ignore_errors=True)
    assert main.run(["check", str(data), "--fail-on", "any"]) == 0
    assert main.run(["check", str(data), "--fail-on", "any"]) == 0
    assert {path.name for path in data.iterdir()} == {
        "car_ims", "car_dataset_labels.csv", "drawn.json", "issues.csv", "check.html"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--fail-on", "leek"], "no issue is called 'leek'; known: any, error, warning, note, unreadable"),
        (["--quarantine", "q", "--move", "all"], "no issue is called 'all'"),
        (["--folds", "3"], "--folds needs --labels-with"),
        (["--move", "error"], "--move needs --quarantine DIR"),
        (["--smallest", "0"], "--smallest"),
    ],
)
def test_wrong_options_are_reported_before_the_work(
    data: Path, arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["check", str(data), *arguments]) == 2
    assert error in capsys.readouterr().err
    assert not (data / "issues.csv").exists()


def test_no_folder_and_no_argument_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["check", str(tmp_path / "gone")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert main.run(["check"]) == 2
    assert "whichcar check DATA" in capsys.readouterr().err


def test_a_set_of_unreadable_images_is_still_reported(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_text(f"no image {number}")
    assert by_issue(check(tmp_path)) == {"unreadable": ["0.jpg", "1.jpg", "2.jpg"]}


def test_every_issue_has_a_severity_and_a_meaning() -> None:
    assert {issue.severity for issue in ISSUES.values()} == {"error", "warning", "note"}
    assert all(name == issue.name and issue.meaning for name, issue in ISSUES.items())


def test_an_output_that_cannot_be_written_is_reported_before_images_are_scanned(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScanCache, "scan", lambda *_: pytest.fail("images are scanned"))
    (data / "file").touch()
    (data / "page" / "check.html").mkdir(parents=True)
    for output in (data / "file" / "x", data / "page"):
        assert main.run(["check", str(data), "--output", str(output)]) == 2
        assert "name another folder with --output" in capsys.readouterr().err


def test_an_experiment_whose_network_cannot_be_used_is_reported_before_images_are_scanned(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScanCache, "scan", lambda *_: pytest.fail("images are scanned"))
    assert main.run(["check", str(data), "--labels-with", str(data / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {data / 'nowhere'}: ")
    assert main.run(["check", str(data / "gone"), "--labels-with", str(data / "nowhere")]) == 2
    assert "gone: no such folder; give a folder with images\n" in capsys.readouterr().err
    assert not (data / "gone").exists()


def test_a_missing_label_file_is_reported(data: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv: cannot be read"):
        check(data, data / "no.csv")


def test_what_is_printed_and_shown_agrees_with_the_table(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Near copies of two classes are warnings, the same bytes of two classes errors: one issue, two severities."""
    classes = sorted((tree / "train").iterdir())
    images = [sorted(folder.iterdir())[0] for folder in classes]
    shutil.copy(images[0], classes[1] / "same.jpg")
    Image.open(images[2]).resize((100, 75)).save(classes[3] / "like.png")
    assert main.run(["check", str(tree)]) == 0
    printed = [line.split()[:3] for line in capsys.readouterr().out.splitlines() if line.startswith("     ")]
    with (tree / "issues.csv").open(encoding="utf-8", newline="") as file:
        counts = Counter((row["severity"], row["issue"]) for row in csv.DictReader(file))
    assert printed == [[str(count), *name] for name, count in counts.items()]
    assert ["2", "error", "label_conflict"] in printed
    assert ["2", "warning", "label_conflict"] in printed
    page = (tree / "check.html").read_text(encoding="utf-8")
    rows = re.findall(r"<td class=n>(\d+)</td><td class=(\w+)><a href=\"#(\w+)\">", page)
    assert [[count, severity, issue] for count, severity, issue in rows] == printed
    assert "label conflict <span class=soft>2 pairs</span>" in page
    assert page.partition("<h2 id=label_conflict>")[2].partition("<h2")[0].count("<figure class=pair>") == 2


def test_the_reason_of_an_unreadable_image_stands_on_the_page_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "cars" / name).mkdir(parents=True)
        Image.new("RGB", (90, 80), "red" if name == "a" else "blue").save(tmp_path / "cars" / name / "1.png")
    (tmp_path / "cars" / "a" / "text.jpg").write_bytes(b"only words here")
    (tmp_path / "cars" / "a" / "bytes.jpg").write_bytes(b"\0\1\2\3\4\5\6\7\x08")
    _, page = write_report(check(tmp_path / "cars"), tmp_path)
    content = page.read_text(encoding="utf-8")
    assert content.count("it begins with &#34;only wor&#34;") == 1
    assert content.count("it begins with the bytes 00 01 02 03 04 05 06 07;") == 1


def test_files_of_formats_that_are_not_opened_are_found_in_any_folder(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (90, 80), "red" if name == "a" else "blue").save(tmp_path / name / "1.png")
    for name in ("b", "c"):
        (tmp_path / name / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "c" / "list.txt").touch()
    found = [one for one in check(tmp_path).findings if one.issue == "unreadable"]
    assert [one.path for one in found] == ["b/phone.HEIC", "c/phone.HEIC"]
    assert {one.detail for one in found} == {"HEIC is not supported; convert it to JPEG"}


def test_camera_raw_is_unreadable_and_not_to_be_renamed(tmp_path: Path) -> None:
    Image.new("RGB", (90, 80), "red").save(tmp_path / "1.png")
    Image.new("RGB", (90, 80), "red").save(tmp_path / "begins as TIFF.nef", "TIFF")
    (tmp_path / "of its own.orf").write_bytes(b"IIRO\x08\0\0\0")
    found = [one for one in check(tmp_path).findings if one.path != "1.png"]
    assert [(one.path, one.issue) for one in found] == [
        ("begins as TIFF.nef", "unreadable"),
        ("of its own.orf", "unreadable"),
    ]


def test_equal_classes_of_one_image_are_not_uneven(tmp_path: Path) -> None:
    for name, colour in (("a", "red"), ("b", "green"), ("c", "blue")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (90, 80), colour).save(tmp_path / name / "1.png")
    assert not [one for one in check(tmp_path).findings if one.issue == "imbalance"]


def test_a_name_too_long_for_a_file_is_a_finding(data: Path) -> None:
    with (data / "car_dataset_labels.csv").open("a") as file:
        file.write("x" * 300 + ".jpg,Alder Meridian Sedan 2012,train\n")
    assert main.run(["check", str(data), "--fail-on", "row_without_file"]) == 1
    assert "x" * 300 in (data / "check.html").read_text()
