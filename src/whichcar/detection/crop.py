"""The crop stage: crop every image of a tree to its vehicle, under the same path in another tree.

Each worker takes an image through all steps (read, detect, crop, encode, write), so that decoding, detection and
encoding overlap on all CPU cores, and only a few images are in memory at once.

OUTPUT/crop.json holds the settings and the detector; it is written first, with `"finished": false`. OUTPUT/.crop/ holds
unfinished work: rows of boxes.csv as they come, and partly written images. In the end, only a lock is left there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from whichcar import files, text
from whichcar.config.crop import CropSettings, crop_settings
from whichcar.data import boxes
from whichcar.data.boxes import BoxTable
from whichcar.data.split_record import records_in
from whichcar.data.structure import check_cropped, cropped_above
from whichcar.detection import zoo
from whichcar.detection.crop_images import CropImages
from whichcar.detection.cropper import Cropper
from whichcar.detection.detection import Detector, find_detector
from whichcar.detection.onnx import OnnxDetector
from whichcar.errors import DataError
from whichcar.images.inputs import image_at
from whichcar.parallel import Done, ordered_map, usable_cores
from whichcar.records import Crop

log = logging.getLogger(__name__)

RECORD = files.CROP_RECORD
_WORK = ".crop"


def crop(
    source: str | Path,
    output: str | Path,
    *,
    redo: bool = False,
    batch_size: int = 1,
    workers: int | None = None,
    detector: str | Path | Detector | None = None,
    **settings: Any,  # noqa: ANN401  (checked by crop_settings)
) -> Iterator[Crop]:
    """Crop every image under `source` to its vehicle and write it under the same path in `output`.

    Images are processed as the rows are consumed: `for row in crop("v1", "v2"): ...`, or `list(crop("v1", "v2"))`.
    An interrupted call is resumed by the next one, with the same resulting files; rows of finished images are repeated.

    Args:
        source: any tree of images, such as `train/CLASS/a.jpg`; hidden files are ignored.
        output: a new or empty folder, or one that an earlier call wrote with the same settings.
        redo: crop every image again, even if the settings changed.
        batch_size: detector batch size; more than 1 is faster only on a GPU.
        workers: threads (default: the CPU cores this process may use).
        detector: a name or a file as for `find_detector`, or any object that implements `Detector`.
        **settings: other fields of `CropSettings`, such as `margin=0.05`.

    Yields:
        One record per image, including those left whole or skipped, with the reason.

    Raises:
        ConfigError: a setting is unknown or outside its limits.
        DataError: no images, a damaged or unfinished split.json, a foreign output folder, changed settings, an image
            without a vehicle with `missing="fail"`, or the disk is full.
        DetectorError: the detector cannot be loaded.
    """
    custom = None
    if detector is None or isinstance(detector, str | Path):
        settings["detector"] = None if detector is None else str(detector)
    else:
        custom = detector
    stage = _Stage(Path(source), Path(output), crop_settings(**settings), workers, custom)
    stage.check(redo)
    return stage.run(redo, max(1, batch_size))


def count_images(source: str | Path) -> int:
    """Return the number of images that `crop` will process.

    Raises:
        DataError: the folder is missing, or has no images.
    """
    source = Path(source)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; give a folder of images")
    count = sum(1 for _ in files.walk_images(source))
    if not count:
        raise DataError(f"{source}: {files.NO_IMAGES}")
    return count


def record_of(settings: CropSettings, custom: Detector | None = None) -> dict[str, Any]:
    """Return settings and detector as crop.json holds them; a detector file is recorded with its absolute path.

    Args:
        settings: settings of the crop stage.
        custom: the detector, if it is an object rather than named in the settings.

    Raises:
        DetectorError: there is no such detector, or it cannot be downloaded.
    """
    content = settings.as_json()
    if custom is not None:
        return {"settings": content, "detector": {"name": custom.name, "sha256": None}}
    source = find_detector(settings.detector)
    own = source.file is not None and zoo.entry_of(source.name) is None
    content["detector"] = str(source.file.resolve()) if own and source.file else source.name
    return {"settings": content, "detector": {"name": source.name, "sha256": source.sha256}}


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return how the images of a folder were cropped; None if `whichcar crop` did not write it or a parent of it.

    Returns:
        `settings` (of `CropSettings`) and `detector` (`name` and `sha256` of its file, null if it has none).

    Raises:
        DataError: the crop stage was interrupted there, or its record is damaged.
    """
    check_cropped(folder)
    above = cropped_above(folder)
    record = None if above is None else _content(above)
    return record and {"settings": record["settings"], "detector": record["detector"]}


def _content(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        content = files.read_json(path, {"finished": bool, "detector": dict})
        crop_settings(**content["settings"])
        _ = content["finished"], content["detector"]["name"], content["detector"]["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is not what `whichcar crop` wrote; crop again with --redo") from error
    return content


class _Stage:
    """One run of the stage."""

    def __init__(
        self, source: Path, output: Path, settings: CropSettings, workers: int | None, detector: Detector | None
    ) -> None:
        count_images(source)
        inner, outer = output.resolve(), source.resolve()
        if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise DataError(f"{output}: is inside {source}, or contains it; give a folder next to it")
        if unopened := sum(map(files.is_unopened, files.walk(source))):
            log.warning("%s", files.not_opened(source, unopened))
        self.source, self.output, self.settings = source, output, settings
        # Copied to the output, so that the same images are held out for validation; errors are raised before any work.
        self.splits = records_in(source, (folder.name for folder in files.folders(source)), self._content)
        self.workers = max(1, workers or usable_cores())
        self.cropper = Cropper(settings, threads=1 if self.workers > 1 else None, detector=detector)
        self.crop_images = CropImages(self.cropper)
        self.custom = detector
        self.record: dict[str, Any] = {}

    def check(self, redo: bool) -> None:
        """Check that the output folder is empty or has these settings, then load the detector; write nothing."""
        entries = {entry.name for entry in self.output.iterdir()} if self.output.is_dir() else set()
        if entries and not entries & {RECORD, _WORK}:
            raise DataError(f"{self.output}: contains files that `whichcar crop` did not write; give an empty folder")
        self.record = record_of(self.settings, self.custom)
        before = None if redo else _content(self.output)
        if not redo and before is None and any(path.is_file() for path in self._tables()):
            raise DataError(
                f"{self.output}: has crops but no {RECORD}, so their settings are unknown; crop again with --redo"
            )
        if before is not None:
            source = str(before.get("source", ""))
            moved = not os.path.isdir(source)  # noqa: PTH112  (also a folder that may no longer be read)
            if not moved and not Path(source).samefile(self.source):
                raise self._changed("input", source, self.source)
            for key in self.record["settings"].keys() - {"detector"}:
                if before["settings"].get(key) != self.record["settings"][key]:
                    raise self._changed(key, before["settings"].get(key), self.record["settings"][key])
            old, new = before["detector"], self.record["detector"]
            if (old["sha256"] or old["name"]) != (new["sha256"] or new["name"]):
                raise self._changed("detector", old["name"], new["name"])
        if isinstance(self.cropper.detector, OnnxDetector):  # errors are reported before any work
            self.record["detector"]["read_as"] = self.cropper.detector.read_as

    def run(self, redo: bool, batch_size: int) -> Iterator[Crop]:
        try:
            with self._exclusive():
                self._open(redo)
                with BoxTable(*self._tables()) as table:
                    yield from self._rows(table, batch_size)
                    self._remove(table.finish(files.walk_images(self.source)))
                self._describe(finished=True)
                self._tidy()
        except OSError as error:
            if files.is_disk_full(error):
                raise DataError(
                    f"{self.output}: the disk is full; finished images are kept: free some space and run it again"
                ) from error
            where = self.output if _WORK in str(error.filename) else error.filename or self.output
            raise DataError(f"{where}: {error.strerror or error}; fix that and run it again") from error

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        try:
            with files.locked(self.output / _WORK / "lock"):
                yield
        except BlockingIOError as error:
            raise DataError(f"{self.output}: another process is writing to it; wait for it or stop it") from error

    def _open(self, redo: bool) -> None:
        """Record the settings of this run; with `redo`, delete the output of earlier runs."""
        if redo:
            with contextlib.suppress(DataError):  # damaged
                if before := _content(self.output):  # stopped while it deletes, the folder is not complete
                    files.write_json(self.output / RECORD, before | {"finished": False})
            for table in self._tables():
                if table.is_file():
                    with contextlib.suppress(DataError):  # damaged
                        for row in boxes.read_boxes(table):
                            self._delete(row.path)
                    table.unlink()
        self._describe(finished=False)
        for name, content in self.splits.items():
            files.write_text(self.output / name, content.decode("utf-8"))

    def _tables(self) -> tuple[Path, Path]:
        """Return the tables of boxes of a finished and of an unfinished run."""
        return self.output / boxes.FILE, self.output / _WORK / boxes.FILE

    def _content(self, name: str) -> bytes | None:
        """Return the content of a file in the input; None if there is none."""
        path = self.source / name
        return path.read_bytes() if path.exists() else None

    def _remove(self, removed: Sequence[str]) -> None:
        """Delete the crops of images no longer in the input, which would otherwise be trained on."""
        for path in removed:
            self._delete(path)
        if removed:
            count = text.plural(len(removed), "image")
            log.warning(
                "%s: removed the crops of %s no longer in the input, such as %r", self.output, count, removed[0]
            )

    def _delete(self, path: str) -> None:
        """Delete a crop, and its folder if that is then empty; not while workers may be writing to it."""
        (self.output / path).unlink(missing_ok=True)
        files.remove_empty((self.output / path).parent)

    def _tidy(self) -> None:
        """Delete unfinished work; the lock stays, since another process may be waiting for it."""
        for entry in (self.output / _WORK).iterdir():
            if entry.name != "lock":
                entry.unlink()

    def _changed(self, key: str, before: object, now: object) -> DataError:
        return DataError(
            f"{self.output}: was cropped with {key} {_or_none(before)}, now it is {_or_none(now)}; give the same, "
            "another folder, or --redo to crop everything again"
        )

    def _describe(self, finished: bool) -> None:
        source = str(self.source.absolute())
        files.write_json(self.output / RECORD, {"finished": finished, "source": source, **self.record})

    def _rows(self, table: BoxTable, batch_size: int) -> Iterator[Crop]:
        """Yield the rows of finished images and, as they come, those of the others."""
        for rows in ordered_map(self._work, self._batches(table, batch_size), self.workers):
            yield from [rows] if isinstance(rows, Crop) else table.add(rows)

    def _batches(self, table: BoxTable, batch_size: int) -> Iterator[Done[Crop] | list[str]]:
        """Yield the row of each image that is done, and the paths of the others in batches."""
        batch: list[str] = []
        for path in files.walk_images(self.source):
            if done := table.done(path, self.source / path, self.output / path):
                yield Done(done)
                continue
            batch.append(path)
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _work(self, paths: Sequence[str]) -> list[Crop]:
        """Crop a batch of images; write each crop, or delete an earlier one if the image is now left out."""
        images = [(path, image_at(self.source / path)) for path in paths]
        rows = []
        for row, content in self.crop_images.work(images):
            if content is None:
                (self.output / row.path).unlink(missing_ok=True)
            else:
                self._write(row.path, content)
            rows.append(row)
        return rows

    def _write(self, path: str, content: bytes) -> None:
        """Write a crop atomically."""
        target = self.output / path
        tmp = self.output / _WORK / f"{threading.get_ident()}{target.suffix}"
        tmp.write_bytes(content)
        target.parent.mkdir(parents=True, exist_ok=True)
        tmp.replace(target)


def _or_none(value: object) -> object:
    return "not given" if value is None else value
