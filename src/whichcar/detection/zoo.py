"""The named detectors: one is part of this package, the others are downloaded on first use."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from whichcar.environment import cache_root
from whichcar.errors import DetectorError
from whichcar.files import sha256
from whichcar.progress import Bar
from whichcar.text import reason_of

DEFAULT = "yolox-nano"
MORE_ACCURATE = "dfine-n"
FILE_VARIABLE = "WHICHCAR_DETECTOR"
_PACKAGED = Path(__file__).with_name("yolox_nano.onnx")
_YOLOX = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/"
_HUB = "https://huggingface.co/{}/resolve/{}/{}"
_SECONDS = 30  # without receiving a byte
_CHUNK = 250_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A named detector.

    `url`: address of its file; None: it is part of this package. `side`: of its square input, in pixels.
    `average_precision`: on COCO val2017, as reported by its authors. `sha256`: checked each time the file is used.
    """

    name: str
    url: str | None
    family: str
    side: int
    average_precision: float
    licence: str
    sha256: str


# YOLOX publishes ONNX files; the one in this package is another export of its YOLOX-nano. D-FINE (Peng et al. 2024) and
# RF-DETR publish weights only: these are conversions by others. Ultralytics' models are left out: they are AGPL.
ENTRIES = (
    Entry("yolox-nano", None, "YOLOX", 416, 25.8, "Apache-2.0",
          "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14"),
    Entry("yolox-tiny", f"{_YOLOX}yolox_tiny.onnx", "YOLOX", 416, 32.8, "Apache-2.0",
          "427cc366d34e27ff7a03e2899b5e3671425c262ea2291f88bb942bc1cc70b0f7"),
    Entry("yolox-s", f"{_YOLOX}yolox_s.onnx", "YOLOX", 640, 40.5, "Apache-2.0",
          "c5c2d13e59ae883e6af3b45daea64af4833a4951c92d116ec270d9ddbe998063"),
    Entry("yolox-m", f"{_YOLOX}yolox_m.onnx", "YOLOX", 640, 47.2, "Apache-2.0",
          "21ff6cfdeb53b013bac2249599e55f00bff3cfdfdab37ed7a4620818c1d15b3f"),
    Entry("yolox-l", f"{_YOLOX}yolox_l.onnx", "YOLOX", 640, 50.1, "Apache-2.0",
          "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411"),
    Entry("yolox-x", f"{_YOLOX}yolox_x.onnx", "YOLOX", 640, 51.5, "Apache-2.0",
          "c892d7aaf1c4746d8a4d675bec669a4db4f434b4ee1efb654bc9b353379c7c55"),
    Entry("dfine-n", _HUB.format("AnnotateIt/dfine-nano-coco-onnx", "main", "model.onnx"), "D-FINE", 640, 42.8,
          "Apache-2.0", "b0ec2e5793f3a3cbd07440d098645a0e102cd450fb92f4f35e713f36e35d152e"),
    Entry("dfine-s", _HUB.format("onnx-community/dfine_s_coco-ONNX", "a3cf03147a9b86c78475139115c8ac142577352d",
                                 "onnx/model.onnx"), "D-FINE", 640, 48.5,
          "Apache-2.0", "cd8a49a945feda6d28c6304ae8ae85c2759ba1d78a5a83a22c5ce8db82ef7238"),
    Entry("dfine-m", _HUB.format("onnx-community/dfine_m_coco-ONNX", "489756db2825cb068a588fe930af239a656d1fe1",
                                 "onnx/model.onnx"), "D-FINE", 640, 52.3,
          "Apache-2.0", "70aaa837978a06ba44ad17398c7079ae5a1a7b1a9032b5d7053981e1ada02d6b"),
    Entry("rf-detr-nano", _HUB.format("AnnotateIt/rfdetr-nano-coco-onnx", "main", "model.onnx"), "RF-DETR", 384, 48.4,
          "Apache-2.0", "d5082b3a93eba673cf71763842be73fb852ab79962dfb303bbf0012ab8805059"),
    Entry("rf-detr-small", _HUB.format("AnnotateIt/rfdetr-small-coco-onnx", "main", "model.onnx"), "RF-DETR", 512, 53.0,
          "Apache-2.0", "850b7a24b573064f98f41605e4e400421420edf9b377e1704fa2079589cc3479"),
)  # fmt: skip


def entry_of(name: str) -> Entry | None:
    """Return the entry with this name, if any."""
    return next((entry for entry in ENTRIES if entry.name == name), None)


def file_of(entry: Entry, folder: Path | None = None) -> Path:
    """Return the detector's file after checking its checksum; download it if it is missing or damaged.

    Args:
        entry: one of `ENTRIES`.
        folder: folder of downloaded files (default: `models` in the cache folder).

    Raises:
        DetectorError: it cannot be downloaded or stored, or its checksum does not match.
    """
    if entry.url is None:
        if not _PACKAGED.is_file() or sha256(_PACKAGED) != entry.sha256:
            raise DetectorError(f"detector {entry.name}: {_PACKAGED} is missing or damaged; install whichcar again")
        return _PACKAGED
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    folder = folder or cache_root() / "models"
    instead = f"give a file with --detector PATH.onnx or {FILE_VARIABLE}=PATH.onnx"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            downloader = pooch.HTTPDownloader(
                progressbar=_Progress(f"downloading {entry.name}", stack),
                chunk_size=_CHUNK,
                timeout=_SECONDS,
                headers={"User-Agent": "whichcar"},
            )
            name = f"{entry.name}.onnx"
            return Path(pooch.retrieve(entry.url, f"sha256:{entry.sha256}", name, folder, downloader=downloader))
    except ValueError as error:
        raise DetectorError(
            f"detector {entry.name}: {entry.url} is not the file it should be (its SHA-256 is not "
            f"{entry.sha256[:16]}...); try again, or {instead}"
        ) from error
    except requests.RequestException as error:
        raise DetectorError(
            f"detector {entry.name}: {entry.url} cannot be downloaded ({_reason(error)}); download it elsewhere and "
            f"{instead}"
        ) from error
    except OSError as error:
        raise DetectorError(
            f"detector {entry.name}: cannot be stored in {folder} ({reason_of(error)}); set WHICHCAR_CACHE to a folder "
            f"with space that can be written, or {instead}"
        ) from error


class _Progress:
    """The progress bar that pooch updates with the bytes received; shown until `stack` is closed."""

    total = 0

    def __init__(self, label: str, stack: ExitStack) -> None:
        self._label, self._stack = label, stack
        self._bar: Bar | None = None

    def update(self, size: int) -> None:
        if self._bar is None:
            self._bar = self._stack.enter_context(Bar(self._label, self.total // 1000 or None, "kB"))
        self._bar.update(size // 1000)

    def reset(self) -> None:  # pooch counts the last chunk as full, resets, then passes the total
        if self._bar is not None:
            self._bar.done = 0

    def close(self) -> None: ...


def _reason(error: BaseException) -> str:
    """Return the innermost cause of an error from requests, in words."""
    if (response := getattr(error, "response", None)) is not None:
        response.close()  # releases the connection
        return f"HTTP {response.status_code} {response.reason}"
    while error.__context__ is not None:
        error = error.__context__
    return reason_of(error) if isinstance(error, Exception) else str(error)
