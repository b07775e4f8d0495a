"""Turn the inputs of a classifier or detector (paths, folders, URLs, arrays, PIL images) into single images."""

from __future__ import annotations

import glob
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, lru_cache
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from whichcar.errors import DataError, ImageError
from whichcar.files import NO_IMAGES, is_broken_link, is_image, is_unopened, not_opened, walk
from whichcar.images.pixels import DecodedImage, Pixels
from whichcar.images.read import decoded, decoded_from, enough_for
from whichcar.records import Skipped
from whichcar.text import is_address, without_password

log = logging.getLogger(__name__)

Size = tuple[int, int]

_SHAPES = "(height, width), (height, width, 3) or (images, height, width, 3), with 1, 3 or 4 channels last"
_one_at_a_time = threading.Lock()


class Given(NamedTuple):
    """One input image: where it comes from, and how to read it.

    `path` is a file's path, a URL without its password, or `image 3` for the third image if it has no name. `open`
    decodes the image, either in full or large enough to be resized to a (height, width). A URL is fetched only once.

    Raises (when opened):
        ImageError: the image cannot be read.
    """

    path: Path | str
    open: Callable[[Size | None], AbstractContextManager[DecodedImage]]


Source = str | os.PathLike[str] | npt.NDArray[Any] | Image.Image | Given | Skipped
Sources = Source | Iterable[Source]


def each(sources: Sources) -> Iterator[Given | Skipped]:
    """Yield the images in the given sources, lazily and in order.

    Args:
        sources: one of the following, or an iterable of them: a path; a folder, which stands for all images under it,
            sorted; an http or https URL; a PIL image of any mode, whose EXIF orientation is applied; an array of one
            or more images, RGB or grey, as uint8 or other integers 0..255, or as floats in 0..1 or 0..255 (0..1 if
            none is above 1). A path may be a pattern such as `cars/**/*.jpg`. Items that this function has yielded
            are passed through.

    A `Skipped` is yielded for a folder that has no images or cannot be listed, and for a pattern that matches no file.

    Raises:
        DataError: a source has an unsupported type, or an array has an unsupported shape, dtype or range.
    """
    number = 1
    for source in _listed(sources):
        for given in _images_of(source, number):
            number += 1
            yield given


def only(source: Source) -> Given:
    """Return the single image in a source.

    Raises:
        DataError: the source contains no image or several, or has an unsupported type.
        ImageError: a folder has no images or cannot be listed, or no file matches a pattern.
    """
    found = list(itertools.islice(each(source), 2))
    if len(found) != 1:
        raise DataError(f"expected one image, got {'several' if found else 'none'}; give one at a time")
    if isinstance(found[0], Skipped):
        raise ImageError(f"{found[0].path}: {found[0].reason}")
    return found[0]


def _images_of(source: Any, number: int) -> Iterator[Given | Skipped]:  # noqa: ANN401  (whatever a user gives)
    if isinstance(source, Given | Skipped):
        yield source
    elif isinstance(source, str | os.PathLike):
        yield from _named(os.fsdecode(source))
    elif isinstance(source, Image.Image):
        name = getattr(source, "filename", "")
        yield _opened(Path(name) if name else f"image {number}", source)
    elif hasattr(source, "__array__"):
        array = np.asarray(source)
        if array.dtype.kind in "OUT":  # a column of paths
            yield from each(array.ravel().tolist())
            return
        for place, image in enumerate(_arrays(array), number):
            # A lock of its own, since no other source has this image
            yield _opened(f"image {place}", Image.fromarray(image), threading.Lock())
    else:
        kind = "None" if source is None else type(source).__name__
        raise DataError(f"an image is a path, a folder, an http(s) address, an array or a PIL image; got {kind}")


def _listed(sources: Any) -> Iterable[Any]:  # noqa: ANN401  (whatever a user gives)
    single = isinstance(sources, str | bytes | os.PathLike | Image.Image | dict | Given) or hasattr(
        sources, "__array__"
    )
    return [sources] if single or not isinstance(sources, Iterable) else sources


def _named(name: str) -> Iterator[Given | Skipped]:
    """Yield the image at a path or URL, or the images in a folder or matching a pattern."""
    if not name:
        raise DataError("an image's path is empty; name a file, a folder or an http(s) address")
    if "\0" in name:  # file functions would raise ValueError
        yield Skipped(without_password(name), "holds a NUL character, as no path does; check what wrote this name")
    elif is_address(name) and not os.path.exists(name):  # noqa: PTH110  (a Path would lose a slash)
        yield _at_address(name)
    elif os.path.isdir(name):  # noqa: PTH112  (False for a name that the system refuses, where Path raises)
        yield from _in_folder(Path(name))
    elif any(sign in name for sign in "*?[") and not os.path.lexists(name):
        yield from _matching(name)
    else:
        yield image_at(Path(name))


def _in_folder(folder: Path) -> Iterator[Given | Skipped]:
    found, unopened = [], 0
    try:
        for inside in walk(folder):
            path = folder / inside
            if is_image(path) or is_broken_link(path):
                found.append(path)
            unopened += is_unopened(path)
    except OSError as error:
        yield Skipped(folder, f"{error.filename or folder} cannot be listed ({error.strerror}); change its permissions")
        return
    if unopened:
        _warn_unopened(folder, unopened)
    yield from map(image_at, found)
    if not found:
        yield Skipped(folder, NO_IMAGES)


@lru_cache(maxsize=1024)  # warn once, even if images are counted before they are read
def _warn_unopened(folder: Path, count: int) -> None:
    log.warning("%s", not_opened(folder, count))


def _matching(pattern: str) -> Iterator[Given | Skipped]:
    """Yield the images in the files and folders that match a pattern such as `cars/**/*.jpg`, sorted.

    Images in a matching folder are yielded only with that folder, even though `**` matches them too.
    """
    found, entered = False, set[PurePath]()
    for name in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207  (a Path knows no absolute pattern)
        if not entered.isdisjoint(PurePath(name).parents):
            continue
        if os.path.isdir(name) and not pattern.endswith("**"):  # noqa: PTH112
            found = True
            entered.add(PurePath(name))
            yield from _in_folder(Path(name))
        elif os.path.isfile(name):  # noqa: PTH113
            found = True
            yield image_at(Path(name))
    if not found:
        yield Skipped(Path(pattern), "no file of that pattern; check its spelling")


def image_at(path: Path) -> Given:
    """Return the image in a file, which is opened later."""
    return Given(path, lambda size: decoded(path, size and enough_for(size)))


def _at_address(url: str) -> Given:
    """Return the image at a URL, decoded in the same way as a file so that the network sees the same pixels."""
    name = without_password(url)

    @cache  # the next response may be another image, for example from a webcam
    def content() -> bytes:
        from whichcar.images.web import read_url  # its imports take longer than classifying an image

        return read_url(url)

    return Given(name, lambda size: decoded(content(), size and enough_for(size), name=name))


def _opened(path: Path | str, image: Image.Image, lock: threading.Lock = _one_at_a_time) -> Given:
    @contextmanager
    def opened(_: Size | None) -> Iterator[DecodedImage]:
        # Pillow images are not thread-safe, and the same one may be given twice.
        with lock, decoded_from(image, path) as found:
            yield found

    return Given(path, opened)


def _arrays(array: npt.NDArray[Any]) -> Iterator[Pixels]:
    """Yield the images in an array as (height, width) or (height, width, 3 or 4) uint8.

    Raises:
        DataError: the shape, dtype or range of values is not supported.
    """
    channels = array.shape[-1] if array.ndim in (3, 4) else 1
    if array.ndim not in (2, 3, 4) or channels not in (1, 3, 4) or 0 in array.shape[-3:]:
        raise DataError(f"an array of images is {_SHAPES}; got {array.shape}")
    if array.dtype.kind not in "buif":
        raise DataError(f"an array of images holds numbers 0..255 or 0..1; got {array.dtype}")
    low, high = (array.min(initial=0), array.max(initial=0)) if array.dtype != np.uint8 else (0, 255)
    if not (low >= 0 and high <= 255):  # also NaN
        raise DataError(f"an array of images holds numbers 0..255 or 0..1; got {low:g} to {high:g}")
    scale = 255 if array.dtype.kind in "bf" and high <= 1 else 1
    for image in array if array.ndim == 4 else array[None]:
        eight = image if image.dtype == np.uint8 else np.rint(image.astype(np.float32) * scale).astype(np.uint8)
        yield eight[..., 0] if eight.ndim == 3 and channels == 1 else eight
