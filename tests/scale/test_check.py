"""Checking in parts: the table of the plain command, byte for byte, from scans that were made elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from whichcar.cli import main
from whichcar.data.check.check import Checked, check
from whichcar.data.duplicates import scan
from whichcar.errors import ClusterError
from whichcar.scale import parts as parts_module
from whichcar.scale.check import SCANS, check_on_cluster
from whichcar.scale.manifest import NAME
from whichcar.scale.parts import Part
from whichcar.scale.storage import storage_at
from whichcar.scale.work import Counts, Job, Worker

from ..colours import COLOURS, draw
from .conftest import Here

pytest.importorskip("pyarrow", reason="whichcar[ray] is not installed")
pytest.importorskip("s3fs", reason="whichcar[fetch] is not installed")
pytest.importorskip("cleanvision", reason="whichcar[check] is not installed")

ODD_NAME = os.fsdecode(b"two\nlines, \xff.jpg")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten images in two folders: among them a copy, one cut off, one without content, and one of an odd name."""
    folder = tmp_path / "data"
    for number in range(6):
        draw(folder / "ab"[number % 2] / f"{number}.jpg", list(COLOURS.values())[number % 3], seed=number)
    odd_files(folder)
    return folder


def odd_files(folder: Path) -> None:
    shutil.copy(folder / "a" / "0.jpg", folder / "b" / "copy.jpg")
    shutil.copy(folder / "a" / "2.jpg", folder / "a" / ODD_NAME)
    (folder / "b" / "cut.jpg").write_bytes((folder / "b" / "1.jpg").read_bytes()[:-300])
    (folder / "b" / "empty.jpg").touch()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parts_module, "PART_IMAGES", 4)
    monkeypatch.setattr(scan, "_RECENT", 0)  # files that were just made are remembered
    monkeypatch.setenv("WHICHCAR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], Checked]:
    """Checks without a cluster, and without what is known from one."""

    def checked(folder: Path) -> Checked:
        with monkeypatch.context() as patch:
            patch.setenv("WHICHCAR_CACHE", str(tmp_path / "other cache"))
            return check(folder)

    return checked


def sent(here: Here) -> list[str]:
    return [name for part in here.done for name in part.files]


def test_the_table_is_that_of_the_plain_command_and_no_image_is_decoded_here(
    data: Path, tmp_path: Path, here: Here, plain: Callable[[Path], Checked], monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_workers(address: str, job: Job, parts: Sequence[Part]) -> Iterator[Counts | None]:
        yield from here(address, job, parts)
        monkeypatch.setattr(scan, "decoded", None)  # whoever calls it from now on fails

    checked = plain(data)
    assert main.run(["check", str(data), "--output", str(tmp_path / "plain")]) == 0
    shutil.rmtree(tmp_path / "cache")
    assert check_on_cluster("here", data, runner=on_workers) == checked
    assert main.run(["check", str(data), "--ray", "127.0.0.1:9"]) == 0  # all is known, and no cluster is needed
    assert (data / "issues.csv").read_bytes() == (tmp_path / "plain" / "issues.csv").read_bytes()
    assert {"exact_duplicate", "truncated", "unreadable"} <= {one.issue for one in checked.findings}
    assert len(here.done) == 3
    assert sorted(sent(here)) == [entry.path for entry in checked.collection.entries]
    assert sorted(path.name for path in data.iterdir()) == ["a", "b", "check.html", "issues.csv"]


def test_images_that_are_known_are_not_sent(
    data: Path, tmp_path: Path, here: Here, plain: Callable[[Path], Checked]
) -> None:
    check(data)
    shutil.copy(data / "a" / "4.jpg", data / "a" / "new.jpg")
    assert check_on_cluster("here", data, output=tmp_path / "out", runner=here) == plain(data)
    assert sent(here) == ["a/new.jpg"]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_stopped_run_is_resumed_though_its_parts_are_others_by_now(
    data: Path, here: Here, plain: Callable[[Path], Checked]
) -> None:
    stopped = Here(stop=2)
    with pytest.raises(KeyboardInterrupt):
        check_on_cluster("here", data, runner=stopped)
    assert len(list((data / SCANS).glob("*.parquet"))) == 2
    draw(data / "a" / "00.jpg", COLOURS["Red Sedan 2011"], seed=9)
    checked = plain(data)  # does not see the scans
    assert check_on_cluster("here", data, runner=here) == checked
    assert sorted(sent(stopped) + sent(here)) == [entry.path for entry in checked.collection.entries]
    assert not (data / SCANS).exists()


def test_what_a_stopped_run_of_another_version_left_is_done_again(
    data: Path, here: Here, plain: Callable[[Path], Checked]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        check_on_cluster("here", data, runner=Here(stop=2))
    manifest = data / SCANS / NAME
    manifest.write_text(manifest.read_text().replace('"edition": ', '"edition": 9'))
    checked = plain(data)
    assert check_on_cluster("here", data, runner=here) == checked
    assert sent(here) == [entry.path for entry in checked.collection.entries]
    assert not (data / SCANS).exists()


def test_an_image_that_changed_after_its_scan_is_scanned_as_what_it_is(
    data: Path, here: Here, plain: Callable[[Path], Checked]
) -> None:
    replaced, shortened = data / "a" / "0.jpg", data / "b" / "1.jpg"

    def changing(address: str, job: Job, parts: Sequence[Part]) -> Iterator[Counts | None]:
        yield from here(address, job, parts)
        time.sleep(0.02)  # beyond a tick of the file system's clock
        content, status = replaced.read_bytes(), replaced.stat()
        replaced.write_bytes(bytes(600) + content[600:])
        os.utime(replaced, ns=(status.st_atime_ns, status.st_mtime_ns))
        shortened.write_bytes(shortened.read_bytes()[:-300])

    checked = check_on_cluster("here", data, runner=changing)
    assert {one.path for one in checked.findings if one.issue in ("truncated", "unreadable")} >= {"a/0.jpg", "b/1.jpg"}
    assert checked == plain(data)


def test_a_node_that_does_not_see_the_folder_says_so(data: Path, tmp_path: Path, unbound: None) -> None:
    def on_worker(_: str, job: Job, parts: Sequence[Part]) -> Iterator[Counts | None]:
        worker = Worker(replace(job, source=storage_at(tmp_path / "elsewhere")), lambda _: 1)
        yield Counts(**json.loads(worker({"part": json.dumps(asdict(parts[0]))})["counts"]))

    message = r"^node .*: does not see .*elsewhere; all nodes need the same disk for it; what is finished is kept$"
    with pytest.raises(ClusterError, match=message):
        check_on_cluster("here", data, runner=on_worker)


@pytest.mark.parametrize("source", ["s3://bucket/images", "shard.tar"])
def test_a_bucket_and_a_tar_file_are_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shard.tar").touch()
    assert main.run(["check", source, "--ray", "auto"]) == 2
    message = f"error: {source}: must be a folder on a disk that all machines share; copy the images of a bucket, or of"
    assert capsys.readouterr().err == f"{message} a tar file, to one\n"
    assert main.run(["check", source]) == 2
    assert "no such folder; give a folder with images" in capsys.readouterr().err
