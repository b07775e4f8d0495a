"""Fetching, from a real server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from whichcar.detection.coco import NAMES
from whichcar.detection.detection import find_detector
from whichcar.detection.zoo import CHECKSUMS, DEFAULT, ENTRIES, Entry, entry_of, file_of
from whichcar.errors import DataError, DetectorError

CONTENT = b"detector " * 100_000


class Handler(http.server.BaseHTTPRequestHandler):
    content: ClassVar[bytes] = CONTENT
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/missing.onnx":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: len(self.content) // 2] if self.path == "/cut.onnx" else self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Handler, "asked", [])
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def entry(url: str, sha256: str | None = None) -> Entry:
    return Entry("tiny", url, "YOLOX", 32, 1.0, "MIT", sha256)


def test_a_detector_is_fetched_once(server: str, tmp_path: Path) -> None:
    known = hashlib.sha256(CONTENT).hexdigest()
    path = file_of(entry(f"{server}/a.onnx", known), tmp_path)
    assert path == tmp_path / "tiny.onnx"
    assert path.read_bytes() == CONTENT
    assert file_of(entry(f"{server}/a.onnx", known), tmp_path) == path
    assert Handler.asked == ["/a.onnx"]
    assert not (tmp_path / CHECKSUMS).exists()


def test_another_file_than_the_known_one_is_refused_and_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"is not the file it should be \(SHA-256 \w{16}\.\.\., expected 0000"):
        file_of(entry(f"{server}/a.onnx", "0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_first_download_is_recorded_and_later_ones_must_match(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(entry(f"{server}/a.onnx"), tmp_path)
    record = json.loads((tmp_path / CHECKSUMS).read_text())
    assert record == {f"{server}/a.onnx": hashlib.sha256(CONTENT).hexdigest()}
    path.unlink()
    assert file_of(entry(f"{server}/a.onnx"), tmp_path) == path
    path.unlink()
    monkeypatch.setattr(Handler, "content", b"other")
    with pytest.raises(DetectorError, match="is not the file it should be"):
        file_of(entry(f"{server}/a.onnx"), tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("damage", ["cut short", "one bit", "replaced"])
def test_a_fetched_file_is_checked_each_time_it_is_used(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool, damage: str
) -> None:
    """Its size and date stay those of the file that was fetched, where the damage allows it."""
    folder = tmp_path / "a cache" / "models"
    monkeypatch.setenv("WHICHCAR_CACHE", str(folder.parent))
    tiny = entry(f"{server}/a.onnx", hashlib.sha256(CONTENT).hexdigest() if known else None)
    monkeypatch.setattr("whichcar.detection.zoo.ENTRIES", (tiny,))
    path, dates = file_of(tiny), file_of(tiny).stat()
    changed = {"cut short": CONTENT[:-1], "one bit": b"D" + CONTENT[1:], "replaced": b"x" * len(CONTENT)}[damage]
    path.write_bytes(changed)
    os.utime(path, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    with pytest.raises(
        DetectorError, match=r"is not the file that was fetched \(SHA-256 \w{16}\.\.\., expected"
    ) as caught:
        find_detector("tiny")
    command = str(caught.value).rpartition("fetched again: ")[2]
    assert command == f"rm '{path}'"
    assert Handler.asked == ["/a.onnx"]  # nothing is fetched unasked
    subprocess.run(command, shell=True, check=True)
    assert find_detector("tiny").sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert Handler.asked == ["/a.onnx", "/a.onnx"]


def test_a_file_put_there_by_hand_is_known_from_its_first_use(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(CONTENT)
    assert file_of(entry("https://nowhere.invalid/a.onnx"), tmp_path) == path
    path.write_bytes(CONTENT[1:])
    with pytest.raises(DetectorError, match="is not the file that was fetched"):
        file_of(entry("https://nowhere.invalid/a.onnx"), tmp_path)


def test_a_damaged_list_of_checksums_is_one_line(server: str, tmp_path: Path) -> None:
    (tmp_path / CHECKSUMS).write_text("{")
    with pytest.raises(DataError, match=r"checksums\.json: .*not readable as JSON"):
        file_of(entry(f"{server}/a.onnx"), tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.onnx", "HTTP 404"), ("cut.onnx", r"the connection ended after \d+ of 900000 bytes|IncompleteRead")],
)
def test_a_download_that_fails_leaves_nothing_and_says_how_to_give_a_file(
    server: str, tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(DetectorError, match=reason) as caught:
        file_of(entry(f"{server}/{name}"), tmp_path)
    assert f"detector tiny: {server}/{name} cannot be fetched" in str(caught.value)
    assert "--detector PATH.onnx or WHICHCAR_DETECTOR=PATH.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_keep_the_file_is_told_as_such_and_not_as_a_failed_download(
    server: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DetectorError, match=r"cannot be kept in .*file/models \(Not a directory\); set WHICHCAR_CACHE"):
        file_of(entry(f"{server}/a.onnx"), tmp_path / "file" / "models")


def test_no_server_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"cannot be fetched \(.*refused"):
        file_of(entry("http://127.0.0.1:9/a.onnx"), tmp_path)


def test_entries_are_whole_and_free_to_use() -> None:
    assert len({one.name for one in ENTRIES}) == len({one.url for one in ENTRIES}) == len(ENTRIES)
    assert {one.licence for one in ENTRIES} <= {"Apache-2.0", "MIT", "BSD-3-Clause"}
    assert all(one.url.startswith("https://") and one.url.endswith(".onnx") for one in ENTRIES)
    assert all(one.sha256 is None or len(bytes.fromhex(one.sha256)) == 32 for one in ENTRIES)
    assert entry_of(DEFAULT) is not None
    assert entry_of("no such") is None
    assert len(NAMES) == 80
