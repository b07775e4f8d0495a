from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from whichcar.cli import main
from whichcar.detection import zoo
from whichcar.errors import DataError
from whichcar.inference.bundle import write_bundle
from whichcar.inference.output_file import OutputFile

from ..bundles import colour_bundle
from ..colours import COLOURS
from ..permissions import only
from ..training.run.limits import no_file_larger_than

Painter = Callable[..., Path]


@pytest.fixture
def images(tmp_path: Path, painter: Painter) -> Path:
    for number in range(9):
        painter(tmp_path / "images" / f"a, {number}.jpg", list(COLOURS.values())[number % 3], seed=number)
    (tmp_path / "images" / "broken\n.jpg").write_bytes(b"nothing")
    return tmp_path / "images"


def test_a_folder_for_images_that_is_added_later_would_lack_those_of_before(
    images: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    output = Path("out/a.csv")
    assert predicted(images, bundle, output, "--explain", "why") == 0
    assert predicted(images, bundle, output, "--explain", "why") == 0
    assert predicted(images, bundle, output, "--explain", "other") == 2
    assert "was written with --explain why, now with --explain other" in capsys.readouterr().err
    assert predicted(images, bundle, output, "--explain", "why", "--top", "2") == 2
    assert "was written with --top 3, now with --top 2" in capsys.readouterr().err
    Path("out/a.csv.json").write_text('{"crop": 1}')
    assert predicted(images, bundle, output) == 2
    assert "was written with another model (none, now colours.whichcar)" in capsys.readouterr().err
    assert not Path("other").exists()


def test_rows_of_another_folder_do_not_count_as_done(
    images: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predicted(images, bundle, tmp_path / "a.csv") == 0
    (tmp_path / "two").mkdir()
    for name in ("a, 1.jpg", "a, 2.jpg"):
        os.link(images / name, tmp_path / "two" / name)
    monkeypatch.setenv("WHICHCAR_QUIET", "0")
    assert predicted(tmp_path / "two", bundle, tmp_path / "a.csv") == 0
    assert "predicting: 2/2 images" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_names_its_folder(
    images: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copy(bundle, tmp_path / "colours.whichcar")
    assert predicted(images, model, tmp_path / "a.csv") == 0  # loads what another user than root may not read
    (tmp_path / "ro").mkdir()
    capsys.readouterr()
    with only(0o555, tmp_path / "ro"):
        assert predicted(images, model, tmp_path / "ro" / "x.csv") == 2
    folder = tmp_path / "ro"
    assert capsys.readouterr().err == (
        f"error: {folder}/x.csv: cannot be written in {folder} (Permission denied); choose another folder\n"
    )


def predicted(images: Path, bundle: Path, output: Path, *more: str) -> int:
    return main.run(["predict", str(images), "--model", str(bundle), "--output", str(output), *more])


@pytest.mark.parametrize("name", ["answers.csv", "answers.jsonl"])
def test_wherever_a_run_was_killed_the_next_one_makes_the_same_file(
    images: Path, bundle: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / name
    assert predicted(images, bundle, output) == 0
    assert capsys.readouterr().out == f"{output}: 10 rows, 1 of them not usable\n"
    whole = output.read_bytes()
    about = tmp_path / f"{name}.json"
    lines = whole.splitlines(keepends=True)
    ends = [0, 3, len(lines[0]), len(b"".join(lines[:3])) + 5, whole.index(b"broken") + 8, len(whole) - 1, len(whole)]
    for end in ends:
        output.write_bytes(whole[:end])
        assert predicted(images, bundle, output) == 0, end
        assert output.read_bytes() == whole
    assert "10 rows, 1 of them not usable, 10 of them from an earlier run" in capsys.readouterr().out
    assert json.loads(about.read_text())["model"]["name"] == "colours.whichcar"
    assert not list(tmp_path.glob(".*"))


def test_another_model_or_other_options_are_refused(
    images: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "answers.csv"
    predicted(images, bundle, output)
    before = output.read_bytes()
    write_bundle(colour_bundle(name="other"), tmp_path / "other.whichcar")
    for model, more, message in (
        (tmp_path / "other.whichcar", (), "was written with another model (colours.whichcar, now other.whichcar)"),
        (bundle, ("--top", "1"), "was written with --top 3, now with --top 1; use the options of before"),
        (bundle, ("--crop",), "was written with --no-crop, now with --crop"),
        (bundle, ("--vehicles", "all"), "now with --crop; without --vehicles, now with --vehicles all"),
        (bundle, ("--top", "2", "--explain", "why"), "now with --top 2; without --explain, now with --explain "),
    ):
        capsys.readouterr()
        assert predicted(images, model, output, *more) == 2
        error = capsys.readouterr().err
        assert message in error and "choose another file, or delete this one" in error
        assert error.count("\n") == 1
        assert output.read_bytes() == before


def test_another_file_of_the_same_name_is_refused_as_such(
    images: Path,
    tmp_path: Path,
    red_car_file: Path,
    blue_spot_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, detector, output = tmp_path / "colours.whichcar", tmp_path / "mine.onnx", tmp_path / "a.csv"
    shutil.copy(red_car_file, detector)
    write_bundle(colour_bundle(), model)
    words = ("--crop", "--detector", str(detector))
    assert predicted(images, model, output, *words) == 0
    shutil.copy(blue_spot_file, detector)
    assert predicted(images, model, output, *words) == 2
    assert "written with another --detector (a file of the same name, mine.onnx); use" in capsys.readouterr().err
    shutil.copy(red_car_file, detector)
    write_bundle(colour_bundle(created="2026-01-01T00:00:00+00:00"), model)
    assert predicted(images, model, output, *words) == 2
    assert "written with another model (a file of the same name, colours.whichcar); use" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_class_name_that_is_not_utf_8_is_written_with_escapes(images: Path, tmp_path: Path, name: str) -> None:
    write_bundle(colour_bundle(class_names=("Citro\udcebn C3 2012",) * 3), tmp_path / "a.whichcar")
    assert predicted(images, tmp_path / "a.whichcar", tmp_path / name) == 0
    assert (tmp_path / name).read_text(encoding="utf-8").count("udceb") == 9 * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--no-crop", "--vehicles", "all"), "vehicles all: images are cropped to them; leave --no-crop"),
        (("--no-crop", "--vehicles", "largest"), "vehicles largest: images are cropped to them; leave --no-crop"),
        (("--confidence", "0.9"), "is not calibrated, so no accuracy can be promised"),
        (("--confidence", "0.9", "--explain", "why"), "is not calibrated, so no accuracy can be promised"),
    ],
)
def test_options_that_are_refused_leave_no_file(
    images: Path,
    bundle: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = tuple(str(tmp_path / word) if word == "why" else word for word in options)
    assert predicted(images, bundle, tmp_path / "a.csv", *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("a.csv*"))


def test_a_detector_that_cannot_be_loaded_leaves_no_file(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.onnx").write_text("no network")
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(tmp_path / "notes.onnx"))
    write_bundle(
        colour_bundle(crop={"settings": {}, "detector": {"name": "", "sha256": None}}), tmp_path / "crops.whichcar"
    )
    assert predicted(images, tmp_path / "crops.whichcar", tmp_path / "a.csv") == 2
    error = capsys.readouterr().err
    assert "notes.onnx" in error and error.count("\n") == 1
    assert not [path for path in tmp_path.iterdir() if "a.csv" in path.name]


@pytest.mark.parametrize("limit", [57, 120])  # the end of a row, and within the last one
def test_where_the_disk_is_full_the_file_is_named_and_its_rows_are_kept(tmp_path: Path, limit: int) -> None:
    def file() -> OutputFile:
        return OutputFile(tmp_path / "a.csv", ["path", "problem"], {}, "one")

    lines = ["path,problem", *(f"{number:09}," for number in range(10))]
    refused = pytest.raises(DataError, match=r"a\.csv: cannot be written \(.+\); its rows are kept")
    with no_file_larger_than(limit), refused, file().opened() as opened:
        opened.write(lines)
    with file().opened() as opened:
        assert opened.rows == (limit - 13) // 11


def test_a_run_that_was_stopped_before_its_first_row_may_be_followed_by_another(tmp_path: Path) -> None:
    for top in (1, 2):
        with OutputFile(tmp_path / "a.csv", ["path", "problem"], {"top": top}, "one").opened() as file:
            assert file.write(["path,problem"]) == 0


def test_a_run_that_is_repeated_fails_again_where_nothing_could_be_read(
    images: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.csv", "a.jsonl"):
        for _ in range(2):
            assert predicted(images / "broken\n.jpg", bundle, tmp_path / name) == 2
            assert "none of 1 path could be used" in capsys.readouterr().err
        assert predicted(images, bundle, tmp_path / name) == 0
        assert predicted(images / "broken\n.jpg", bundle, tmp_path / name) == 0


def test_whether_all_images_are_cropped_is_an_option_that_the_rows_depend_on(
    images: Path,
    tmp_path: Path,
    red_car_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(red_car_file))
    model = tmp_path / "crops.whichcar"
    write_bundle(colour_bundle(crop={"settings": {}, "detector": {"name": "yolox-nano", "sha256": None}}), model)
    for number, (first, then) in enumerate((((), ("--crop",)), (("--crop",), ()))):
        output = tmp_path / f"{number}.csv"
        assert predicted(images, model, output, *first) == predicted(images, model, output, *first) == 0
        assert predicted(images, model, output, *then) == 2
        message = ("without --crop, now with --crop", "with --crop, now without --crop")[number]
        assert f"was written {message}; use the options of before" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "content"), [("a.csv", "my,own\n1,2\n"), ("a.jsonl", "{}\n"), ("a.txt", "")])
def test_a_file_of_someone_else_is_left_as_it_is(
    images: Path, bundle: Path, tmp_path: Path, name: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / name
    output.write_text(content)
    assert predicted(images, bundle, output) == 2
    error = capsys.readouterr().err
    assert ("did not write it" in error) if content else ("end it in .csv or .jsonl" in error)
    assert output.read_text() == content


@pytest.mark.parametrize("damage", [b"x\n", b"\xff\n"])
def test_a_row_that_was_changed_is_not_overwritten(tmp_path: Path, damage: bytes) -> None:
    output = tmp_path / "a.csv"
    file = OutputFile(output, ["path", "prediction"], {}, "one")
    with file.opened() as opened:
        opened.write(["path,prediction", "a.jpg,A", "b.jpg,B"])
    content = output.read_bytes().replace(b"a.jpg,A\n", damage)
    output.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"), OutputFile(output, ["path", "prediction"], {}, "one").opened():
        pass
    assert output.read_bytes() == content


def test_an_image_that_is_given_twice_has_two_rows_also_after_a_kill(
    images: Path, bundle: Path, tmp_path: Path
) -> None:
    output, one = tmp_path / "a.csv", images / "a, 0.jpg"
    words = ["predict", str(one), str(one), str(one), "--model", str(bundle), "--output", str(output)]
    assert main.run(words) == 0
    whole = output.read_bytes()
    output.write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    assert main.run(words) == 0
    assert output.read_bytes() == whole


@pytest.mark.slow
def test_a_run_that_is_killed_is_resumed(painter: Painter, bundle: Path, tmp_path: Path) -> None:
    original = painter(tmp_path / "original.jpg", COLOURS["Red Sedan 2011"], size=(640, 480))
    (tmp_path / "many").mkdir()
    for number in range(3000):
        os.link(original, tmp_path / "many" / f"{number}.jpg")
    output = tmp_path / "answers.csv"
    command = [sys.executable, "-m", "whichcar", "predict", "many", "--model", str(bundle), "--output", output.name]
    kills = 0
    while True:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        rows = output.read_bytes().count(b"\n") if output.exists() else 0
        while process.poll() is None and (not output.exists() or output.read_bytes().count(b"\n") < rows + 700):
            time.sleep(0.01)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0 and kills >= 2
    with output.open(newline="", encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file, strict=True)]
    assert len(paths) == len(set(paths)) == 3000
