"""Convert the layouts in which a set of images may arrive to `car_ims/` and `car_dataset_labels.csv`.

Three layouts are supported: a label file with its images, the Stanford Cars devkit (`.mat` annotations), and one folder
per class. Only the names of images are read, and nothing is decoded.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from whichcar import files
from whichcar.data.fetch import devkit
from whichcar.data.labels import folders_of, labels_from_folders, read_labels, write_labels
from whichcar.data.structure import structure_of
from whichcar.errors import DataError
from whichcar.progress import track
from whichcar.records import Label
from whichcar.text import as_text, nfc, plural

log = logging.getLogger(__name__)

WRITTEN = IMAGES, LABELS = "car_ims", "car_dataset_labels.csv"
_LONGEST_HEADER = 10_000  # bytes


@dataclass(frozen=True)
class ImageSet:
    """Images and labels as they arrived; each `img_name` is a path relative to `root`.

    `names` are the images that belong to the set, or None if all of them do.
    """

    kind: str
    root: Path
    labels: list[Label]
    names: tuple[str, ...] | None = None


def find(root: Path, called: str) -> ImageSet:
    """Return the set of images under `root`; messages call it `called`.

    Raises:
        DataError: there is no supported layout, or more than one label file.
        MissingExtraError: the set is a devkit, and SciPy is not installed.
    """
    paths = list(files.walk(root))
    if count := sum(map(files.is_unopened, paths)):
        log.warning("%s", files.not_opened(called, count))
    try:
        image_set = _recognised(root, paths, called)
    except DataError as error:  # an unpacked archive is deleted
        raise DataError(str(error).replace(str(root), called)) from error
    names = files.walk_images(image_set.root) if image_set.names is None else image_set.names
    if image_set.names is not None:
        structure = structure_of(root)
        for remark in structure.remarks:
            log.warning("%s", remark.replace(str(root), called))
        unused = (*structure.unlabelled, *structure.left_out)
        named = tuple(f"{folder.relative_to(root).as_posix()}/" for folder in unused)
        paths = [path for path in paths if not path.startswith(named)]
    if count := sum(map(files.is_image, paths)) - sum(map(files.is_image, names)):
        place = f"{image_set.root.name}/" if image_set.names is None else "the class folders"
        log.warning("%s: %s outside %s left out", called, plural(count, "image"), place)
    return image_set


def _recognised(root: Path, paths: list[str], called: str) -> ImageSet:
    """Return the set of images under `root`, whose files are `paths`; raises the errors of `find`."""
    tables = [root / path for path in paths if path.lower().endswith(".csv") and _is_label_file(root / path)]
    if len(tables) > 1:
        raise DataError(f"{called}: {len(tables)} label files, {tables[0].name} and {tables[1].name}; keep one")
    if tables:
        rows = read_labels(tables[0])
        return ImageSet("label file", _images(root, paths, tables[0], rows), rows)
    mats = {Path(path).name: root / path for path in paths if path.endswith(".mat")}
    if annotations := devkit.read(root, mats, called):
        return ImageSet("devkit", *annotations)
    if any(files.is_image(path) and "/" in path for path in paths):
        structure = structure_of(root)
        inner = structure.root
        labels = labels_from_folders(inner)
        if len({label.class_name for label in labels}) == 1 and not structure.splits:
            only = inner / labels[0].img_name.partition("/")[0]
            if count := sum(any(files.walk_images(folder)) for folder in files.folders(only)):
                raise DataError(
                    f"{only}: images next to {plural(count, 'folder')} of images, all of one class; if the folders are "
                    "the classes, move the images next to them elsewhere"
                )
        return ImageSet("folder per class", inner, labels, names=tuple(label.img_name for label in labels))
    raise DataError(
        f"{called}: no set of images; it must hold a .csv with img_name and class, the devkit's .mat files, or one "
        "folder per class"
    )


def arrange(image_set: ImageSet, into: Path) -> int:
    """Write images and labels to a new folder as the other stages expect them; return the number of images.

    Images are hard-linked into `into`/car_ims/, or copied across disks.

    Raises:
        DataError: there are labels but no images.
    """
    names: list[str] = []
    lost: list[str] = []
    for name in files.walk_images(image_set.root) if image_set.names is None else image_set.names:
        (names if (image_set.root / name).is_file() else lost).append(name)
    if not names:
        raise DataError(f"fetch: no images, only a {image_set.kind}; name the archive that holds them too")
    if lost:
        log.warning("%s left out, such as %s: a broken link, or no regular file", plural(len(lost), "name"), lost[0])
    for name in track(names, "arranging"):
        target = into / IMAGES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        files.link_or_copy(image_set.root / name, target)
    _write_labels(into / LABELS, image_set.labels, set(names))
    return len(names)


def _write_labels(path: Path, labels: list[Label], images: set[str]) -> None:
    """Write the label file, leaving out names that are not UTF-8, and warn about labels without an image."""
    rows = [label for label in labels if label.img_name == as_text(label.img_name)]
    if len(rows) < len(labels):
        count = plural(len(labels) - len(rows), "image")
        log.warning("names that are not UTF-8: %s; rename them, they get no label", count)
    known = {nfc(f"{prefix}{name}") for name in images for prefix in ("", f"{IMAGES}/")}  # as `split` finds them
    if lost := [row.img_name for row in rows if nfc(PurePosixPath(row.img_name).as_posix()) not in known]:
        log.warning("%d of %d labels have no image, such as %r", len(lost), len(rows), lost[0])
    write_labels(path, rows)


def _is_label_file(path: Path) -> bool:
    """Return True if the header names images and classes, in any encoding; `read_labels` checks if it is usable."""
    if not path.is_file():  # a named pipe would block forever
        return False
    try:
        with path.open("rb") as file:
            header = file.readline(_LONGEST_HEADER).replace(b"\0", b"")  # as UTF-16 has them
    except OSError:
        return False
    names = re.split("[,;\t|\r\n]", header.decode("utf-8-sig", "ignore").casefold())
    return {"img_name", "class"} <= {name.strip('" ') for name in names}


def _images(root: Path, paths: list[str], table: Path, rows: list[Label]) -> Path:
    """Return the folder that a label file's names are relative to: `car_ims/`, or where most of them are found."""
    if (named := devkit.folder_called(root, IMAGES)) is not None:
        return root / named
    known = set(map(nfc, paths))
    names = {name.name: name for name in (PurePosixPath(nfc(row.img_name)) for row in rows)}
    above: Counter[Path] = Counter()  # the folders in which files with the ending of such a name are found
    for path in map(Path, paths):
        if (name := names.get(nfc(path.name))) and nfc(f"/{path}").endswith(f"/{name}"):
            above[path.parents[len(name.parts) - 1]] += 1
    most = [place for place, _ in above.most_common(1)]
    places = (_without_wrapping(root).relative_to(root), table.parent.relative_to(root), *most)
    return root / max(places, key=lambda place: sum(nfc((place / row.img_name).as_posix()) in known for row in rows))


def _without_wrapping(root: Path) -> Path:
    """Descend through folders that contain only one folder, unless that folder contains images itself."""
    inner = folders_of(root)
    while len(inner) == 1 and not any(path.is_file() and not path.name.startswith(".") for path in root.iterdir()):
        if any(map(files.is_image, inner[0].iterdir())):
            break
        root, inner = inner[0], folders_of(inner[0])
    return root
