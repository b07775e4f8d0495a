"""Folders that `predict` writes images to: what is theirs is replaced by a second run, everything else stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.cli import main
from whichcar.detection import zoo
from whichcar.files import checksum

from ..permissions import only

OPTIONS = {"--annotate": "dog.png", "--save-crops": "dog-1.png", "--explain": "dog-1.png"}


@pytest.fixture
def command(bundle: Path, tmp_path: Path, blue_spot_file: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command for the images `old/cat.png` and `dog.png` in `photos/`, without an option for a folder."""
    monkeypatch.setenv(zoo.FILE_VARIABLE, str(shutil.copy(blue_spot_file, tmp_path / "detector.onnx")))
    monkeypatch.chdir(tmp_path)
    shutil.copy(bundle, "colours.whichcar")
    Path("photos/old").mkdir(parents=True)
    image = np.full((320, 320, 3), (128, 128, 0), np.uint8)
    image[:80, :80] = (20, 20, 250)
    for name in ("dog.png", "old/cat.png"):
        Image.fromarray(image).save(Path("photos", name))
    return ["predict", "photos", "--model", "colours.whichcar", "--vehicles", "all"]


def contents(folder: str) -> dict[str, str]:
    return {str(path): checksum(path) for path in sorted(Path(folder).rglob("*.*"))}


@pytest.mark.parametrize(("option", "name"), OPTIONS.items())
def test_an_image_of_someone_else_is_left_as_it_is_and_nothing_is_predicted(
    command: list[str], option: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for own in (f"out/{name}", "out/deep/other.jpg"):
        Path(own).parent.mkdir(parents=True, exist_ok=True)
        Path(own).write_bytes(b"my own")
        before = contents("out")
        assert main.run([*command, option, "out"]) == 2
        inside = own.removeprefix("out/")
        expected = (
            f"error: out: holds {inside}, which `predict {option}` did not write; give a new folder, or an empty one\n"
        )
        assert capsys.readouterr() == ("", expected)
        assert contents("out") == before
        Path(own).unlink()


@pytest.mark.parametrize(("option", "name"), OPTIONS.items())
def test_a_second_run_repeats_the_first_but_does_not_replace_an_own_image(
    command: list[str], option: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*command, option, "out"]) == 0
    before = contents("out")
    assert len(before) >= 3
    Path("out", name).unlink()
    Path("out/notes.txt").write_text("no image")
    assert main.run([*command, option, "out"]) == 0
    assert contents("out") == before | contents("out/notes.txt") | {"out/notes.txt": checksum(Path("out/notes.txt"))}
    Path("out", name).write_bytes(b"my own")
    assert main.run([*command, option, "out"]) == 2
    assert f"out: holds {name}, which" in capsys.readouterr().err
    assert Path("out", name).read_bytes() == b"my own"


def test_a_list_that_someone_else_wrote_is_left_as_it_is(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").mkdir()
    for content in ('{"a": 1}\n', "12\n", '["a.jpg", 1', "\n"):
        Path("out/annotate.jsonl").write_text(content)
        assert main.run([*command, "--annotate", "out"]) == 2
        assert "out/annotate.jsonl: is damaged, or `predict --annotate` did not write it" in capsys.readouterr().err
        assert Path("out/annotate.jsonl").read_text() == content


def test_an_image_that_comes_after_the_start_is_not_replaced(
    command: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    Path("photos/dog.png").rename("photos/.dog.png")  # hidden files are classified where they are named
    Path("out").mkdir()
    Path("out/.dog.png").write_bytes(b"my own")
    assert main.run([*command, "photos/.dog.png", "--annotate", "out"]) == 0
    assert Path("out/.dog.png").read_bytes() == b"my own" and Path("out/old/cat.png").exists()
    assert "photos/.dog.png: has no image written: out: holds .dog.png" in caplog.text


def test_no_two_images_have_the_same_file(command: list[str]) -> None:
    shutil.copy("photos/dog.png", "photos/dog")
    shutil.copy("photos/dog.png", "photos/dog.jpg")
    assert main.run(["predict", "photos/dog", "photos/dog.jpg", "--model", "colours.whichcar", "--explain", "out"]) == 0
    assert sorted(path.name for path in Path("out").glob("*.jpg")) == ["dog-f73e71a0.jpg", "dog.jpg"]


def test_an_address_is_fetched_once_so_that_the_image_written_is_the_one_classified(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Path("photos/dog.png").read_bytes()]
    monkeypatch.setattr("whichcar.images.web.read_url", lambda url: frames.pop())
    assert main.run(["predict", "https://example.org/dog.png", *command[2:], "--annotate", "out"]) == 0
    assert Path("out/example.org/dog.png").exists()


@pytest.mark.parametrize("other", ["out", "out/inside", "."])
def test_two_options_do_not_share_a_folder(command: list[str], other: str, capsys: pytest.CaptureFixture[str]) -> None:
    command[1] = "photos/dog.png" if other != "." else "https://example.org/dog.png"
    assert main.run([*command, "--annotate", "out", "--save-crops", other]) == 2
    assert f"out and {other}: two options; give each a folder of its own" in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("option", OPTIONS)
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_first_image(
    command: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").mkdir()
    with only(0o555, Path("out").absolute()):
        assert main.run([*command, option, "out"]) == 2
    assert capsys.readouterr() == (
        "",
        "error: out: cannot be written to (Permission denied); choose another folder\n",
    )
