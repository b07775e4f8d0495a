"""The settings of a server, and the records that its processes exchange."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from whichcar.images.pixels import Pixels
from whichcar.inference.input_crop import Vehicles

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of a server; `whichcar serve` has an option for those that depend on the machine or the network.

    `queue` limits the images that wait, over all requests. A worker thread takes up to `batch_size` of them and waits
    `batch_wait` seconds for more. `timeout` is the longest time in seconds from a request's first byte to its answer.
    A worker that has not answered a batch after `hang_timeout` seconds is replaced. `max_bytes` limits the size of a
    request, `max_buffered` the total size of all requests in memory. `rate` is how many images each token, or each
    address if there are no tokens, may send in a minute (None: any number).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    batch_size: int = 1
    batch_wait: float = 0.0
    queue: int = 128
    timeout: float = 20.0
    hang_timeout: float = 60.0
    max_bytes: int = 32 * MEGABYTE
    max_buffered: int = 512 * MEGABYTE
    max_pixels: int = 50_000_000
    max_images: int = 32
    tokens: Path | None = None
    rate: int | None = None
    reload_model: bool = False


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """The settings that a worker process is started with: the model file, and whether and how images are cropped."""

    model: str
    crop: bool | None
    detector: str | None
    family: str | None
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Job:
    """One image to classify: the content of its file, or its pixels at the network's input size, (h, w, 3) uint8.

    The row for pixels has all probabilities. The row for a file has the `top` best classes, or with `vehicles` the best
    classes of each vehicle; `explain` adds where the network sees them.
    """

    name: str
    content: bytes | Pixels
    top: int = 5
    confidence: float | None = None
    vehicles: Vehicles | None = None
    explain: bool = False
