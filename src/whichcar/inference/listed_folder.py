"""A folder of images with a list of them, so that a second run replaces only these.

Its `annotate.jsonl` gets a row for each image before the image itself: the path relative to the folder, and the size in
bytes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from PIL import Image

from whichcar.errors import DataError
from whichcar.files import atomic_write, check_writable, system_errors, walk_images
from whichcar.text import one_line

_NEW = "give a new folder, or an empty one"


class ListedFolder:
    """The folder in which an option of `predict` writes images.

    Args:
        path: the folder, which need not exist.
        option: the option's name without dashes, such as `annotate`.

    Raises:
        DataError: the folder holds an image that is not listed, or is not writable.
    """

    def __init__(self, path: Path, option: str) -> None:
        self.path = path
        self._option = f"`predict --{option}`"
        self._list = path / f"{option}.jsonl"
        with system_errors(path, "cannot be written to", "choose another folder"):
            check_writable(self._list)
            self._written = self._read()
            for inside in walk_images(path):
                self._check(inside)

    def save(self, image: Image.Image, place: Path) -> None:
        """Write an image, after adding it to the list.

        Raises:
            DataError: an image with this path exists and is not listed.
        """
        self._check(place.as_posix())
        path = self.path / place
        with atomic_write(path) as tmp:
            image.save(tmp, quality=92)
            entry = (place.as_posix(), tmp.stat().st_size)
            if entry not in self._written:
                with self._list.open("ab", buffering=0) as file:
                    file.write(f"{json.dumps(entry)}\n".encode())  # one system call, atomic across threads
                self._written.add(entry)

    def _read(self) -> set[tuple[str, int]]:
        if not self._list.exists():
            return set()
        try:
            return {(name, size) for name, size in map(json.loads, self._list.read_text("utf-8").splitlines())}
        except (ValueError, TypeError) as error:
            raise DataError(f"{self._list}: is damaged, or {self._option} did not write it; {_NEW}") from error

    def _check(self, inside: str) -> None:
        path = self.path / inside
        if os.path.lexists(path) and (inside, path.lstat().st_size) not in self._written:
            raise DataError(f"{self.path}: holds {one_line(inside)}, which {self._option} did not write; {_NEW}")
