"""Downloading, from a real server on this machine."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from whichcar.detection.coco import NAMES
from whichcar.detection.detection import find_detector, get_vehicle_coordinates, load_detector
from whichcar.detection.onnx import OnnxDetector
from whichcar.detection.zoo import DEFAULT, ENTRIES, MORE_ACCURATE, Entry, entry_of, file_of
from whichcar.errors import DetectorError
from whichcar.files import sha256

from ..loopback import Silent, served
from .conftest import scene

CONTENT = b"detector " * 100_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(Silent):
    requested: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requested.append(self.path)
        if self.path == "/missing.onnx":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/short.onnx" else CONTENT)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "requested", [])
    with served(Handler) as address:
        yield address


def entry(url: str, digest: str = DIGEST) -> Entry:
    return Entry("tiny", url, "YOLOX", 32, 1.0, "MIT", digest)


def test_the_default_detector_is_part_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded: no connection can be opened, and nothing is stored."""
    monkeypatch.delenv("WHICHCAR_DETECTOR", raising=False)
    monkeypatch.setattr(socket, "socket", None)
    detector = find_detector()
    assert (detector.name, detector.sha256) == ("yolox-nano", entry_of(DEFAULT).sha256)
    assert detector.file.parent == Path(sys.modules[find_detector.__module__].__file__).parent
    assert get_vehicle_coordinates(scene()) == (0, 0, 128, 96)  # a red rectangle is no car
    assert not Path(os.environ["WHICHCAR_CACHE"], "models", "yolox-nano.onnx").exists()


def test_what_is_known_of_the_packaged_detector_is_what_it_shows_on_probe_images() -> None:
    known, probed = load_detector(DEFAULT, 1), OnnxDetector(find_detector(DEFAULT).file, threads=1)
    assert isinstance(known, OnnxDetector)
    same = ("_input", "_batched", "_step", "family", "classes", "read_as")
    assert [getattr(known, name) for name in same] == [getattr(probed, name) for name in same]
    images = [scene((240, 320), (80, 60, 240, 200)), scene((240, 320), None, (30, 30, 300, 200))]
    seen = known.detect(images, 0.02)
    assert seen == probed.detect(images, 0.02)
    assert any(seen)


def test_a_damaged_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whichcar.detection.zoo._PACKAGED", tmp_path / "yolox_nano.onnx")
    for content in (None, b"damaged"):
        if content:
            (tmp_path / "yolox_nano.onnx").write_bytes(content)
        with pytest.raises(DetectorError, match=r"yolox_nano\.onnx is missing or damaged; install whichcar again"):
            find_detector(DEFAULT)


def test_a_detector_is_downloaded_once(server: str, tmp_path: Path) -> None:
    folder = tmp_path / "a cache" / "models"
    assert file_of(entry(f"{server}/a.onnx"), folder) == folder / "tiny.onnx"
    assert (folder / "tiny.onnx").read_bytes() == CONTENT
    assert file_of(entry(f"{server}/a.onnx"), folder) == folder / "tiny.onnx"
    assert Handler.requested == ["/a.onnx"]


def test_another_file_than_the_known_one_is_refused_and_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"is not the file it should be \(its SHA-256 is not 0000") as caught:
        file_of(entry(f"{server}/a.onnx", "0" * 64), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [CONTENT[:-1], b"D" + CONTENT[1:], b""], ids=["short", "one bit", "empty"])
def test_a_damaged_file_is_downloaded_again(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Also where its date is that of the file that was downloaded."""
    monkeypatch.setenv("WHICHCAR_CACHE", str(tmp_path))
    monkeypatch.setattr("whichcar.detection.zoo.ENTRIES", (entry(f"{server}/a.onnx"),))
    path = find_detector("tiny").file
    dates = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert sha256(find_detector("tiny").file) == DIGEST
    assert Handler.requested == ["/a.onnx", "/a.onnx"]


def test_a_file_copied_there_by_hand_is_used_without_a_connection(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(CONTENT)
    tmp_path.chmod(0o500)
    assert file_of(entry("https://nowhere.invalid/a.onnx"), tmp_path) == tmp_path / "tiny.onnx"


@pytest.mark.parametrize(("name", "reason"), [("missing.onnx", "HTTP 404"), ("short.onnx", "450000 more expected")])
def test_a_download_that_fails_leaves_nothing_and_says_how_to_give_a_file(
    server: str, tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(DetectorError, match=reason) as caught:
        file_of(entry(f"{server}/{name}"), tmp_path)
    assert f"detector tiny: {server}/{name} cannot be downloaded" in str(caught.value)
    assert "--detector PATH.onnx or WHICHCAR_DETECTOR=PATH.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_store_the_file_is_not_reported_as_a_failed_download(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DetectorError, match=r"cannot be stored in .*file/models \(Not a directory\); set WHICHCAR_CAC"):
        file_of(entry(f"{server}/a.onnx"), tmp_path / "file" / "models")
    assert Handler.requested == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [("http://127.0.0.1:9/a.onnx", "Connection refused"), ("http://nowhere.invalid/a.onnx", "[Nn]ame")],
)
def test_no_connection_is_one_short_line(tmp_path: Path, url: str, reason: str) -> None:
    with pytest.raises(DetectorError, match=rf"cannot be downloaded \([^()]*{reason}[^()]*\); download it elsewhere"):
        file_of(entry(url), tmp_path)


def test_progress_is_shown_in_kilobytes(server: str, tmp_path: Path) -> None:
    code = f"from tests.detection.test_zoo import *; file_of(entry('{server}/a.onnx'), Path({str(tmp_path)!r}))"
    environment = {name: value for name, value in os.environ.items() if name != "WHICHCAR_QUIET"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ended.stderr.startswith("downloading tiny: 900/900 kB"), ended.stderr
    assert ended.stderr.count("\n") == 1


def test_entries_are_complete_and_free_to_use() -> None:
    assert len({item.name for item in ENTRIES}) == len({item.url for item in ENTRIES}) == len(ENTRIES)
    assert {item.licence for item in ENTRIES} <= {"Apache-2.0", "MIT", "BSD-3-Clause"}
    assert [item.name for item in ENTRIES if item.url is None] == [DEFAULT]
    assert all(item.url.startswith("https://") and item.url.endswith(".onnx") for item in ENTRIES if item.url)
    assert all(len(bytes.fromhex(item.sha256)) == 32 for item in ENTRIES)
    assert entry_of(MORE_ACCURATE).average_precision > entry_of(DEFAULT).average_precision
    assert entry_of("no such") is None
    assert len(NAMES) == 80
