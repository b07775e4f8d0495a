from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.data import decoded_cache
from whichcar.data.decoded_cache import DecodedCache, clear_caches, decode_all, list_caches
from whichcar.errors import DataError
from whichcar.images.problems import reported
from whichcar.images.read import read_resized

SIZE = (20, 30)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "caches"


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Images of several sizes and kinds in two class folders."""
    made = []
    for number, (mode, suffix, size) in enumerate(
        [("RGB", "jpg", (90, 61)), ("L", "png", (16, 12)), ("RGB", "png", (30, 20)), ("CMYK", "jpg", (300, 200))] * 2
    ):
        path = tmp_path / "tree" / f"class {number % 2}" / f"{number:02d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).convert(mode).save(path)
        made.append(path)
    return made


def expected(paths: Sequence[Path], size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.stack([read_resized(path, size) for path in paths])


def everything(images: DecodedCache) -> np.ndarray:
    return images.take(range(len(images)))


def test_row_i_is_the_resized_image_i(paths: list[Path], root: Path) -> None:
    images = decode_all(paths, SIZE, root)
    assert images.shape == (8, *SIZE, 3)
    assert everything(images).dtype == np.uint8
    np.testing.assert_array_equal(everything(images), expected(paths))
    np.testing.assert_array_equal(images.take(np.array([5, 0, 5])), expected([paths[5], paths[0], paths[5]]))
    assert images.take([]).shape == (0, *SIZE, 3)
    assert images.skipped == []


def test_the_second_call_decodes_nothing(paths: list[Path], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decode_all(paths, SIZE, root)

    def decoding(path: Path, size: tuple[int, int]) -> np.ndarray:
        raise AssertionError(f"{path} is decoded again")

    monkeypatch.setattr(decoded_cache, "read_resized", decoding)
    np.testing.assert_array_equal(everything(decode_all(paths, SIZE, root)), everything(first))
    assert len(list_caches(root)) == 1


def test_a_changed_image_gives_another_cache(paths: list[Path], root: Path) -> None:
    before = everything(decode_all(paths, SIZE, root))
    Image.new("RGB", (40, 40), (1, 2, 3)).save(paths[2])
    after = everything(decode_all(paths, SIZE, root))
    assert (after[2] == (1, 2, 3)).all()
    np.testing.assert_array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))
    assert len(list_caches(root)) == 2


def test_an_image_that_moves_to_another_class_gives_another_cache(paths: list[Path], root: Path) -> None:
    decode_all(paths, SIZE, root)
    moved = paths[0].parent.with_name("class 1") / paths[0].name
    paths[0].rename(moved)
    decode_all([moved, *paths[1:]], SIZE, root)
    assert len(list_caches(root)) == 2


def test_another_size_or_order_gives_another_cache(paths: list[Path], root: Path) -> None:
    decode_all(paths, SIZE, root)
    assert decode_all(paths, (30, 20), root).take([0]).shape == (1, 30, 20, 3)
    np.testing.assert_array_equal(everything(decode_all(paths[::-1], SIZE, root)), expected(paths[::-1]))
    assert len(list_caches(root)) == 3


def test_an_unreadable_image_is_a_black_row_and_is_named(paths: list[Path], root: Path) -> None:
    paths[3].write_bytes(paths[3].read_bytes()[:2000])
    paths[6] = paths[6].with_name("missing.jpg")
    images = decode_all(paths, SIZE, root)
    assert [skipped.path for skipped in images.skipped] == [paths[3], paths[6]]
    assert all(skipped.reason.startswith(f"{skipped.path}: ") for skipped in images.skipped)
    assert "truncated" in images.skipped[0].reason
    assert "no such file" in images.skipped[1].reason
    assert not images.take([3, 6]).any()
    np.testing.assert_array_equal(images.take([2, 4]), expected([paths[2], paths[4]]))


def test_an_unreadable_image_is_named_as_it_is_called_now(paths: list[Path], root: Path, tmp_path: Path) -> None:
    paths[3].write_bytes(b"no image")
    decode_all(paths, SIZE, root)
    (tmp_path / "tree").rename(tmp_path / "elsewhere")
    moved = [tmp_path / "elsewhere" / path.relative_to(tmp_path / "tree") for path in paths]
    images = decode_all(moved, SIZE, root)
    assert len(list_caches(root)) == 1
    assert [skipped.path for skipped in images.skipped] == [moved[3]]
    assert str(paths[3]) not in images.skipped[0].reason


def test_an_image_fixed_after_it_was_unreadable_is_read(paths: list[Path], root: Path) -> None:
    good = paths[3].read_bytes()
    paths[3].write_bytes(b"no image")
    assert decode_all(paths, SIZE, root).skipped
    paths[3].write_bytes(good)
    images = decode_all(paths, SIZE, root)
    assert not images.skipped
    np.testing.assert_array_equal(everything(images), expected(paths))


def test_no_readable_image_at_all_is_an_error_and_leaves_nothing(paths: list[Path], root: Path) -> None:
    for path in paths:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of 8 images can be read; the first: .*00\.jpg: not an image"):
        decode_all(paths, SIZE, root)
    assert list(root.iterdir()) == []
    with pytest.raises(DataError, match="no image to decode"):
        decode_all([], SIZE, root)


KILLED = """
import os, signal, sys
from pathlib import Path
from whichcar.data import decoded_cache

read, left = decoded_cache.read_resized, 5

def dying(path, size):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(path, size)

decoded_cache.read_resized = dying
decoded_cache.decode_all([Path(name) for name in sys.argv[2:]], (20, 30), Path(sys.argv[1]), workers=1)
"""


def test_a_build_killed_midway_is_not_taken_for_a_cache(paths: list[Path], root: Path) -> None:
    called = [sys.executable, "-c", KILLED, str(root), *map(str, paths)]
    assert subprocess.run(called, check=False, timeout=300).returncode == -signal.SIGKILL
    assert len(list(root.iterdir())) == 1
    assert list_caches(root) == []
    np.testing.assert_array_equal(everything(decode_all(paths, SIZE, root)), expected(paths))
    assert len(list_caches(root)) == 1
    assert clear_caches(root=root) == 2
    assert list(root.iterdir()) == []


def test_a_build_removes_what_killed_ones_left_and_no_other_files(paths: list[Path], root: Path) -> None:
    def leave(name: str, age: float) -> Path:
        (root / name).mkdir(parents=True)
        (root / name / "images.npy").write_bytes(b"rows")
        os.utime(root / name / "images.npy", (time.time() - age,) * 2)
        return root / name

    key = "0123456789" * 2
    leave(f".{key}-01234567", age=3600)
    kept = [leave(f".{key}-76543210", age=1), leave(f".{key}-89abcdef", age=3600), leave(".mine", age=3600)]
    with (kept[1] / "images.npy").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        built = decode_all(paths, SIZE, root)
    assert sorted(root.iterdir()) == sorted([*kept, root / built.key])


def while_decoding(monkeypatch: pytest.MonkeyPatch, path: Path, happens: Callable[[], object]) -> None:
    """Let something happen when `path` is decoded."""

    def decoding(one: Path, size: tuple[int, int]) -> np.ndarray:
        if one == path:
            happens()
        return read_resized(one, size)

    monkeypatch.setattr(decoded_cache, "read_resized", decoding)


def test_clearing_the_caches_leaves_one_that_is_being_built(
    paths: list[Path], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[int] = []
    while_decoding(monkeypatch, paths[1], lambda: removed.append(clear_caches(root=root)))
    np.testing.assert_array_equal(everything(decode_all(paths, SIZE, root, workers=1)), expected(paths))
    assert removed == [0]
    assert clear_caches(root=root) == 1


def test_a_cache_removed_while_it_was_built_is_an_error_and_built_by_the_next_run(
    paths: list[Path], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_decoding(monkeypatch, paths[1], lambda: shutil.rmtree(root))
    with pytest.raises(DataError, match="was removed while it was written; run the same command again"):
        decode_all(paths, SIZE, root, workers=1)
    monkeypatch.undo()
    np.testing.assert_array_equal(everything(decode_all(paths, SIZE, root)), expected(paths))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO, errno.ENOENT])
def test_an_error_of_the_system_is_not_stored_as_a_damaged_image(
    paths: list[Path], root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def failing() -> None:
        with reported(paths[1]):
            raise OSError(number, os.strerror(number))

    while_decoding(monkeypatch, paths[1], failing)
    with pytest.raises(DataError, match=rf"01\.png: cannot be read at the moment \({os.strerror(number)}\); run the"):
        decode_all(paths, SIZE, root, workers=1)
    monkeypatch.undo()
    assert decode_all(paths, SIZE, root).skipped == []


def test_a_wrong_offset_in_a_file_is_damage_and_not_an_error_of_the_system(paths: list[Path], root: Path) -> None:
    wrong = paths[0].with_name("wrong.tif")
    wrong.write_bytes(b"II+\0\x08\0\0\0" + (1 << 45).to_bytes(8, "little"))
    (skipped,) = decode_all([*paths, wrong], SIZE, root).skipped
    assert skipped.path == wrong and "damaged" in skipped.reason


def test_two_builds_of_the_same_cache_do_not_hinder_each_other(paths: list[Path], root: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        built = list(pool.map(lambda _: decode_all(paths, SIZE, root), range(3)))
    for images in built:
        np.testing.assert_array_equal(everything(images), expected(paths))
    assert [entry.name for entry in root.iterdir()] == [list_caches(root)[0].key]


@pytest.mark.parametrize("lost", [decoded_cache.INDEX, decoded_cache.IMAGES])
def test_a_cache_that_lost_a_file_is_built_again(paths: list[Path], root: Path, lost: str) -> None:
    decode_all(paths, SIZE, root)
    (list_caches(root)[0].path / lost).unlink()
    np.testing.assert_array_equal(everything(decode_all(paths, SIZE, root)), expected(paths))


def test_a_cache_cut_short_is_an_error_that_says_what_to_do(paths: list[Path], root: Path) -> None:
    decode_all(paths, SIZE, root)
    file = list_caches(root)[0].path / decoded_cache.IMAGES
    os.truncate(file, file.stat().st_size - 1)
    images = decode_all(paths, SIZE, root)
    with pytest.raises(DataError, match="ends before row 7; remove it with: whichcar cache clear"):
        everything(images)


def test_caches_are_listed_oldest_first(paths: list[Path], root: Path) -> None:
    assert list_caches(root) == []
    decode_all(paths, SIZE, root)
    decode_all(paths[:3], (24, 24), root)
    first, second = list_caches(root)
    assert (first.images, first.size, second.images, second.size) == (8, SIZE, 3, (24, 24))
    assert first.created < second.created
    assert 0 <= first.bytes - 8 * 20 * 30 * 3 < 1000
    assert (root / first.key) == first.path


def test_clearing_takes_one_cache_or_all_and_nothing_else(paths: list[Path], root: Path) -> None:
    decode_all(paths, SIZE, root)
    decode_all(paths[:3], SIZE, root)
    (root / "holiday").mkdir()
    (root / "notes.txt").write_text("keep me")
    keys = [info.key for info in list_caches(root)]
    assert clear_caches(keys[0], root) == 1
    assert [info.key for info in list_caches(root)] == keys[1:]
    with pytest.raises(DataError, match="no cache holiday; `whichcar cache` lists them"):
        clear_caches("holiday", root)
    assert clear_caches(root=root) == 1
    assert sorted(entry.name for entry in root.iterdir()) == ["holiday", "notes.txt"]
    assert clear_caches(root=root / "nowhere") == 0


def test_several_threads_may_read_at_once(paths: list[Path], root: Path) -> None:
    images, truth = decode_all(paths, SIZE, root), expected(paths)

    def right(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(0, 8, 50)
        return bool((images.take(rows) == truth[rows]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, range(40)))


def test_the_file_is_read_and_not_mapped(paths: list[Path], root: Path) -> None:
    images = decode_all(paths, SIZE, root)
    everything(images)
    assert decoded_cache.IMAGES not in Path("/proc/self/maps").read_text()


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WHICHCAR_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert decoded_cache.cache_root() == tmp_path / "here"
    monkeypatch.delenv("WHICHCAR_CACHE")
    assert decoded_cache.cache_root() == tmp_path / "there" / "whichcar"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert decoded_cache.cache_root() == tmp_path / ".cache" / "whichcar"


def test_a_place_that_cannot_be_written_is_one_line(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written there .*set WHICHCAR_CACHE to a folder that can"):
        decode_all(paths, SIZE, tmp_path / "file" / "caches")


def test_a_full_disk_is_reported_with_the_room_that_is_needed(paths: list[Path], root: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(DataError, match=r"the decoded cache needs 1 MB: make room .*, or set WHICHCAR_CACHE to a"):
            decode_all(paths, SIZE, root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_named_pipe_is_skipped_and_not_waited_for(paths: list[Path], root: Path) -> None:
    os.mkfifo(paths[0].with_name("pipe.jpg"))
    images = decode_all([*paths, paths[0].with_name("pipe.jpg")], SIZE, root)
    assert [skipped.path.name for skipped in images.skipped] == ["pipe.jpg"]
    assert "not a file" in images.skipped[0].reason
