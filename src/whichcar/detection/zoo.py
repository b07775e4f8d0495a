"""The detectors that have a name: where their file lies, what it takes and gives, and fetching it once."""

from __future__ import annotations

import errno
import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from whichcar.environment import cache_root
from whichcar.errors import DetectorError
from whichcar.files import read_json, replaced, sha256, write_json
from whichcar.progress import Bar
from whichcar.text import shell_command

DEFAULT = "dfine-n"
FILE_VARIABLE = "WHICHCAR_DETECTOR"
CHECKSUMS = "checksums.json"
_YOLOX = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/"
_HUB = "https://huggingface.co/{}/resolve/main/{}"
_SECONDS = 30.0  # without a byte
_CHUNK = 250_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A detector that can be fetched.

    `side` is that of its square input in pixels; `average_precision` is on COCO val2017 as its makers report it;
    `sha256` is known where the publisher states it, else None: then that of the first time is recorded, and later ones
    must be the same. It is compared after fetching and each time the file is used.
    """

    name: str
    url: str
    family: str
    side: int
    average_precision: float
    licence: str
    sha256: str | None = None


# YOLOX publishes these files itself. D-FINE (Peng et al. 2024) and RF-DETR publish weights but no ONNX files: these are
# conversions by others. Ultralytics' models are left out: their licence is AGPL.
ENTRIES = (
    Entry("dfine-n", _HUB.format("AnnotateIt/dfine-nano-coco-onnx", "model.onnx"), "D-FINE", 640, 42.8, "Apache-2.0",
          "b0ec2e5793f3a3cbd07440d098645a0e102cd450fb92f4f35e713f36e35d152e"),
    Entry("dfine-s", _HUB.format("onnx-community/dfine_s_coco-ONNX", "onnx/model.onnx"), "D-FINE", 640, 48.5,
          "Apache-2.0"),
    Entry("dfine-m", _HUB.format("onnx-community/dfine_m_coco-ONNX", "onnx/model.onnx"), "D-FINE", 640, 52.3,
          "Apache-2.0"),
    Entry("rf-detr-nano", _HUB.format("AnnotateIt/rfdetr-nano-coco-onnx", "model.onnx"), "RF-DETR", 384, 48.4,
          "Apache-2.0", "d5082b3a93eba673cf71763842be73fb852ab79962dfb303bbf0012ab8805059"),
    Entry("rf-detr-small", _HUB.format("AnnotateIt/rfdetr-small-coco-onnx", "model.onnx"), "RF-DETR", 512, 53.0,
          "Apache-2.0", "850b7a24b573064f98f41605e4e400421420edf9b377e1704fa2079589cc3479"),
    Entry("yolox-nano", f"{_YOLOX}yolox_nano.onnx", "YOLOX", 416, 25.8, "Apache-2.0"),
    Entry("yolox-tiny", f"{_YOLOX}yolox_tiny.onnx", "YOLOX", 416, 32.8, "Apache-2.0"),
    Entry("yolox-s", f"{_YOLOX}yolox_s.onnx", "YOLOX", 640, 40.5, "Apache-2.0"),
    Entry("yolox-m", f"{_YOLOX}yolox_m.onnx", "YOLOX", 640, 47.2, "Apache-2.0"),
    Entry("yolox-l", f"{_YOLOX}yolox_l.onnx", "YOLOX", 640, 50.1, "Apache-2.0"),
    Entry("yolox-x", f"{_YOLOX}yolox_x.onnx", "YOLOX", 640, 51.5, "Apache-2.0"),
)  # fmt: skip


_OF_THE_DISK = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
)


def entry_of(name: str) -> Entry | None:
    """Return the entry of that name, if there is one."""
    return next((entry for entry in ENTRIES if entry.name == name), None)


def file_of(entry: Entry, folder: Path | None = None) -> Path:
    """Return the detector's file, fetching it the first time; one that is there is compared with its checksum.

    Args:
        entry: one of `ENTRIES`.
        folder: where fetched files lie (default: `models` in the cache folder).

    Raises:
        DetectorError: it cannot be fetched, or is not the file it was.
    """
    folder = folder or cache_root() / "models"
    path = folder / f"{entry.name}.onnx"
    try:
        if path.is_file():
            _check(entry, sha256(path), folder, f"{path} is not the file that was fetched", _again(path))
            return path
    except OSError as error:
        raise DetectorError(f"detector {entry.name}: {path} cannot be read ({error.strerror or error})") from error
    advice = f"try again, or give a file you trust with --detector PATH.onnx or {FILE_VARIABLE}=PATH.onnx"
    try:
        with replaced(path) as beside:
            digest = _download(entry, beside)
            _check(entry, digest, folder, f"{entry.url} is not the file it should be", advice)
    except (OSError, http.client.HTTPException) as error:  # urllib's own errors are OSErrors
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise DetectorError(
                f"detector {entry.name}: cannot be kept in {folder} ({error.strerror}); set WHICHCAR_CACHE to a folder "
                f"with room that can be written, or give a file with --detector PATH.onnx or {FILE_VARIABLE}=PATH.onnx"
            ) from error
        raise DetectorError(
            f"detector {entry.name}: {entry.url} cannot be fetched ({_reason(error)}); fetch it elsewhere and give the "
            f"file with --detector PATH.onnx or {FILE_VARIABLE}=PATH.onnx"
        ) from error
    return path


def _again(path: Path) -> str:
    return f"it is damaged or was replaced: remove it, and it is fetched again: {shell_command(['rm', path])}"


def _download(entry: Entry, target: Path) -> str:
    """Write the file and return its SHA-256."""
    request = urllib.request.Request(entry.url, headers={"User-Agent": "whichcar"})
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer, target.open("wb") as file:
        size = int(answer.headers.get("Content-Length") or 0)
        _copy(answer, file, f"fetching {entry.name}", size)
    if size and target.stat().st_size != size:
        raise OSError(f"the connection ended after {target.stat().st_size} of {size} bytes")
    return sha256(target)


def _copy(source: IO[bytes], target: IO[bytes], label: str, size: int) -> None:
    with Bar(label, size // 1000 or None, "kB") as bar:
        while block := source.read(_CHUNK):
            target.write(block)
            bar.update(len(block) // 1000)


def _check(entry: Entry, digest: str, folder: Path, wrong: str, advice: str) -> None:
    """Compare with the known checksum, or with that of the first time, which is recorded."""
    record = folder / CHECKSUMS
    seen = read_json(record) if record.is_file() else {}
    known = entry.sha256 or seen.get(entry.url)
    if known not in (None, digest):
        raise DetectorError(
            f"detector {entry.name}: {wrong} (SHA-256 {digest[:16]}..., expected {str(known)[:16]}...); {advice}"
        )
    if known is None and os.access(folder, os.W_OK):  # a folder of others may hold files that were put there
        write_json(record, seen | {entry.url: digest})


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it holds the connection
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
