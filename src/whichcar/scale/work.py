"""The work of a worker: it reads a part, predicts, crops or scans its images, and writes the result."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whichcar.config.crop import crop_settings
from whichcar.data import boxes
from whichcar.data.check.quality import measure
from whichcar.data.duplicates.scan import scan_file, state_of, to_row
from whichcar.detection.crop_images import CropImages, Cropped, skipped
from whichcar.detection.cropper import Cropper
from whichcar.errors import CheckpointError, ClusterError, WhichcarError
from whichcar.images.inputs import Given
from whichcar.ray_cluster import own_cores
from whichcar.records import NUMBER_COLUMN, NoVehicle, Prediction, Skipped
from whichcar.scale.manifest import NAME as MANIFEST
from whichcar.scale.parquet import content_of, schema_of
from whichcar.scale.parts import DamagedShardError, Item, Part, items_of
from whichcar.scale.storage import Storage, temporary_file
from whichcar.text import one_line
from whichcar.version import VERSION

_WHOLE_NUMBERS = ("left", "top", "right", "bottom", "candidates", NUMBER_COLUMN)
TABLES = ".boxes"
SCAN_COLUMNS = {  # per image: its path as bytes, the state of the file (`state_of`), and the scan (`to_row`)
    "path": "binary",
    **dict.fromkeys(("size", "modified", "changed"), "int64"),
    "checksum": "binary",
    "problem": "string",
    "truncated": "bool",
    **dict.fromkeys(("format", "mode"), "string"),
    **dict.fromkeys(("width", "height", "orientation"), "int64"),
    "animated": "bool",
    **dict.fromkeys(("hash", "mirrored"), "int64"),
    **dict.fromkeys(("thumbnail", "measures"), "binary"),
}
TRIES = 4  # starts of a part whose workers die, before the part is blamed


@dataclass(frozen=True, slots=True)
class Job:
    """The stage that all workers run, its source and target, and its settings, as JSON values."""

    stage: str
    source: Storage
    target: Storage
    settings: Mapping[str, Any]
    variables: Mapping[str, str]
    version: str = VERSION


@dataclass(slots=True)
class Counts:
    """The result of a part: its images, the unusable ones among them, and what is wrong with the part, if anything.

    `damaged` is why a shard could not be read to its end: the part must be run again. `error` ends the whole run.
    """

    part: str
    images: int = 0
    unusable: int = 0
    damaged: str = ""
    error: str = ""


Work = Callable[[Part, Counts], None]


class Worker:
    """Runs parts of a job on one processor, in a process of its own on any machine.

    Args:
        job: what to do.
        begin: counts the starts of a part and returns their number; all earlier starts ended with their worker.
    """

    def __init__(self, job: Job, begin: Callable[[str], int]) -> None:
        """Load what the stage needs; an error is reported with the first part."""
        self._begin, self._source = begin, job.source
        os.environ.update({name: value for name, value in job.variables.items() if name not in os.environ})
        self._cores = contextlib.ExitStack()
        cores = self._cores.enter_context(own_cores(1))
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        self._error = ""
        try:
            if job.version != VERSION:
                raise ClusterError(f"has whichcar {VERSION}, not {job.version}; install the same on every machine")
            _check_seen(job, job.source, ".")
            _check_seen(job, job.target, MANIFEST)
            self._work: Work = STAGES[job.stage](job)
        except WhichcarError as error:
            self._error = f"node {socket.gethostname()}: {error}"

    def __call__(self, row: Mapping[str, str]) -> dict[str, str]:
        """Run the part that is `row["part"]` as JSON, and return its counts as JSON."""
        content = json.loads(row["part"])
        part = Part(content["name"], tuple(content["files"]))
        error = self._error or self._deadly(part)
        counts = Counts(part.name, error=error) if error else counts_of(self._work, part)
        return {"counts": json.dumps(asdict(counts))}

    def _deadly(self, part: Part) -> str:
        """Return an error for a part that several workers have died on; empty for other parts."""
        if self._begin(part.name) <= TRIES:
            return ""
        first, others = self._source.shown(self._source.address(part.files[0])), len(part.files) - 1
        after = f" or one of the {others} images after it" if others else ""
        return f"{first}{after}: {TRIES} workers died on it, as when memory is used up; leave it out or repair it"


def _check_seen(job: Job, storage: Storage, name: str) -> None:
    if not storage.is_remote and not Path(storage.address(name)).exists():
        bucket = "" if job.stage == "scan" else ", or a bucket"
        raise ClusterError(f"does not see {storage.place}; all nodes need the same disk for it{bucket}")


def counts_of(work: Work, part: Part) -> Counts:
    """Run a part and return its counts."""
    counts = Counts(part.name)
    try:
        work(part, counts)
    except WhichcarError as error:
        counts.error = str(error)
    return counts


def predicting(job: Job) -> Work:
    """Return a function that classifies the images of a part and writes their rows to `PART.parquet`.

    Settings: `model`, `blake2b` (of its file), `crop`, `detector`, `family`, as for `Classifier`; `top`, `confidence`,
    `vehicles`, as for `Classifier.predict`; `columns`, the names of the columns.

    Raises:
        CheckpointError: this node does not have the model, or has another file of that name.
        MissingExtraError: PyArrow is not installed.
    """
    from whichcar.inference.classifier import Classifier

    settings = job.settings
    schema = schema_of({name: _type_of(name) for name in settings["columns"]})
    classifier = Classifier(settings["model"], settings["crop"], settings["detector"], settings["family"])
    if classifier.checksum != settings["blake2b"]:
        raise CheckpointError(f"{classifier.checkpoint}: is another file than on the machine that began the run")

    def work(part: Part, counts: Counts) -> None:
        rows = []
        images = _counted(items_of(job.source, part), counts)
        given = (item.image for item in images if item.image is not None)
        for row in classifier.stream(given, settings["top"], None, settings["confidence"], settings["vehicles"]):
            counts.unusable += not isinstance(row, Prediction | NoVehicle)
            rows.append({**row.as_row(), "path": job.source.shown(str(row.as_row()["path"]))})
        if counts.damaged:
            path = job.source.shown(job.source.address(part.files[0]))
            rows.append(Skipped(path, counts.damaged).as_row())
        job.target.write(f"{part.name}.parquet", content_of(rows, schema))

    return work


def _type_of(column: str) -> str:
    if column in _WHOLE_NUMBERS:
        return "int64"
    is_share = column.startswith("probability") or column in ("answer_probability", "vehicle_score")
    return "float64" if is_share else "string"


def cropping(job: Job) -> Work:
    """Return a function that crops the images of a part to files of the same names, or a shard to a shard.

    The rows are written to `.boxes/PART.csv`, as in boxes.csv but without a header. `.boxes/PART.json` lists the files
    of the part and is written first. Settings: the fields of `CropSettings`.

    Raises:
        DetectorError: this node does not have the detector.
    """
    cropper = Cropper(crop_settings(**job.settings), threads=1)
    _ = cropper.detector  # so that its errors show now
    images = CropImages(cropper)

    def cropped(items: Iterator[Item]) -> Iterator[tuple[Item, Cropped | None]]:
        for item in items:
            if isinstance(item.image, Given):
                yield item, images.work([(item.name, item.image)])[0]
            else:
                yield item, None if item.image is None else skipped(item.name, item.image.reason)

    def work(part: Part, counts: Counts) -> None:
        # Written first, so that a later run knows what may be here, even if this part is not finished.
        job.target.write(f"{TABLES}/{part.name}.json", json.dumps(part.files).encode())
        lines = []
        results = cropped(_counted(items_of(job.source, part), counts))
        for row in _into_shard(job, part, results) if part.is_shard else _into_files(job, results):
            counts.unusable += row.kind == "skipped"
            lines.append(boxes.line(row))
        if counts.damaged:
            lines.append(boxes.line(skipped(part.files[0], counts.damaged).row))
        job.target.write(f"{TABLES}/{part.name}.csv", "".join(lines).encode("utf-8", "surrogateescape"))

    return work


def _into_files(job: Job, results: Iterator[tuple[Item, Cropped | None]]) -> Iterator[Any]:
    for item, result in results:
        if result is None:
            continue
        if result.content is None:
            job.target.remove(item.name)
        else:
            job.target.write(item.name, result.content)
        yield result.row


def _into_shard(job: Job, part: Part, results: Iterator[tuple[Item, Cropped | None]]) -> Iterator[Any]:
    """Write a shard with the crops and the unchanged other members, such as labels; yield the rows of the crops."""
    shard = part.files[0]
    with temporary_file() as file:
        with tarfile.open(fileobj=file, mode="w|") as tar:
            for item, result in results:
                content = item.content if result is None else result.content
                if result is not None:
                    yield result.row
                if content is not None:
                    member = tarfile.TarInfo(item.name.removeprefix(f"{shard}/"))  # with a fixed date
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        file.flush()
        job.target.write(shard, Path(file.name))


def scanning(job: Job) -> Work:
    """Return a function that scans the image files of a part and writes their `SCAN_COLUMNS` to `PART.parquet`.

    Raises:
        MissingExtraError: cleanvision or PyArrow is not installed.
    """
    schema = schema_of(SCAN_COLUMNS)
    measure(np.zeros((32, 32, 3), np.uint8))  # so that its errors show now

    def work(part: Part, counts: Counts) -> None:
        rows = []
        for name in part.files:
            path = Path(job.source.address(name))
            state = state_of(path) or [None] * 3
            scan = scan_file(path, measure)
            counts.images += 1
            counts.unusable += bool(scan.problem)
            rows.append(dict(zip(SCAN_COLUMNS, (os.fsencode(name), *state, *to_row(scan)), strict=True)))
        job.target.write(f"{part.name}.parquet", content_of(rows, schema))

    return work


def _counted(items: Iterator[Item], counts: Counts) -> Iterator[Item]:
    """Yield the items and count the images; a damaged shard ends them and is noted in `counts`."""
    try:
        for item in items:
            counts.images += item.image is not None
            yield item
    except DamagedShardError as error:
        counts.damaged = one_line(error)


STAGES: dict[str, Callable[[Job], Work]] = {"predict": predicting, "crop": cropping, "scan": scanning}
