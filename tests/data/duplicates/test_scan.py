import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.cli import main
from whichcar.data.duplicates import scan
from whichcar.data.duplicates.scan import ScanCache
from whichcar.errors import DataError, ImageError


@pytest.fixture
def images(drawn: Path, tmp_path: Path) -> list[Path]:
    shutil.copytree(drawn / "car_ims", tmp_path / "images")
    return sorted((tmp_path / "images").iterdir())


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    original = scan.decoded
    monkeypatch.setattr(scan, "decoded", lambda path, at_least: names.append(path.name) or original(path, at_least))
    return names


def mean(image: np.ndarray) -> tuple[float, ...]:
    return (float(image.mean()),)


def test_an_image_is_read_once(images: list[Path], tmp_path: Path, read: list[str]) -> None:
    with ScanCache(tmp_path / "scans.db") as cache:
        first = list(cache.scan(images))
    assert sorted(read) == [path.name for path in images]
    with ScanCache(tmp_path / "scans.db") as cache:
        assert list(cache.scan(images)) == first
    assert len(read) == len(images)
    assert first[0].header is not None
    assert (first[0].header.format, first[0].header.width, first[0].header.height) == ("JPEG", 64, 48)


def test_a_changed_image_is_read_again(images: list[Path], tmp_path: Path, read: list[str]) -> None:
    with ScanCache(tmp_path / "scans.db") as cache:
        before = list(cache.scan(images[:3]))
        Image.new("RGB", (30, 20), (9, 9, 9)).save(images[1])
        after = list(cache.scan(images[:3]))
    assert read.count(images[1].name) == 2
    assert len(read) == 4
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def with_the_date_of(path: Path, status: os.stat_result) -> None:
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_file_replaced_under_its_size_and_date_is_scanned_again(images: list[Path], tmp_path: Path) -> None:
    path, sound = images[0], images[0].read_bytes()
    status = path.stat()
    damaged = bytes(600) + sound[600:]
    with ScanCache(tmp_path / "scans.db") as cache:
        problems = []
        for content in (sound, damaged, sound, damaged):
            path.write_bytes(content)
            with_the_date_of(path, status)
            (scan,) = cache.scan([path])
            problems.append(bool(scan.problem))
    assert problems == [False, True, False, True]


def test_other_files_that_got_the_inodes_sizes_and_dates_of_earlier_ones_are_distinguished(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.bmp" for number in range(8)]
    for path in paths:
        Image.new("RGB", (40, 30), (200, 30, 30)).save(path)
        os.utime(path, (0, 0))
    with ScanCache(tmp_path / "scans.db") as cache:
        assert len({scan.checksum for scan in cache.scan(paths)}) == 1
        for number, path in enumerate(paths):  # written over, so that the inode is the same on any file system
            Image.new("RGB", (40, 30), (number, 30, 30)).save(path)
            os.utime(path, (0, 0))
        assert len({scan.checksum for scan in cache.scan(paths)}) == 8


def test_links_copies_and_moved_files_are_known_by_their_content(
    images: list[Path], tmp_path: Path, read: list[str]
) -> None:
    with ScanCache(tmp_path / "scans.db") as cache:
        before = list(cache.scan(images, mean))
        others = []
        for path in images:
            others += [tmp_path / f"link {path.name}", tmp_path / f"copy {path.name}", tmp_path / f"moved {path.name}"]
            os.link(path, others[-3])
            shutil.copyfile(path, others[-2])
            path.rename(others[-1])
        assert list(cache.scan(others, mean)) == [scan for scan in before for _ in range(3)]
    assert len(read) == len(images)


def test_a_lack_of_memory_is_not_remembered_as_damage(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_of_memory(*_: object) -> None:
        raise ImageError(f"{images[0]}: the image is broken (MemoryError)") from MemoryError()

    with ScanCache(tmp_path / "scans.db") as cache:
        with monkeypatch.context() as patch:
            patch.setattr(scan, "decoded", lambda *_, **__: short_of_memory())
            assert next(iter(cache.scan(images[:1]))).problem
        assert not next(iter(cache.scan(images[:1]))).problem


def test_measures_are_taken_when_they_are_first_asked_for(images: list[Path], tmp_path: Path, read: list[str]) -> None:
    with ScanCache(tmp_path / "scans.db") as cache:
        assert next(iter(cache.scan(images[:1]))).measures == ()
        (measured,) = cache.scan(images[:1], mean)
        assert measured.measures == mean(np.array(Image.open(images[0])))
        assert list(cache.scan(images[:1], mean)) == [measured]
        assert list(cache.scan(images[:1])) == [measured]
    assert len(read) == 2


def test_what_cannot_be_read_says_why(tmp_path: Path, images: list[Path]) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.jpg").write_bytes(images[0].read_bytes()[:-300])
    (tmp_path / "pipe.jpg").mkdir()
    names = ["empty.jpg", "text.jpg", "cut.jpg", "gone.jpg", "pipe.jpg"]
    with ScanCache(tmp_path / "scans.db") as cache:
        for _ in range(2):
            scans = dict(zip(names, cache.scan(tmp_path / name for name in names), strict=True))
            assert scans["empty.jpg"].problem.startswith("the file is empty")
            assert "known format" in scans["text.jpg"].problem
            assert scans["gone.jpg"].problem.startswith("no such file")
            assert scans["pipe.jpg"].problem.startswith("not a file")
            assert [name for name in names if scans[name].truncated] == ["cut.jpg"]
            assert all(one.header is None and one.fingerprint is None for one in scans.values())
            assert scans["gone.jpg"].checksum == b"" != scans["cut.jpg"].checksum


def test_only_a_few_images_are_asked_for_ahead(images: list[Path], tmp_path: Path) -> None:
    asked = []

    def ask() -> Iterator[Path]:
        for number in range(500):
            asked.append(number)
            yield images[number % len(images)]

    with ScanCache(tmp_path / "scans.db") as cache:
        next(iter(cache.scan(ask(), workers=2)))
        assert len(asked) <= 20


@pytest.mark.slow
def test_what_was_learnt_is_kept_when_the_process_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(400):
        Image.effect_noise((64, 64), 50 + number / 10).convert("RGB").save(folder / f"{number:03d}.png")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom whichcar.data.duplicates.scan import ScanCache\n"
        "with ScanCache(Path(sys.argv[1])) as cache:\n"
        "    for number, _ in enumerate(cache.scan(sorted(Path(sys.argv[2]).iterdir()))):\n"
        "        print(number, flush=True)\n        time.sleep(0.01)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "scans.db"), str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 200:
            process.kill()
            break
    process.stdout.close()
    process.wait()
    with sqlite3.connect(tmp_path / "scans.db") as base:
        (kept,) = base.execute("select count(*) from contents").fetchone()
    base.close()
    assert 100 <= kept < 400
    with ScanCache(tmp_path / "scans.db") as cache:
        assert len(list(cache.scan(sorted(folder.iterdir())))) == 400


def test_two_processes_may_share_the_file(images: list[Path], tmp_path: Path) -> None:
    with ScanCache(tmp_path / "scans.db") as one, ScanCache(tmp_path / "scans.db") as other:
        start = time.monotonic()
        first = one.scan(images, mean)
        second = other.scan(images, mean)
        assert [next(first) == next(second) for _ in images] == [True] * len(images)
        assert time.monotonic() - start < 50


def unusable(place: Path, kind: str) -> Path:
    """Make a place for the file that cannot be used: the folder is a file, cannot be made, or the file is damaged."""
    place.mkdir()
    if kind == "file":
        (place / "cache").touch()
    elif kind == "nowhere":
        return Path("/proc/whichcar/scans.db")
    elif kind == "folder":
        (place / "cache" / "scans.db").mkdir(parents=True)
    else:
        (place / "cache").mkdir()
        (place / "cache" / "scans.db").write_bytes(b"no database at all, but long enough to look like one" * 40)
    return place / "cache" / "scans.db"


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("file", "set WHICHCAR_CACHE to a folder that can be written"),
        ("nowhere", "set WHICHCAR_CACHE to a folder that can be written"),
        ("folder", "set WHICHCAR_CACHE to a folder that can be written"),
        ("damaged", "it is damaged); continuing without it, so images are scanned again next time; delete it: rm "),
    ],
)
def test_a_file_that_cannot_be_used_is_done_without_and_one_line_says_so(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, advice: str
) -> None:
    path = unusable(tmp_path / "place", kind)
    with ScanCache(path) as cache:
        scans = list(cache.scan(images, mean))
        assert list(cache.scan(images, mean)) == scans
        assert not any(one.problem for one in scans)
    assert [str(path) in record.getMessage() and advice in record.getMessage() for record in caplog.records] == [True]


def test_where_the_disk_fills_up_the_rest_is_kept_in_memory_and_what_was_learnt_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = []
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    with ScanCache(tmp_path / "scans.db") as cache:
        scans = list(cache.scan(paths[:2], mean))
        used = cache._base.execute("pragma page_count").fetchone()[0]
        cache._base.execute(f"pragma max_page_count={used + 2}")
        more = list(cache.scan(paths, mean))
        assert more[:2] == scans
        assert cache.fingerprint(more[-1].checksum) == more[-1].fingerprint
        cache.keep_similarity(more[0].checksum, more[1].checksum, False, 0.5)
        assert cache.similarity(more[0].checksum, more[1].checksum, False) == 0.5
    assert ["make room" in record.getMessage() for record in caplog.records] == [True]
    with ScanCache(tmp_path / "scans.db") as cache:
        assert cache.fingerprint(scans[0].checksum) == scans[0].fingerprint


def test_a_file_that_turns_out_to_be_damaged_is_to_be_deleted(images: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "scans.db"
    with ScanCache(path) as cache:
        list(cache.scan(images, mean))
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    message = r"scans\.db: cannot be read \(it is damaged\); delete it: rm "
    with ScanCache(path) as cache, pytest.raises(DataError, match=message):
        list(cache.scan(images, mean))


@pytest.mark.parametrize("command", ["split", "check", "explore"])
def test_commands_that_only_remember_what_they_scanned_go_on_without_a_cache(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, command: str
) -> None:
    monkeypatch.setenv("WHICHCAR_CACHE", str(unusable(tmp_path / "place", "file").parent))
    options = {"split": [str(tmp_path / "v1")], "check": [f"--output={tmp_path}"]}
    assert main.run([command, str(drawn), *options.get(command, [f"--output={tmp_path / 'page.html'}"])]) == 0
    assert [record.getMessage().count("continuing without it") for record in caplog.records] == [1]


def test_facts_of_another_edition_are_forgotten(
    images: list[Path], tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScanCache(tmp_path / "scans.db") as cache:
        list(cache.scan(images[:2]))
    monkeypatch.setattr(scan, "EDITION", scan.EDITION + 1)
    with ScanCache(tmp_path / "scans.db") as cache:
        list(cache.scan(images[:2]))
    assert len(read) == 4
