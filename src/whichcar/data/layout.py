"""What a set of pictures looks like when it arrives, turned into `car_ims/` and `car_dataset_labels.csv`.

Three kinds are understood: a label file with its pictures, the Stanford Cars devkit (`.mat` annotations), and a folder
a class. Only the names of files are looked at, and nothing is decoded.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whichcar import files
from whichcar.data.labels import COLUMNS, folders_of, labels_from_folders, read_labels, write_labels
from whichcar.errors import DataError, MissingExtraError
from whichcar.files import readable
from whichcar.progress import track
from whichcar.records import Box, Label

log = logging.getLogger(__name__)

PICTURES, LABELS, BOXES = "car_ims", "car_dataset_labels.csv", "boxes.csv"
TEST_SHARE, SEED = 0.25, 123  # of a folder a class that is not divided yet


@dataclass(frozen=True)
class Found:
    """Pictures and labels as they lie there: an `img_name` is a path seen from `pictures`."""

    kind: str
    pictures: Path
    labels: list[Label]
    boxes: dict[str, Box] = field(default_factory=dict)


def find(root: Path, called: str) -> Found:
    """Tell what lies under `root`; messages call it `called`.

    Raises:
        DataError: nothing that is understood, or more than one label file.
        MissingExtraError: a devkit, and SciPy is not installed.
    """
    tables = [path for path in sorted(root.rglob("*.csv")) if _is_label_file(path)]
    if len(tables) > 1:
        raise DataError(f"{called}: {len(tables)} label files, {tables[0].name} and {tables[1].name}; keep one")
    if tables:
        return Found("label file", _pictures(root), read_labels(tables[0]))
    if annotations := _devkit(root, called):
        return annotations
    inner = _without_wrapping(root)
    if folders_of(inner):
        return Found("folder a class", inner, labels_from_folders(inner, TEST_SHARE, SEED))
    raise DataError(
        f"{called}: no set of pictures; it must hold {','.join(COLUMNS)} as a .csv, the devkit's .mat files, or one "
        "folder a class"
    )


def arrange(found: Found, into: Path) -> int:
    """Lay pictures and labels out in a new folder as the other stages expect them; return how many pictures there are.

    Pictures are hard-linked into `into`/car_ims/, or copied across disks.

    Raises:
        DataError: there are labels but no pictures.
    """
    names = list(files.walk_images(found.pictures))
    if not names:
        raise DataError(f"fetch: no pictures, only a {found.kind}; name the archive that holds them too")
    for name in track(names, "arranging"):
        picture = into / PICTURES / name
        picture.parent.mkdir(parents=True, exist_ok=True)
        files.link_or_copy(found.pictures / name, picture)
    _write_labels(into / LABELS, found.labels, set(names))
    if found.boxes:
        with files.replaced(into / BOXES) as beside, beside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("img_name", "left", "top", "right", "bottom"))
            for name, box in found.boxes.items():
                writer.writerow((name, box.left, box.top, box.right, box.bottom))
    return len(names)


def _write_labels(path: Path, labels: list[Label], pictures: set[str]) -> None:
    """Write the label file; a name that is no UTF-8 cannot stand in it. Warn of labels without a picture."""
    rows = [label for label in labels if label.img_name == readable(label.img_name)]
    if len(rows) < len(labels):
        log.warning(
            "%d pictures have names that are not UTF-8; rename them, they get no label", len(labels) - len(rows)
        )
    lost = [row.img_name for row in rows if row.img_name not in pictures]
    if lost:
        log.warning("%d labels have no picture, such as %r", len(lost), lost[0])
    write_labels(path, rows)


def _is_label_file(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return set(COLUMNS) <= {name.strip() for name in next(csv.reader(file), [])}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def _pictures(root: Path) -> Path:
    """Return the folder that a label file's names are seen from: `car_ims/` if there is one."""
    named = [path for path in sorted(root.rglob(PICTURES)) if path.is_dir()]
    return named[0] if named else _without_wrapping(root)


def _without_wrapping(root: Path) -> Path:
    """Go down through folders that hold nothing but one folder, unless that one holds pictures itself."""
    inner = folders_of(root)
    while len(inner) == 1 and not any(path.is_file() and not path.name.startswith(".") for path in root.iterdir()):
        if any(path.suffix.lower() in files.IMAGE_SUFFIXES for path in inner[0].iterdir()):
            break
        root, inner = inner[0], folders_of(inner[0])
    return root


def _devkit(root: Path, called: str) -> Found | None:
    """Read the devkit of Stanford Cars (Krause et al. 2013): one table of all pictures, or one a half.

    `cars_annos.mat` has paths `car_ims/NNNNNN.jpg` and a mark for the test half. `cars_train_annos.mat` and
    `cars_test_annos_withlabels.mat` name `NNNNN.jpg` in `cars_train/` and `cars_test/`; the class names then stand in
    `cars_meta.mat`.
    """
    tables = {path.name: path for path in sorted(root.rglob("*.mat"))}
    if whole := tables.get("cars_annos.mat"):
        content = _read_mat(whole)
        names, rows = _class_names(content), list(_rows(content))
        base = _pictures(root)
        labels = [
            Label(Path(str(row["relative_im_path"])).name, names[int(row["class"]) - 1], _half(bool(row["test"])))
            for row in rows
        ]
        boxes = {
            label.img_name: _box(row, "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
            for label, row in zip(labels, rows, strict=True)
        }
        return Found("devkit", base, labels, boxes)
    halves = {"train": "cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    there = {subset: tables[name] for subset, name in halves.items() if name in tables}
    if not there:
        return None
    if "cars_meta.mat" not in tables:
        raise DataError(
            f"{called}: {next(iter(there.values())).name} without cars_meta.mat, which names the classes; add it"
        )
    names = _class_names(_read_mat(tables["cars_meta.mat"]))
    found = Found("devkit", root, [])
    for subset, path in there.items():
        inside = _with_pictures(root, f"cars_{subset}")
        for row in _rows(_read_mat(path)):
            name = f"{inside}/{row['fname']}"
            found.labels.append(Label(name, names[int(row["class"]) - 1], subset))
            found.boxes[name] = _box(row, "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    return found


def _with_pictures(root: Path, name: str) -> str:
    """Return where the folder of that name is that holds pictures itself: some copies nest it in another."""
    for path in sorted(root.rglob(name)):
        if path.is_dir() and any(one.suffix.lower() in files.IMAGE_SUFFIXES for one in path.iterdir()):
            return path.relative_to(root).as_posix()
    return name


def _read_mat(path: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MissingExtraError("SciPy, which reads .mat files,", "fetch") from error
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True)
        return content
    except (OSError, ValueError, NotImplementedError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as MATLAB's .mat ({error}); fetch it again") from error


def _class_names(content: dict[str, Any]) -> list[str]:
    return [str(name) for name in content["class_names"]]


def _rows(content: dict[str, Any]) -> Iterator[Any]:
    yield from content["annotations"].reshape(-1)


def _half(test: bool) -> str:
    return "test" if test else "train"


def _box(row: Any, *sides: str) -> Box:  # noqa: ANN401
    """MATLAB counts pixels from 1, and its right and bottom belong to the box."""
    left, top, right, bottom = (int(row[side]) for side in sides)
    return Box(left - 1, top - 1, right, bottom)
