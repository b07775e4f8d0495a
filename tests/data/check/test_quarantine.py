import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from whichcar.cli import main
from whichcar.data.check import quarantine as stage
from whichcar.data.check.check import check
from whichcar.data.check.issues import finding
from whichcar.data.check.quarantine import put_back, quarantine
from whichcar.data.duplicates.scan import ScanCache
from whichcar.errors import DataError


@pytest.fixture
def data(drawn_large: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn_large / "car_ims", tmp_path / "data" / "class a")
    return tmp_path / "data"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_images_are_moved_and_can_be_put_back(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "class a" / "broken.jpg").write_text("no image")
    shutil.copy(data / "class a" / "000001.jpg", data / "class a" / "copy.jpg")
    before = contents(data)
    aside = tmp_path / "put aside"
    move = ["--move", "unreadable,exact_duplicate", "--output", str(tmp_path / "report")]
    assert main.run(["check", str(data), "--quarantine", str(aside), *move]) == 0
    assert f"moved  2 images to {aside}" in capsys.readouterr().out
    assert {path for path in contents(aside) if path.endswith("jpg")} == {"class a/broken.jpg", "class a/copy.jpg"}
    assert check(data).findings == []
    assert main.run(["check", "--undo", str(aside)]) == 0
    assert "moved back 2 images" in capsys.readouterr().out
    assert contents(data) == before
    assert not aside.exists()


def test_ctrl_c_says_how_to_undo_what_was_moved(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        (data / "class a" / f"broken{number}.jpg").write_text("no image")
    before, aside, move = contents(data), tmp_path / "put aside", stage._move

    def stops(source: Path, target: Path) -> None:
        move(source, target)
        raise KeyboardInterrupt

    command = ["check", str(data), "--quarantine", str(aside), "--output", str(tmp_path / "report")]
    undo = ["check", "--undo", str(aside)]
    for words, message in (
        (
            command,
            f"{aside}: interrupted; undo with: whichcar check --undo '{aside}'\nrun the same command again to move",
        ),
        (undo, f"{aside}: interrupted\nrun the same command again to move the rest back"),
    ):
        with monkeypatch.context() as interrupted:
            interrupted.setattr(stage, "_move", stops)
            assert main.run(words) == main.INTERRUPTED
        assert message in capsys.readouterr().err
        assert main.run(words) == 0
    assert contents(data) == before


def test_nothing_else_in_the_folder_is_touched_by_undo(data: Path, tmp_path: Path) -> None:
    quarantine(data, [finding("class a/000001.jpg", "dark", "")], tmp_path / "q")
    (tmp_path / "q" / "class a" / "mine.txt").write_text("mine")
    assert put_back(tmp_path / "q") == 1
    assert (tmp_path / "q" / "class a" / "mine.txt").read_text() == "mine"


def test_an_image_with_two_findings_is_moved_once_and_rows_without_file_never(data: Path, tmp_path: Path) -> None:
    rows = [finding("class a/000001.jpg", name, "") for name in ("dark", "leak")]
    gone = [finding("gone.jpg", "row_without_file", ""), finding("BMW", "imbalance", "")]
    assert quarantine(data, [*rows, *gone], tmp_path / "q") == 1


def test_two_rounds_into_one_folder_are_undone_together(data: Path, tmp_path: Path) -> None:
    before = contents(data)
    for number in (1, 2):
        quarantine(data, [finding(f"class a/00000{number}.jpg", "dark", "")], tmp_path / "q")
    assert put_back(tmp_path / "q") == 2
    assert contents(data) == before


def test_moves_cut_short_by_a_kill_are_undone(data: Path, tmp_path: Path) -> None:
    before = contents(data)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom whichcar.data.check import quarantine as stage\n"
        "from whichcar.data.check.issues import finding\nmove, moved = stage._move, []\n"
        "def killed(source, target):\n"
        "    if len(moved) == 3: os.kill(os.getpid(), 9)\n"
        "    moved.append(source); move(source, target)\n"
        "stage._move = killed\n"
        "rows = [finding(f'class a/{number:06d}.jpg', 'dark', '') for number in range(1, 9)]\n"
        "stage.quarantine(Path(sys.argv[1]), rows, Path(sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(data), str(tmp_path / "q")], check=False, capture_output=True
    )
    assert done.returncode == -9
    assert len(contents(data)) == len(before) - 3
    assert put_back(tmp_path / "q") == 3
    assert contents(data) == before


def test_undo_does_not_overwrite_and_goes_on_when_the_way_is_free(data: Path, tmp_path: Path) -> None:
    rows = [finding(f"class a/00000{number}.jpg", "dark", "") for number in (1, 2, 3)]
    before = contents(data)
    quarantine(data, rows, tmp_path / "q")
    (data / "class a" / "000002.jpg").write_text("another")
    with pytest.raises(DataError, match=r"000002\.jpg: another file lies in its place"):
        put_back(tmp_path / "q")
    (data / "class a" / "000002.jpg").unlink()
    assert put_back(tmp_path / "q") == 2
    assert contents(data) == before


def test_moving_to_another_disk_leaves_a_whole_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == data.stat().st_dev:
        pytest.skip("no second file system here")
    target = Path(tempfile.mkdtemp(dir=other)) / "quarantine"
    content = (data / "class a" / "000001.jpg").read_bytes()
    try:
        assert quarantine(data, [finding("class a/000001.jpg", "dark", "")], target) == 1
        assert (target / "class a" / "000001.jpg").read_bytes() == content
        assert not (data / "class a" / "000001.jpg").exists()
        assert put_back(target) == 1
    finally:
        shutil.rmtree(target.parent)


@pytest.mark.parametrize("where", ["data/inside", "full", "q"])
def test_folders_that_would_mix_things_up_are_refused(data: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other.txt").touch()
    (tmp_path / "q" / "class a").mkdir(parents=True)
    (tmp_path / "q" / "class a" / "000002.jpg").touch()
    (tmp_path / "q" / stage.FILE).write_text("path,from,issue,detail\n")
    before = contents(data)
    rows = [finding(f"class a/00000{number}.jpg", "dark", "") for number in (1, 2)]
    with pytest.raises(DataError, match=r"lies in|did not write|is there already"):
        quarantine(data, rows, tmp_path / where)
    assert contents(data) == before


def test_a_quarantine_that_cannot_be_written_is_an_error_before_images_are_scanned(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScanCache, "scan", lambda *_: pytest.fail("images are scanned"))
    (tmp_path / "file").touch()
    assert main.run(["check", str(data), "--quarantine", str(tmp_path / "file" / "q")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'file' / 'q' / stage.FILE}: Not a directory\n"


def test_a_link_is_moved_and_put_back_as_it_is(data: Path, tmp_path: Path) -> None:
    (data / "class a" / "link.jpg").symlink_to("../class a/000001.jpg")
    assert quarantine(data, [finding("class a/link.jpg", "exact_duplicate", "")], tmp_path / "deep" / "q") == 1
    assert put_back(tmp_path / "deep" / "q") == 1
    assert (data / "class a" / "link.jpg").readlink() == Path("../class a/000001.jpg")


@pytest.mark.parametrize("row", ["../outside.jpg", "/etc/hostname", "class a/../../outside.jpg"])
def test_nothing_outside_the_data_is_moved(data: Path, tmp_path: Path, row: str) -> None:
    (tmp_path / "outside.jpg").touch()
    for issue in ("bad_row", "unreadable"):
        assert quarantine(data, [finding(row, issue, "")], tmp_path / "q") == 0
    assert (tmp_path / "outside.jpg").exists()


@pytest.mark.parametrize("name", ["a\rb.jpg", "a\nb.jpg", 'a"b,c.jpg', "\udcff.jpg"])
def test_any_name_is_put_back(data: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(data / "class a" / "000001.jpg", data / "class a" / name)
    before = contents(data)
    assert quarantine(data, [finding(f"class a/{name}", "dark", "")], tmp_path / "q") == 1
    assert put_back(tmp_path / "q") == 1
    assert contents(data) == before


def test_two_folders_do_not_share_a_quarantine(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "other")
    quarantine(data, [finding("class a/000001.jpg", "dark", "")], tmp_path / "q")
    with pytest.raises(DataError, match="holds images of another folder"):
        quarantine(tmp_path / "other", [finding("class a/000002.jpg", "dark", "")], tmp_path / "q")


def test_undo_takes_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    undo = ["check", "--undo", str(tmp_path / "q")]
    assert main.run([*undo, str(tmp_path), "--fail-on", "any", "--smallest", "64"]) == main.MISTAKE
    assert "--undo: only moves images back; leave DATA and --smallest and --fail-on out" in capsys.readouterr().err


def test_undo_of_any_other_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["check", "--undo", str(tmp_path)]) == 2
    assert "quarantine.csv: is not there" in capsys.readouterr().err
