"""From pictures and labels to `OUTPUT/<subset>/<class>/`.

`OUTPUT/split.json` holds what was done; above all which pictures of `train/` are the validation part, so that every
later run uses the same ones. It is written first with `"finished": false`, and again when every picture is there.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whichcar import files, progress
from whichcar.data.labels import check_share, draw_share, read_labels
from whichcar.data.plan import Plan, make_plan, readable
from whichcar.data.tree import RECORD, load_record
from whichcar.errors import DataError
from whichcar.records import Label, Skipped


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


def split(
    data: str | Path,
    labels: str | Path | list[Label],
    output: str | Path,
    validation: float = 0.2,
    seed: int = 123,
    keep_copies: bool = False,
) -> Split:
    """Build `output/{train,test}/<class>/<picture>` from hard links, or copies where links are not possible.

    Every row is used or listed in `problems`. Pictures that are copies of each other, also nearly so
    (`data.duplicates`), end on one side: those in train stay out of the validation part, and out of train if a held-out
    split has one. Images that the labels give to the validation split lie in `train/` too; split.json names them.
    Running it again adds what is missing and changes nothing else.

    Args:
        data: folder with the pictures, or with the pictures in `car_ims/`.
        labels: the label file, or its rows; an `img_name` may hold folders, seen from `data`.
        output: folder to be made.
        validation: share of train that is set aside, by class, where no row is of the validation split; every class
            keeps a picture to learn from.
        seed: of the choice of these.
        keep_copies: use images of which a held-out split has a copy all the same.

    Raises:
        DataError: nothing usable, or `output` holds something else.
    """
    check_share(validation, "the validation share")
    data, output = Path(data), Path(output)
    rows = labels if isinstance(labels, list) else read_labels(Path(labels))
    plan = make_plan(data, rows, keep_copies)
    names = {row: readable(rows[row - 1].img_name) for row in plan.problems}
    record = _record(plan, names, validation, seed)
    source = f"{len(rows)} rows" if isinstance(labels, list) else readable(str(labels))
    record["sources"] = {"data": readable(str(data)), "labels": source}
    try:
        _check_output(output, record)
        _fill(output, plan, record)
    except OSError as error:
        where = error.filename2 or error.filename or output
        raise DataError(f"{where}: {error.strerror}; mend that and run it again, what is there is kept") from error
    problems = [Skipped(Path(names[row]), problem.reason) for row, problem in plan.problems.items()]
    return Split(output, record["counts"], plan.classes, problems, plan.renamed, plan.unlabelled)


def _record(plan: Plan, names: Mapping[int, str], validation: float, seed: int) -> dict[str, Any]:
    """Return the content of split.json, without its sources."""
    train: dict[str, list[str]] = {}
    for target in plan.targets:
        subset, folder, name = target.split("/")
        if subset == "train":
            train.setdefault(folder, []).append(f"{folder}/{name}")
    staying = {target.partition("/")[2] for target in plan.copied if target.startswith("train/")}
    given = {target.partition("/")[2] for target in plan.validation}
    chosen = sorted(given or draw_share(train, validation, seed, staying))
    in_train = sum(map(len, train.values()))
    return {
        "finished": True,
        "seed": seed,
        "validation_share": None if given else validation,
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
    known = load_record(output)
    if known is None:
        if output.exists() and any(not entry.name.startswith(".") for entry in output.iterdir()):
            raise DataError(f"{output}: not empty, and no {RECORD} says it was made by split; {ways_out}")
        return
    for key, name in (("seed", "seed"), ("validation_share", "validation share")):
        if known.get(key) != record[key] and None not in (known.get(key), record[key]):
            raise DataError(f"{output}: made with {name} {known.get(key)}, not {record[key]}; {ways_out}")
    free = {"finished", "sources", "unlabelled"}  # the same pictures may be named by another path
    if any(known.get(key) != value for key, value in record.items() if key not in free):
        raise DataError(f"{output}: made from other labels or pictures; {ways_out}")


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
