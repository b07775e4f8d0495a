"""Predict the classes of a labelled folder, or of the files, folders, addresses and lists given to the command."""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from whichcar.errors import DataError
from whichcar.files import NO_IMAGES, csv_line, images
from whichcar.images.inputs import Sources, each
from whichcar.inference.classifier import Classifier
from whichcar.inference.input_crop import Vehicles
from whichcar.inference.runtimes import KerasRuntime
from whichcar.inference.stream import stream
from whichcar.records import (
    ANSWER_COLUMNS,
    CROP_COLUMNS,
    NUMBER_COLUMN,
    Crop,
    NoVehicle,
    Prediction,
    Skipped,
    class_columns,
)
from whichcar.text import as_text, one_line, plural

log = logging.getLogger(__name__)

Form = Literal["table", "json", "csv"]


def predict_from_folder(
    folder: str | Path,
    model: Any,  # noqa: ANN401  (any Keras model)
    input_size: int | tuple[int, int] | Sequence[int],
    class_names: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Predict the class of every image under `folder`.

    Args:
        folder: contains one folder per class; images are processed in the sorted order of their paths.
        model: a Keras model from (n, height, width, 3) RGB, 0..255, to (n, classes).
        input_size: height and width, or one number for both. Images are resized to it, never cropped.
        class_names: one name for each of the model's outputs, in their order.

    Returns:
        Two lists of equal length: the predicted classes, and the names of the folders that contain the images. An
        unreadable image is in neither list; it is logged as a warning.

    Raises:
        DataError: the folder is missing, or holds no readable image.
        CheckpointError: the model has a different number of outputs than there are class names.
    """
    folder = Path(folder)
    size = (input_size, input_size) if isinstance(input_size, int) else (int(input_size[0]), int(input_size[1]))
    predictions: list[str] = []
    labels: list[str] = []
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one that holds images")
    paths = images(folder)
    if not paths:
        raise DataError(f"{folder}: {NO_IMAGES}")
    for path, item in zip(paths, stream(KerasRuntime(model, len(class_names)), each(paths), size), strict=True):
        if isinstance(item, Skipped):
            log.warning("%s: left out: %s", path, item.reason)
            continue
        predictions.append(class_names[int(item.probabilities.argmax())])
        labels.append(path.parent.name)
    if not predictions:
        raise DataError(f"{folder}: not one image in it could be read; see the warnings above")
    return predictions, labels


def predict(
    model: str | Path | None,
    images: Sources,
    top: int = 5,
    batch_size: int | None = None,
    crop: bool | None = None,
    detector: str | Path | None = None,
    family: str | None = None,
    confidence: float | None = None,
    vehicles: Vehicles | None = None,
) -> list[Prediction | Skipped]:
    """Return one row per image, in order, even for a single image: its `top` best classes, or why it is unreadable.

    This is `Classifier.predict`; to use the same model again, keep a `Classifier`.

    Args:
        model: an experiment's folder, a checkpoint file, a bundle, the name of a model in the package, or None for the
            package's `cars196`; as for `Classifier`.
        images: a path, a folder, an http(s) address, a PIL image or an array, or any iterable of these.
        crop, detector, family: as for `Classifier`.
        top, batch_size, confidence, vehicles: as for `Classifier.predict`.

    Raises:
        CheckpointError, ConfigError, DataError, DetectorError: as for `Classifier` and its `predict`.

    Example:
        >>> predict("experiments/exp_003", "car.jpg")[0].best
        >>> pandas.DataFrame([row.as_row() for row in predict("experiments/exp_003", "images/")])
    """
    crop = True if crop is None and vehicles is not None else crop
    return Classifier(model, crop, detector, family).predict(images, top, batch_size, confidence, vehicles)


def one_usable(rows: Iterable[Prediction | Skipped], unusable: int = 0) -> Iterator[Prediction | Skipped]:
    """Yield the rows; `unusable` others came before them.

    Raises:
        DataError: at the end, if there was no row at all, or none of a readable image.
    """
    seen, usable = unusable, 0
    for row in rows:
        seen += 1
        usable += isinstance(row, Prediction | NoVehicle)
        yield row
    if not usable:
        found = f"none of {plural(seen, 'path')} could be used" if seen else "no image was given"
        raise DataError(f"predict: {found}; name image files, folders with images, or - for a list of paths")


def names_of(arguments: Iterable[str], listing: IO[bytes] | None) -> Iterator[str]:
    """Yield the arguments, with `-` replaced by the non-empty lines of a list, as they come.

    Args:
        arguments: command-line arguments.
        listing: standard input, one path or address per line, in the encoding of file names (any bytes on Linux), with
            or without a byte order mark; None if it is closed.

    Raises:
        DataError: `-` is given, but standard input is closed, UTF-16 or not text, such as an image.
    """
    for argument in arguments:
        if argument != "-":
            yield argument
        elif listing is None:
            raise DataError("-: standard input is closed; give the paths as arguments, or pipe a list into the command")
        else:
            yield from _listed(listing)


def _listed(listing: IO[bytes]) -> Iterator[str]:
    # The first line of an image may look like a name, so check more of the beginning.
    beginning = listing.peek(1)[:1024] if isinstance(listing, io.BufferedReader) else b""
    for number, line in enumerate(listing):
        if number == 0 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError("-: the list on standard input is UTF-16; save it as UTF-8")
        if b"\0" in beginning + line:
            raise DataError(
                "-: standard input is no text, such as an image; - reads a list of names, one a line, so save the "
                "image to a file and give its name"
            )
        name = line.removeprefix(codecs.BOM_UTF8 if number == 0 else b"").rstrip(b"\r\n")
        if name.strip():
            yield os.fsdecode(name)


def columns(top: int, crop: bool = False, answer: bool = False, vehicles: bool = False) -> list[str]:
    """Return the column names of a row of CSV or JSON.

    Args:
        top: number of classes.
        crop: whether rows say what the image was cropped to.
        answer: whether rows have an answer.
        vehicles: whether each vehicle is a row, which then has its number and what the image was cropped to.
    """
    classes = [name for place in range(1, top + 1) for name in class_columns(place)]
    before = [*((NUMBER_COLUMN,) if vehicles else ()), *(ANSWER_COLUMNS if answer else ())]
    return ["path", *before, *classes, *(CROP_COLUMNS if crop or vehicles else ()), "problem"]


def lines(rows: Iterable[Prediction | Skipped], form: Form, names: Sequence[str], width: int = 40) -> Iterator[str]:
    """Yield the rows as text, line by line as they come.

    Args:
        rows: from `Classifier.stream`.
        form: `table` for reading; `csv` with a header; `json`, one object per line. The last two have the cells of
            `as_row()`; a missing cell, such as the class of an unreadable image, is empty or null.
        names: column names of CSV or JSON, as returned by `columns`.
        width: width of the table's column of class names, such as the length of the longest.
    """
    if form == "csv":
        yield csv_line(names)
    for row in rows:
        if form == "table":
            yield from _as_table(row, width)
            continue
        cells = row.as_row()
        whole = {name: cells.get(name) for name in names}
        yield json.dumps(whole, ensure_ascii=False) if form == "json" else csv_line(whole.values())


def _as_table(row: Prediction | Skipped, width: int) -> Iterator[str]:
    place = one_line(as_text(row.path))
    if isinstance(row, NoVehicle):
        yield f"       -  {row.reason:<{width}}  {place}"
        return
    if isinstance(row, Skipped):
        yield f"       -  {'not readable':<{width}}  {place}: {one_line(row.reason)}"
        return
    shown = place if row.crop is None else f"{place}  ({cropped_to(row.crop)})"
    if row.answer is not None:
        level, name = row.answer.level, one_line(row.answer.name)
        certainty = f"{row.answer.probability:8.1%}" if level else "       -"
        name += f" ({level})" if level not in ("", "class") else ""
        yield f"{certainty}  {name:<{width}}  {shown}"
        return
    for name, probability in zip(row.classes, row.probabilities, strict=True):
        yield f"{probability:8.1%}  {one_line(name):<{width}}  {shown}".rstrip()
        shown = ""


def cropped_to(crop: Crop) -> str:
    """Describe in a few words what an image was cropped to."""
    if crop.box is None or crop.score is None:
        reason = crop.outcome.partition(": ")[2]
        found = "no vehicle found" if reason == "no vehicle" else f"only {reason}"
        return f"{found}, whole image used"
    box = f"{crop.box.left},{crop.box.top},{crop.box.right},{crop.box.bottom}"
    if crop.number is not None:
        return f"{crop.label} {crop.score:.2f}, box {box}, vehicle {crop.number} of {crop.candidates}"
    among = "the only vehicle" if crop.candidates == 1 else f"1 of {plural(crop.candidates, 'vehicle')}"
    return f"{crop.label} {crop.score:.2f}, box {box}, {among}"
