"""Build `OUTPUT/<subset>/<class>/` from images and labels.

`OUTPUT/split.json` records what was done, above all which images in `train/` are the validation split, so that every
later run uses the same ones. It is first written with `"finished": false`, and again when every image is in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from whichcar import files, progress
from whichcar.data.fetch.formats import LABELS
from whichcar.data.labels import check_share, draw_share, labels_from_folders, read_labels
from whichcar.data.split.groups import with_groups
from whichcar.data.split.plan import Plan, make_plan
from whichcar.data.split.tree import unopened
from whichcar.data.split_names import TRAIN, split_of
from whichcar.data.split_record import RECORD, load_record
from whichcar.data.structure import structure_of
from whichcar.errors import DataError
from whichcar.records import Label, Skipped
from whichcar.text import as_text, plural

log = logging.getLogger(__name__)

TEST_SHARE = 0.25  # the default
_WAYS_OUT = "choose another output folder, or delete this one"


@dataclass(frozen=True)
class Split:
    """The result of `split`.

    `counts` contains `train` (all images in train/), `validation` (how many of these) and `test`. `classes` maps
    folders to true class names. `problems` are the rows that could not be used. `renamed` maps an img_name to its path
    in the output if its own file name was taken. `unlabelled` counts images without a row, in car_ims/ or next to used
    ones. `groups` counts named groups. `test_share` is the share of the images that was drawn for test, or None if the
    labels or folders define the test split. `unused_classes` are the classes without a usable image, which are left
    out. `conflicts` counts used images with a copy in another class. `by_folder` is true without a label file.
    """

    output: Path
    counts: dict[str, int]
    classes: dict[str, str]
    problems: list[Skipped]
    renamed: dict[str, str]
    unlabelled: int
    groups: int
    test_share: float | None
    unused_classes: list[str]
    conflicts: int
    by_folder: bool


def split(
    data: str | Path,
    labels: str | Path | Sequence[Label] | None = None,
    output: str | Path | None = None,
    validation: float = 0.2,
    seed: int = 123,
    keep_copies: bool = False,
    test_share: float | None = None,
    group_by: str | None = None,
) -> Split:
    """Build `output/{train,test}/<class>/<image>` from hard links, or from copies if links are not possible.

    `split(data, output)` takes the labels from `data`: from its `car_dataset_labels.csv`, or from its folders, one per
    class, which may already be divided into train/, test/ and so on. `split(data, labels, output)` passes the labels.

    Every row is either used or listed in `problems`, even if its image cannot be read. Exact and near copies
    (`data.duplicates`) and images of one group stay on one side: a drawn split takes all of them or none, and if the
    labels put them on several sides, those in train (or validation) are left out. Images that the labels assign to the
    validation split lie in `train/` too; split.json names them. Running it again adds missing files and changes nothing
    else.

    Args:
        data: folder with the images, or with the images in `car_ims/`.
        labels: the label file, or its rows; an `img_name` may contain folders, relative to `data`.
        output: folder to create.
        validation: share of train to set aside, stratified by class, if no row is in the validation split; every class
            keeps a training image; 0 for none.
        seed: random seed of the splits that are drawn.
        keep_copies: use images even if a held-out split contains a copy of them or another image of their group.
        test_share: share of the images for test, stratified by class, if neither labels nor folders define the test
            split (default: 0.25); 0 for no test split.
        group_by: regular expression searched for in each `img_name`; its first capturing group, or else the whole
            match, names the group of the image. The label file may have a column `group` instead.

    Raises:
        DataError: no row can be used, or `output` contains something else.
    """
    if output is None and isinstance(labels, str | Path):
        labels, output = None, labels
    if output is None:
        raise DataError(f"{data}: no output folder; give one: split(data, output) or split(data, labels, output)")
    data, output = Path(data), Path(output)
    check_share(validation, "the validation share")
    rows, source = _rows(data, labels, output)
    if group_by is not None:
        rows = with_groups(rows, group_by)
    if test_share is not None and {split_of(row.subset) for row in rows if row.subset} == {TRAIN}:
        rows = [replace(row, subset="") for row in rows]  # nothing says what is in test, so it can be drawn
    share = _test_share(rows, test_share, source)
    with _writing_to(output):
        _check_output(output, {"seed": seed, "validation_share": validation, "test_share": share})
    plan = make_plan(data, rows, keep_copies, share or 0, seed)
    if count := unopened(plan.targets.values()):
        log.warning("%s", files.not_opened(data, count))
    names = {row: as_text(rows[row - 1].img_name) for row in plan.problems}
    record = _record(plan, names, validation, seed, share)
    record["sources"] = {"data": as_text(data), "labels": source}
    _check_content(output, record)
    with _writing_to(output):
        _fill(output, plan, record)
    problems = [Skipped(Path(names[row]), str(problem)) for row, problem in plan.problems.items()]
    counts: dict[str, int] = record["counts"]
    return Split(
        output=output,
        counts=counts,
        classes=plan.classes,
        problems=problems,
        renamed=plan.renamed,
        unlabelled=plan.unlabelled,
        groups=len(plan.groups),
        test_share=share,
        unused_classes=plan.unused_classes,
        conflicts=plan.conflicts,
        by_folder=source == as_text(data),
    )


def _rows(data: Path, labels: str | Path | Sequence[Label] | None, output: Path) -> tuple[Sequence[Label], str]:
    """Return the labels and where they come from."""
    if labels is None and not data.is_dir():
        raise DataError(f"{data}: no such folder; give the folder with the images")
    if labels is None and (data / LABELS).is_file():
        structure = structure_of(data)
        labels = data / LABELS if structure.root != data or not structure.has_classes_in_splits else None
    if isinstance(labels, str | Path):
        return read_labels(labels), as_text(labels)
    if labels is not None:
        return labels, plural(len(labels), "row")
    if output.resolve().is_relative_to(data.resolve()):
        raise DataError(f"{output}: lies in {data}, whose folders are the classes; give an output folder outside")
    for remark in structure_of(data).remarks:
        log.warning("%s", remark)
    rows = labels_from_folders(data)
    if len(classes := {row.class_name for row in rows}) < 2:
        raise DataError(
            f"{data}: one class folder only, {next(iter(classes))!r}; give the folder that holds one folder per class, "
            "or name a label file: split DATA LABELS OUTPUT"
        )
    return rows, as_text(data)


def _test_share(rows: Sequence[Label], asked: float | None, source: str) -> float | None:
    """Return the share of the images to be drawn for test, or None if the rows define the test split."""
    if asked is not None:
        check_share(asked, "the test share")
    if not any(row.subset for row in rows):
        return TEST_SHARE if asked is None else asked
    if asked is not None:
        raise DataError(f"{source}: says what is in test already; leave out --test-share")
    return None


def _record(
    plan: Plan, names: Mapping[int, str], validation: float, seed: int, test_share: float | None
) -> dict[str, Any]:
    """Return the content of split.json, without its sources."""
    train: dict[str, list[str]] = {}
    for target in plan.targets:
        subset, folder, name = target.split("/")
        if subset == TRAIN:
            train.setdefault(folder, []).append(f"{folder}/{name}")
    given = {_inside(target) for target in plan.validation}
    together = [[_inside(target) for target in group if target.startswith(f"{TRAIN}/")] for group in plan.together]
    drawn = draw_share(train, validation, seed, [group for group in together if group]) if validation else set()
    chosen = sorted(given or drawn)
    in_train = sum(map(len, train.values()))
    return {
        "finished": True,
        "seed": seed,
        "validation_share": None if given else float(validation),
        **({} if test_share is None else {"test_share": test_share}),
        "counts": {"train": in_train, "validation": len(chosen), "test": len(plan.targets) - in_train},
        "classes": plan.classes,
        **({"unused_classes": plan.unused_classes} if plan.unused_classes else {}),
        "unlabelled": plan.unlabelled,
        "fingerprint": _fingerprint(plan),
        "problems": [
            {"row": row, "img_name": names[row], "reason": str(problem)} for row, problem in plan.problems.items()
        ],
        "renamed": plan.renamed,
        **({"groups": plan.groups} if plan.groups else {}),
        "validation": chosen,
    }


def _inside(target: str) -> str:
    return target.partition("/")[2]


def _fingerprint(plan: Plan) -> str:
    """Return a digest of every image's target and size in bytes, which changes when labels or data change."""
    lines = (f"{target}\t{source.stat().st_size}" for target, source in sorted(plan.targets.items()))
    return hashlib.blake2b("\n".join(lines).encode("utf-8"), digest_size=16).hexdigest()


@contextlib.contextmanager
def _writing_to(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or output
        raise DataError(f"{where}: {error.strerror}; fix this and run it again, completed files are kept") from error


def _check_output(output: Path, settings: Mapping[str, Any]) -> None:
    """Raise DataError unless `output` is new, empty, or made with the same settings; OSError if it is not writable."""
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; the output is a folder: split DATA LABELS OUTPUT, or split DATA OUTPUT")
    known = load_record(output)
    if known is None:
        if output.exists() and any(not entry.name.startswith(".") for entry in output.iterdir()):
            raise DataError(f"{output}: not empty, and no {RECORD} says it was made by split; {_WAYS_OUT}")
        files.check_writable(output / RECORD)
        return
    for key, value in settings.items():
        if known.get(key) != value and None not in (known.get(key), value):
            name = key.replace("_", " ")
            raise DataError(f"{output}: made with {name} {known.get(key)}, not {value}; {_WAYS_OUT}")


def _check_content(output: Path, record: Mapping[str, Any]) -> None:
    """Raise DataError if `output` was made from other labels or data, or with other options."""
    known = load_record(output) or {}
    free = {"finished", "sources", "unlabelled", "unused_classes"}  # the same images may be named by another path
    before, now = _without_reasons(known), _without_reasons(record)
    if known and any(before.get(key) != value for key, value in now.items() if key not in free):
        raise DataError(
            f"{output}: made from other labels or images, or with other options (--group-by, --keep-copies, "
            f"--test-share); {_WAYS_OUT}"
        )


def _without_reasons(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without the reasons of its problems, which contain the path of the data as it was given."""
    return {**record, "problems": [(one["row"], one["img_name"]) for one in record.get("problems", [])]}


def _fill(output: Path, plan: Plan, record: dict[str, Any]) -> None:
    known = load_record(output)
    missing = [(target, source) for target, source in plan.targets.items() if not (output / target).exists()]
    if known is not None and known["finished"] and not missing:
        return
    files.write_json(output / RECORD, {**record, "finished": False})
    for target in sorted({str(Path(target).parent) for target, _ in missing}):
        (output / target).mkdir(parents=True, exist_ok=True)
    for target, source in progress.track(missing, "linking"):
        with contextlib.suppress(FileExistsError):  # another run of the same split came first
            files.link_or_copy(source.resolve() if source.is_symlink() else source, output / target)
    files.write_json(output / RECORD, record)
