"""Pictures in, class names out: for a folder with labels, and for the command's files, folders and lists."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from whichcar.errors import DataError
from whichcar.evaluation.classifier import Classifier, checked, stream
from whichcar.files import images
from whichcar.records import CROP_COLUMNS, Crop, Prediction, Skipped, class_columns
from whichcar.text import as_text, one_line, plural

log = logging.getLogger(__name__)

Form = Literal["table", "json", "csv"]


def predict_from_folder(
    folder: str | Path,
    model: Any,  # noqa: ANN401  (any Keras model)
    input_size: int | tuple[int, int] | Sequence[int],
    class_names: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Tell the class of every picture under `folder`.

    Args:
        folder: holds one folder a class; pictures are taken in the sorted order of their paths.
        model: a Keras model that takes (n, height, width, 3) RGB, 0..255, and gives (n, classes).
        input_size: height and width, or one number for both. Pictures are squeezed to it, never cropped.
        class_names: one name for each of the model's outputs, in their order.

    Returns:
        Two equally long lists: the class the model says, and the name of the folder the picture lies in. A picture
        that cannot be read is in neither; it is logged as a warning.

    Raises:
        DataError: the folder is missing, or holds no readable picture.
        CheckpointError: the model's outputs are not as many as the class names.
    """
    folder = Path(folder)
    size = (input_size, input_size) if isinstance(input_size, int) else (int(input_size[0]), int(input_size[1]))
    predictions: list[str] = []
    labels: list[str] = []
    for item in stream(checked(model, len(class_names)), _pictures_in(folder), size):
        if isinstance(item, Skipped):
            log.warning("%s: left out: %s", item.path, item.reason)
            continue
        predictions.append(class_names[int(item.probabilities.argmax())])
        labels.append(item.path.parent.name)
    if not predictions:
        raise DataError(f"{folder}: not one picture in it could be read; see the warnings above")
    return predictions, labels


def predict(
    checkpoint: Classifier | Path, pictures: Iterable[Path], top: int = 5, batch_size: int = 32
) -> Iterator[Prediction | Skipped]:
    """Yield one row a picture, in order: its `top` best classes, or why it could not be read.

    Args:
        checkpoint: a classifier, an experiment's folder or a checkpoint file.
        pictures: for example from `pictures_named`.
        top: how many classes a row names.
        batch_size: pictures the network sees at once.

    Raises:
        DataError: at the end, when there was no picture at all, or not one could be read.
    """
    classifier = checkpoint if isinstance(checkpoint, Classifier) else Classifier(checkpoint)
    seen = usable = 0
    for row in classifier.predict(pictures, top, batch_size):
        seen += 1
        usable += isinstance(row, Prediction)
        yield row
    if not usable:
        found = f"not one of {seen} pictures could be read" if seen else "no picture was given"
        raise DataError(f"predict: {found}; name picture files, folders with pictures, or - for a list of paths")


def pictures_named(names: Iterable[str | Path], listing: Iterable[str] = ()) -> Iterator[Path]:
    """Yield the pictures that a command line means, lazily.

    Args:
        names: files (taken as they are), folders (every picture under them, sorted), or `-` for `listing`.
        listing: one path a line, for example standard input; empty lines are passed over. A folder in it counts too.

    Raises:
        DataError: a folder holds no picture.
    """
    for name in names:
        if str(name) == "-":
            yield from pictures_named(line.rstrip("\r\n") for line in listing if line.strip() and line.strip() != "-")
        elif Path(name).is_dir():
            yield from _pictures_in(Path(name))
        else:
            yield Path(name)


def _pictures_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one that holds pictures")
    found = images(folder)
    if not found:
        raise DataError(f"{folder}: no pictures in it; a picture's name ends in .jpg, .png, .webp, .bmp, .gif or .tif")
    return found


def lines(
    rows: Iterable[Prediction | Skipped], form: Form, top: int, width: int = 40, crop: bool = False
) -> Iterator[str]:
    """Yield the rows as text, line by line as they come.

    Args:
        rows: from `predict`.
        form: `table` for reading; `csv` with a header; `json`, one object a line. The last two hold `as_row()`.
        top: how many classes a CSV row has room for.
        width: of the table's column of class names, for example the longest name's.
        crop: whether a CSV row has room for what the images were cropped to.
    """
    if form == "csv":
        classes = [name for place in range(1, top + 1) for name in class_columns(place)]
        columns = ["path", *classes, *(CROP_COLUMNS if crop else ()), "problem"]
        yield _csv_line(columns)
    for row in rows:
        if form == "json":
            yield json.dumps(row.as_row(), ensure_ascii=False)
        elif form == "csv":
            cells = row.as_row()
            yield _csv_line([cells.get(name) for name in columns])
        else:
            yield from _as_table(row, width)


def _as_table(row: Prediction | Skipped, width: int) -> Iterator[str]:
    place = one_line(as_text(row.path))
    if isinstance(row, Skipped):
        yield f"       -  {'not readable':<{width}}  {place}: {row.reason}"
        return
    shown = place if row.crop is None else f"{place}  ({cropped_to(row.crop)})"
    for name, probability in zip(row.classes, row.probabilities, strict=True):
        yield f"{probability:8.1%}  {name:<{width}}  {shown}".rstrip()
        shown = ""


def cropped_to(crop: Crop) -> str:
    """Return in a few words what an image was cropped to."""
    if crop.box is None or crop.score is None:
        return "no vehicle found, whole image used"
    box = f"{crop.box.left},{crop.box.top},{crop.box.right},{crop.box.bottom}"
    return f"{crop.label} {crop.score:.2f}, box {box}, 1 of {plural(crop.candidates, 'vehicle')}"


def _csv_line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
