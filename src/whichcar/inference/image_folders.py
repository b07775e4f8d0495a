"""Image folders that predictions are written to: annotated images, crops of their vehicles, and explanations."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, combinations
from pathlib import Path
from urllib.parse import quote, urlsplit

from PIL import Image

from whichcar.detection.detection import with_margin
from whichcar.errors import CheckpointError, DataError, ImageError
from whichcar.files import is_disk_full, is_image
from whichcar.images.inputs import Given
from whichcar.images.pixels import DecodedImage
from whichcar.inference.input_crop import Vehicles
from whichcar.inference.listed_folder import ListedFolder
from whichcar.parallel import ordered_map, usable_cores
from whichcar.records import Box, Prediction, Skipped
from whichcar.text import digest, is_address, reason_of

log = logging.getLogger(__name__)

Explain = Callable[[DecodedImage, Box | None], Image.Image]
Rows = Sequence[Prediction | Skipped]
_LONGEST_NAME = 200  # bytes; file systems allow 255
_ADVICE = "give a folder next to it"


class ImageFolders:
    """Writes the annotated image, the vehicles and the explanations of each image before its rows are passed on.

    A file's path is its image's path relative to the common folder of all arguments, so no two are equal:
    `photos/a.jpg` and `photos/old/a.jpg`, given as `photos`, become `a.jpg` and `old/a.jpg`. Vehicles are `a-1.jpg`,
    `a-2.jpg` and so on. For an image from a web address, the path is the address. A name without an image's suffix gets
    a digest and `.jpg`.

    Args:
        annotated: the folder for annotated images; None: they are not written.
        crops: the folder for vehicles; None: they are not written.
        explained: the folder for an explanation of each row's answer, and the function that draws one; None: no folder.
        arguments: what is classified: files, folders, patterns, addresses and `-`.
        vehicles: whether all vehicles of an image have a row, or only the largest.
        margin: of `CropSettings`; vehicles are written as the network sees them.

    Raises:
        DataError: a folder contains an argument, or lies inside one or inside another of the folders; or it holds an
            image that is not from an earlier run, or is not writable.
    """

    def __init__(
        self,
        annotated: Path | None,
        crops: Path | None,
        explained: tuple[Path, Explain] | None,
        arguments: Sequence[str],
        vehicles: Vehicles,
        margin: float,
    ) -> None:
        self._vehicles, self._margin = vehicles, margin
        self._root = _common_folder(arguments)
        self._explain = explained and explained[1]
        given = {"annotate": annotated, "save-crops": crops, "explain": explained and explained[0]}
        self._outputs = [folder for folder in given.values() if folder is not None]
        for folder in self._outputs:
            for argument in arguments:
                if argument != "-" and os.path.lexists(argument):
                    _check_apart(folder, Path(argument))
        for one, other in combinations(self._outputs, 2):
            if _is_within(one, other) or _is_within(other, one):
                raise DataError(f"{one} and {other}: two options; give each a folder of its own, next to the other")
        folders = {name: None if path is None else ListedFolder(path, name) for name, path in given.items()}
        self._annotated, self._crops, self._explained = folders.values()

    def written(
        self,
        classify: Callable[[Iterable[Given | Skipped]], Iterator[Prediction | Skipped]],
        images: Iterable[Given | Skipped],
    ) -> Iterator[Prediction | Skipped]:
        """Classify the images and yield the rows of each after its files are written; call `classify` immediately.

        Raises:
            DataError: the disk is full, or an image lies in a folder that is being written to.
        """
        if not self._outputs:
            return classify(images)
        waiting: deque[Given | Skipped] = deque()

        def followed() -> Iterator[Given | Skipped]:
            for image in images:
                if isinstance(image.path, Path):
                    for folder in self._outputs:
                        _check_outside(folder, image.path.absolute().parent)
                waiting.append(image)
                yield image

        jobs = ((waiting.popleft(), rows) for rows in self._by_image(classify(followed())))
        return chain.from_iterable(ordered_map(self._write, jobs, usable_cores(), usable_cores(), eager=True))

    def _by_image(self, rows: Iterable[Prediction | Skipped]) -> Iterator[Rows]:
        group: list[Prediction | Skipped] = []
        for row in rows:
            group.append(row)
            crop = row.crop if isinstance(row, Prediction) else None
            if crop is None or self._vehicles == "largest" or crop.number == crop.candidates:
                yield group
                group = []

    def _write(self, job: tuple[Given | Skipped, Rows]) -> Rows:
        given, rows = job
        if isinstance(given, Skipped) or type(rows[0]) is Skipped:  # the image is unreadable
            return rows
        try:
            with given.open(None) as image:
                self._write_both(self._place(given.path), image, rows)
        except ImageError as error:
            log.warning("%s: has no image written: %s", given.path, error.reason)
        except CheckpointError:  # the network cannot be explained, so no image can
            raise
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and is_disk_full(error):
                raise DataError(f"{self._outputs[0]}: the disk is full; free some space and run it again") from error
            log.warning("%s: has no image written: %s", given.path, reason_of(error))
        return rows

    def _write_both(self, place: Path, image: DecodedImage, rows: Rows) -> None:
        if self._annotated is not None:
            from whichcar.inference.annotate import annotate

            self._annotated.save(annotate(image.pixels(), rows), place)
        for row in rows:
            if not isinstance(row, Prediction):
                continue
            crop = row.crop if row.crop and row.crop.kind == "cropped" else None
            box = with_margin(crop.box, self._margin, image.size) if crop and crop.box else None
            name = f"{place.stem}-{crop.number}{place.suffix}" if crop and crop.number else place.name
            if self._crops:
                self._crops.save(Image.fromarray(image.pixels(box)), place.with_name(name))
            if self._explained and self._explain:
                self._explained.save(self._explain(image, box), place.with_name(name))

    def _place(self, path: Path | str) -> Path:
        """Return the path of an image's files, relative to a folder of them."""
        if isinstance(path, str) and is_address(path):
            address = urlsplit(path)
            parts = quote(f"{address.netloc}{address.path}?{address.query}".rstrip("?"), safe="/ ").split("/")
        else:
            parts = list(Path(os.path.relpath(path, self._root)).parts)
        kept = [_short(part) for part in parts if part not in ("", ".", "..")]
        place = Path(*["__" for part in parts if part == ".."], *kept)
        return place if is_image(place) else place.with_name(f"{place.name}-{digest(place.name)}.jpg")


def _short(part: str) -> str:
    from hashlib import sha256

    return part if len(os.fsencode(part)) <= _LONGEST_NAME else sha256(os.fsencode(part)).hexdigest()


def _common_folder(arguments: Sequence[str]) -> str:
    """Return the common folder of all arguments, or the current folder if that is unknown, as with `-`."""
    folders = []
    for argument in arguments:
        if argument == "-":
            return str(Path.cwd())
        if not is_address(argument):
            is_pattern = any(sign in argument for sign in "*?[") and not os.path.lexists(argument)
            plain = argument[: min(argument.index(sign) for sign in "*?[" if sign in argument)] if is_pattern else ""
            path = os.path.abspath(os.path.dirname(plain) if is_pattern else argument)  # noqa: PTH100, PTH120
            folders.append(path if is_pattern or os.path.isdir(path) else os.path.dirname(path))  # noqa: PTH112, PTH120
    try:
        return os.path.commonpath(folders or [str(Path.cwd())])
    except ValueError:  # on Windows, two drives
        return str(Path.cwd())


def _check_apart(folder: Path, source: Path) -> None:
    if folder.resolve() == source.resolve():
        raise DataError(f"{folder}: holds the images to classify; {_ADVICE}")
    if _is_within(folder, source) or _is_within(source, folder):
        raise DataError(f"{folder}: is inside {source}, or contains it; {_ADVICE}")


def _is_within(inner: Path, outer: Path) -> bool:
    return inner.resolve().is_relative_to(outer.resolve())


@lru_cache(maxsize=1024)
def _check_outside(folder: Path, source: Path) -> None:
    if _is_within(source, folder):
        raise DataError(f"{folder}: holds an image to classify, in {source}; {_ADVICE}")
