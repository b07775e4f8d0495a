import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from whichcar import files
from whichcar.errors import DataError

from .training.run.limits import no_file_larger_than


def other_file_system(path: Path) -> Path | None:
    """Return a writable folder on another file system than `path`, or None."""
    shared = Path("/dev/shm")
    there = shared.is_dir() and os.access(shared, os.W_OK) and shared.stat().st_dev != path.stat().st_dev
    return Path(tempfile.mkdtemp(dir=shared)) if there else None


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep" / "a.txt"
    with files.atomic_write(target) as tmp:
        assert tmp.suffix == ".txt"
        tmp.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.write_text(target, "old")
    with pytest.raises(KeyboardInterrupt), files.atomic_write(target) as tmp:
        tmp.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_reported_with_the_files_own_name(tmp_path: Path) -> None:
    with no_file_larger_than(10), pytest.raises(OSError, match="File too large") as caught:
        files.write_text(tmp_path / "a.txt", "x" * 100)
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_has_the_room_that_is_asked_for() -> None:
    with files.temporary_folder(1) as folder:
        (folder / "a.txt").write_text("a")
    assert not folder.exists()
    with pytest.raises(OSError, match="No space left on device") as caught, files.temporary_folder(2**63):
        pass
    assert caught.value.filename == tempfile.gettempdir()


def test_json_keeps_unicode(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"class": "Škoda"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "class": "Škoda"\n}\n'


def test_json_gives_a_path_that_is_not_utf_8_back(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"source": "Autos_\udcfc/\\udcfc"})
    assert files.read_json(tmp_path / "a.json") == {"source": "Autos_\udcfc/\\udcfc"}


def test_text_and_tables_have_escapes_for_what_is_not_utf_8(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "Citro\udcebn")
    files.write_csv(tmp_path / "b", ["path"], [["Citro\udcebn"]])
    for name in ("a", "b"):
        assert "Citro\\udcebn" in (tmp_path / name).read_text(encoding="utf-8")


def test_a_link_shares_the_bytes_on_one_file_system(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"car")
    files.link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").samefile(tmp_path / "b")


def test_across_file_systems_it_is_a_copy(tmp_path: Path) -> None:
    elsewhere = other_file_system(tmp_path)
    if elsewhere is None:
        pytest.skip("no second file system here to copy to")
    (tmp_path / "a").write_bytes(b"car")
    try:
        files.link_or_copy(tmp_path / "a", elsewhere / "b")
        assert (elsewhere / "b").read_bytes() == b"car"
        assert (elsewhere / "b").stat().st_nlink == 1
        assert [entry.name for entry in elsewhere.iterdir()] == ["b"]
    finally:
        for entry in elsewhere.iterdir():
            entry.unlink()
        elsewhere.rmdir()


def test_linking_what_is_missing_or_onto_what_is_there_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.link_or_copy(tmp_path / "a", tmp_path / "b")
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        files.link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"old"


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_is_copied_to_a_disk_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "a").write_bytes(b"car")
    files.link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"car"


def test_another_error_is_not_taken_for_another_file_system(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"car")
    with pytest.raises(OSError, match="File name too long"):
        files.link_or_copy(tmp_path / "a", tmp_path / ("b" * 300))


def test_a_checksum_depends_on_the_bytes_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"car")
    (tmp_path / "b").write_bytes(b"car")
    (tmp_path / "c").write_bytes(b"cat")
    first, second, third = (files.checksum(tmp_path / name) for name in "abc")
    assert first == second != third
    assert len(first) == 32


def test_folders_are_sorted_and_visible(tmp_path: Path) -> None:
    for name in ("b", "a", "C", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "file.jpg").touch()
    assert [folder.name for folder in files.folders(tmp_path)] == ["C", "a", "b"]


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder whose class folder B, inner folder A/more and image A/2.jpg are links."""
    for name in ("store/B/1.jpg", "store/more/3.jpg", "store/2.jpg", "data/A/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "data" / "B").symlink_to(tmp_path / "store" / "B")
    (tmp_path / "data" / "A" / "more").symlink_to(tmp_path / "store" / "more")
    (tmp_path / "data" / "A" / "2.jpg").symlink_to(Path("../../store/2.jpg"))
    return tmp_path / "data"


def test_linked_folders_and_images_count_like_others(linked: Path) -> None:
    assert list(files.walk_images(linked)) == ["A/1.jpg", "A/2.jpg", "A/more/3.jpg", "B/1.jpg"]
    assert [folder.name for folder in files.folders(linked)] == ["A", "B"]
    (linked.parent / "link").symlink_to(linked)
    assert len(list(files.walk_images(linked.parent / "link"))) == 4


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_a_link_upwards_neither_loops_nor_counts_an_image_twice(linked: Path, target: str) -> None:
    (linked / "A" / "up").symlink_to(target)
    (linked / "A" / "itself").symlink_to("itself")
    (linked.parent / "store" / "more" / "back").symlink_to(linked)
    assert list(files.walk_images(linked)) == ["A/1.jpg", "A/2.jpg", "A/itself", "A/more/3.jpg", "B/1.jpg"]
    (linked / "loop").symlink_to(linked)
    assert [folder.name for folder in files.folders(linked)] == ["A", "B"]


def test_two_linked_folders_that_link_each_other_end(tmp_path: Path) -> None:
    for name in ("one", "two", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    (tmp_path / "one" / "to").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "to").symlink_to(tmp_path / "one")
    (tmp_path / "data" / "one").symlink_to(tmp_path / "one")
    assert list(files.walk_images(tmp_path / "data")) == ["1.jpg", "one/1.jpg", "one/to/1.jpg"]


def test_a_broken_link_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "BMW X3 2012").symlink_to(tmp_path / "gone")
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    assert list(files.walk_images(tmp_path)) == ["BMW X3 2012", "a.jpg"]


@pytest.mark.parametrize("digest", [files.checksum, files.sha256])
def test_a_named_pipe_has_no_checksum_and_does_not_block(tmp_path: Path, digest: Callable[[Path], str]) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match="not a regular file"):
        digest(tmp_path / "pipe.jpg")


def test_images_are_found_at_any_depth_sorted_and_visible(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / ".cache").mkdir()
    for name in ("b/deep/2.JPG", "b/1.jpeg", "a.png", ".cache/3.jpg", "b/.4.jpg", "b/notes.txt", "b/Thumbs.db"):
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in files.images(tmp_path)] == [
        "a.png",
        "b/1.jpeg",
        "b/deep/2.JPG",
    ]


def test_a_file_that_cannot_be_written_is_named_as_it_was_to_be_called(tmp_path: Path) -> None:
    for name in ("x" * 300, "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(OSError) as caught:
            files.write_text(tmp_path / name, "text")
        assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / name), None)


def test_json_that_cannot_be_read_says_why_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    for content, reason in ((b"\xff\xfe{}", "not text in UTF-8 from byte 0 on"), (b"[" * 99_999, "nested too deeply")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"readable as JSON \({reason}\);"):
            files.read_json(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"readable as JSON \(Is a directory\);"):
        files.read_json(path)


def test_a_lock_leaves_nothing_but_what_others_put_next_to_it(tmp_path: Path) -> None:
    with files.locked(tmp_path / "a" / "b" / "lock", remove=True):
        pass
    assert list(tmp_path.iterdir()) == []
    with files.locked(tmp_path / "a" / "b" / "lock", remove=True):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "kept"]


def test_a_lock_that_its_holder_removes_while_it_is_being_taken_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: (tmp_path / "lock").unlink())
    with pytest.raises(BlockingIOError), files.locked(tmp_path / "lock", remove=True):
        pass
