"""From pictures and labels to `OUTPUT/<subset>/<class>/`, and from such a tree to lists of samples.

`OUTPUT/split.json` holds what was done; above all which pictures of `train/` are the validation part, so that every
later run uses the same ones. It is written first with `"finished": false`, and again when every picture is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whichcar import files, progress
from whichcar.data.labels import check_share, draw_share, folders_of, named, pictures_by_class, read_labels
from whichcar.data.plan import Plan, make_plan, readable
from whichcar.errors import DataError
from whichcar.records import Label, Sample, Skipped

RECORD = "split.json"


@dataclass(frozen=True)
class Split:
    """What `split` did.

    `counts` has `train` (all pictures in train/), `validation` (how many of those), and `test`; `classes` maps folder
    to true name; `problems` are the rows that could not be used; `renamed` maps an img_name to its place in the output
    where its own file name was taken; `unlabelled` counts pictures that lie beside used ones and have no row.
    """

    output: Path
    counts: dict[str, int]
    classes: dict[str, str]
    problems: list[Skipped]
    renamed: dict[str, str]
    unlabelled: int


@dataclass(frozen=True)
class Tree:
    """The pictures of a data folder; a sample's class_index counts in the sorted class folders."""

    root: Path
    class_folders: tuple[str, ...]
    class_names: tuple[str, ...]
    train: list[Sample]
    validation: list[Sample]
    test: list[Sample]


def split(
    data: Path,
    labels: Path | list[Label],
    output: Path,
    validation: float = 0.2,
    seed: int = 123,
    keep_copies: bool = False,
) -> Split:
    """Build `output/{train,test}/<class>/<picture>` from hard links, or copies where links are not possible.

    Every row is used or listed in `problems`. Pictures that are copies of each other, also nearly so
    (`data.duplicates`), end on one side: those in train stay out of the validation part, and out of train if test has
    one. Running it again adds what is missing and changes nothing else.

    Args:
        data: folder with the pictures, or with the pictures in `car_ims/`.
        labels: the label file, or its rows; an `img_name` may hold folders, seen from `data`.
        output: folder to be made.
        validation: share of train that is set aside, by class; every class keeps a picture to learn from.
        seed: of the choice of these.
        keep_copies: use train pictures of which test holds a copy all the same.

    Raises:
        DataError: nothing usable, or `output` holds something else.
    """
    check_share(validation, "the validation share")
    rows = read_labels(labels) if isinstance(labels, Path) else labels
    plan = make_plan(data, rows, keep_copies)
    names = {row: readable(rows[row - 1].img_name) for row in plan.problems}
    record = _record(plan, names, validation, seed)
    source = readable(str(labels)) if isinstance(labels, Path) else f"{len(rows)} rows"
    record["sources"] = {"data": readable(str(data)), "labels": source}
    try:
        _check_output(output, record)
        _fill(output, plan, record)
    except OSError as error:
        where = error.filename2 or error.filename or output
        raise DataError(f"{where}: {error.strerror}; mend that and run it again, what is there is kept") from error
    problems = [Skipped(Path(names[row]), problem.reason) for row, problem in plan.problems.items()]
    return Split(output, record["counts"], plan.classes, problems, plan.renamed, plan.unlabelled)


def read_tree(directory: Path, validation: float, seed: int) -> Tree:
    """List the samples of a data folder and divide train as its `split.json` says.

    Args:
        directory: a folder with `train/` (and `test/`), such a `train/` itself, or a folder with one folder a class.
        validation: share of train set aside; must agree with the recorded one.
        seed: of the choice where none is recorded; it is then written to `split.json`, if the folder can be written.

    Raises:
        DataError: no classes, an empty class, a test class that train lacks, an unfinished or different split.
    """
    check_share(validation, "data.validation_split")
    root, train_folder = _locate(directory)
    classes = pictures_by_class(train_folder)
    if len(classes) < 2:
        raise DataError(f"{train_folder}: one class only, {next(iter(classes))!r}; a classifier needs at least two")
    record = read_record(root) or _draw(root, classes, validation, seed)
    _check_share_agrees(root, record, validation)
    chosen = set(record["validation"])
    numbers = {folder: number for number, folder in enumerate(classes)}
    train, held = _divide(train_folder, classes, chosen)
    test = _test_part(root / "test", numbers) if train_folder != root else []
    names = tuple(record["classes"].get(folder, folder) for folder in classes)
    return Tree(root, tuple(classes), names, train, held, test)


def _record(plan: Plan, names: Mapping[int, str], validation: float, seed: int) -> dict[str, Any]:
    """Return the content of split.json, without its sources."""
    train: dict[str, list[str]] = {}
    for target in plan.targets:
        subset, folder, name = target.split("/")
        if subset == "train":
            train.setdefault(folder, []).append(f"{folder}/{name}")
    staying = {target.partition("/")[2] for target in plan.copied if target.startswith("train/")}
    chosen = sorted(draw_share(train, validation, seed, staying))
    in_train = sum(map(len, train.values()))
    return {
        "finished": True,
        "seed": seed,
        "validation_share": validation,
        "counts": {"train": in_train, "validation": len(chosen), "test": len(plan.targets) - in_train},
        "classes": plan.classes,
        "unlabelled": plan.unlabelled,
        "fingerprint": _fingerprint(plan),
        "problems": [
            {"row": row, "img_name": names[row], "reason": problem.reason} for row, problem in plan.problems.items()
        ],
        "renamed": plan.renamed,
        "validation": chosen,
    }


def _fingerprint(plan: Plan) -> str:
    """Digest which picture, of how many bytes, goes where: labels or data that changed give another one."""
    lines = (f"{target}\t{source.stat().st_size}" for target, source in sorted(plan.targets.items()))
    return hashlib.blake2b("\n".join(lines).encode("utf-8"), digest_size=16).hexdigest()


def _check_output(output: Path, record: Mapping[str, Any]) -> None:
    """Raise DataError unless `output` is new, empty, or made from the same labels, data and settings."""
    ways_out = "choose another output folder, or delete this one"
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; {ways_out}")
    known = _load_record(output)
    if known is None:
        if output.exists() and any(not entry.name.startswith(".") for entry in output.iterdir()):
            raise DataError(f"{output}: not empty, and no {RECORD} says it was made by split; {ways_out}")
        return
    for key, name in (("seed", "seed"), ("validation_share", "validation share")):
        if known.get(key) != record[key]:
            raise DataError(f"{output}: made with {name} {known.get(key)}, not {record[key]}; {ways_out}")
    free = {"finished", "sources", "unlabelled"}  # the same pictures may be named by another path
    if any(known.get(key) != value for key, value in record.items() if key not in free):
        raise DataError(f"{output}: made from other labels or pictures; {ways_out}")


def _fill(output: Path, plan: Plan, record: dict[str, Any]) -> None:
    known = _load_record(output)
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


def _load_record(root: Path) -> dict[str, Any] | None:
    """Return what split.json holds, or None where there is none."""
    path = root / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it to divide anew") from error
    wanted = {"finished": bool, "validation_share": float, "classes": dict, "validation": list}
    if not isinstance(record, dict) or any(not isinstance(record.get(key), kind) for key, kind in wanted.items()):
        raise DataError(f"{path}: not as `whichcar split` writes it; delete it to divide anew")
    return record


def read_record(root: Path) -> dict[str, Any] | None:
    """Return what split.json holds, or None where there is none.

    Raises:
        DataError: it is damaged, or the split was interrupted.
    """
    record = _load_record(root)
    if record is not None and not record["finished"]:
        raise DataError(f"{root}: its split was interrupted; run `whichcar split` again with the same arguments")
    return record


def _draw(root: Path, classes: Mapping[str, Sequence[str]], validation: float, seed: int) -> dict[str, Any]:
    """Draw the validation part of a tree that has none and write it down where that is allowed."""
    chosen = sorted(draw_share(classes, validation, seed))
    record = {
        "finished": True,
        "seed": seed,
        "validation_share": validation,
        "counts": {"train": sum(map(len, classes.values())), "validation": len(chosen)},
        "classes": {folder: folder for folder in classes},
        "sources": {"data": "the tree itself"},
        "problems": [],
        "validation": chosen,
    }
    with contextlib.suppress(OSError):
        files.write_json(root / RECORD, record)
    return record


def _check_share_agrees(root: Path, record: Mapping[str, Any], validation: float) -> None:
    recorded = record["validation_share"]
    if recorded != validation:
        raise DataError(
            f"{root / RECORD}: {recorded} of train is set aside for validation, but {validation} is asked for; "
            f"set data.validation_split to {recorded}, or split into another folder with {validation}"
        )


def _locate(directory: Path) -> tuple[Path, Path]:
    """Return the folder split.json belongs to and the folder whose folders are the classes."""
    if not directory.is_dir():
        raise DataError(f"{directory}: no such folder; make it with `whichcar split DATA LABELS OUTPUT`")
    if (directory / "train").is_dir():
        return directory, directory / "train"
    if (directory / "car_ims").is_dir():
        raise DataError(
            f"{directory}: pictures not yet split; run `whichcar split {directory} LABELS OUTPUT`, use OUTPUT"
        )
    parent = directory.absolute().parent
    if directory.absolute().name == "train" and ((parent / RECORD).is_file() or (parent / "test").is_dir()):
        return parent, directory
    return directory, directory


def _divide(folder: Path, classes: Mapping[str, Sequence[str]], chosen: set[str]) -> tuple[list[Sample], list[Sample]]:
    """Return the samples to learn from and those held out, each in the order of classes and names."""
    train: list[Sample] = []
    held: list[Sample] = []
    for number, (class_folder, names) in enumerate(classes.items()):
        if chosen.issuperset(names):
            raise DataError(
                f"{folder / class_folder}: all its pictures are set aside for validation; add pictures, or split again"
            )
        for name in names:
            (held if name in chosen else train).append(Sample(folder / name, number))
    if chosen and not held:
        raise DataError(f"{folder}: none of the {len(chosen)} validation pictures in {RECORD} is there; split again")
    return train, held


def _test_part(folder: Path, numbers: Mapping[str, int]) -> list[Sample]:
    if not folder.is_dir() or not folders_of(folder):
        return []
    classes = pictures_by_class(folder)
    if unknown := [name for name in classes if name not in numbers]:
        raise DataError(f"{folder}: class {named(unknown)} is not in train; add it there or remove it")
    return [Sample(folder / name, numbers[of]) for of, names in classes.items() for name in names]
