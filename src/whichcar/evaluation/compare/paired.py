"""Paired tests of evaluated experiments on the same images, and a table of such tests."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whichcar.errors import DataError
from whichcar.evaluation.compare.markdown import table
from whichcar.evaluation.mcnemar import Paired
from whichcar.evaluation.result_file import read_result
from whichcar.files import EVALUATIONS, PREDICTIONS, RESULT, checksum
from whichcar.metrics import LEVEL
from whichcar.text import reason_of, shell_command
from whichcar.training.run.refits import experiment_name


def paired_table(experiments: Sequence[Path], against: Path) -> list[str]:
    """Return the lines of a Markdown table that tests all others against one, and why some could not be tested.

    Raises:
        DataError: none of them could be tested.
    """
    others = [folder for folder in experiments if folder.resolve() != against.resolve()]
    cells, problems, by_path = [], [], []
    for folder in others:
        name = experiment_name(folder)
        try:
            pair = paired(folder, against)
            cells.append([name, *_cells(pair)])
            by_path += [name] if pair.by_path else []
        except DataError as error:
            cells.append([name, *["–"] * 6, "not tested"])
            problems.append(error)
    if len(problems) == len(others):
        raise problems[0] if problems else DataError(f"{against}: nothing to test against it; give other experiments")
    name = experiment_name(against)
    head = (f"against {name}", "points", "95 % interval", "gained", "lost", "p", "McNemar's test", "meaning")
    return [
        *table(head, cells, left=1),
        "",
        f"Points are percentage points of accuracy; gained: correct here and wrong for {name}; lost: the opposite.",
        f"Better and worse (p below {LEVEL}) refer to these checkpoints on these images, not to other seeds;",
        "one in twenty such tests of equal classifiers says so by chance.",
        *([f"Crops are matched with whole images by their paths in the split: {', '.join(by_path)}."] * bool(by_path)),
        *(["", *(f"- {problem}" for problem in problems)] if problems else []),
    ]


def _cells(pair: Paired) -> list[str]:
    low, high = pair.interval
    return [
        f"{100 * pair.difference:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        str(pair.gained),
        str(pair.lost),
        f"{pair.p_value:.4f}" if pair.p_value >= 1e-4 else "< 0.0001",
        pair.test,
        pair.verdict,
    ]


def paired(first: Path, second: Path) -> Paired:
    """Compare two evaluated experiments on the images that both predicted.

    Args:
        first, second: folders with the result.json and predictions.csv of one evaluation.

    Raises:
        DataError: one has not been evaluated, the two were evaluated on different images, or they have no readable
            image in common.
    """
    second_result, first_result = read_result(second), read_result(first)
    other_files = first_result["data"]["fingerprint"] != second_result["data"]["fingerprint"]
    other_images = DataError(
        f"{first}: measured on other images ({_images(first_result)}) than {second} ({_images(second_result)}); "
        "only the same files, or crops of them that `whichcar crop` wrote under the same paths, can be matched: "
        "evaluate both on the same ones, with `whichcar evaluate --data DIR`, and compare the folders of those results"
    )
    if other_files and not (first_result["data"]["crops"] or second_result["data"]["crops"]):
        raise other_images
    correct, others = _correct(first, first_result), _correct(second, second_result)
    both = correct.keys() & others.keys()
    if other_files and len(both) < min(len(correct), len(others)):  # crops may be a subset of the images
        raise other_images
    if not both:
        raise DataError(f"{first}: no image was predicted both here and by {second}; evaluate both again")
    return Paired(
        total=len(both),
        gained=sum(correct[path] and not others[path] for path in both),
        lost=sum(others[path] and not correct[path] for path in both),
        by_path=other_files,
    )


def _again(folder: Path) -> str:
    return shell_command(["whichcar", "evaluate", folder])


def _images(result: dict[str, Any]) -> str:
    data = result["data"]
    return f"{data['images']} {data['split']} of {data['root']}"


def _correct(folder: Path, result: dict[str, Any]) -> dict[str, bool]:
    """Return whether each image that could be read was predicted correctly, by its path relative to the data's root."""
    path = folder / PREDICTIONS
    again = result["command"] if folder.resolve().parent.name == EVALUATIONS else _again(folder)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            correct = {row["path"]: row["correct"] == "1" for row in csv.DictReader(file) if not row["error"]}
    except FileNotFoundError:
        raise DataError(f"{path}: is not there; make it again with: {again}") from None
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(f"{path}: not readable ({reason_of(error)}); make it again with: {again}") from error
    top_1 = result["top_1"]
    if (len(correct), sum(correct.values())) != (top_1["total"], top_1["correct"]):
        raise DataError(
            f"{path}: {sum(correct.values())} of {len(correct)} correct, but {RESULT} says {top_1['correct']} of "
            f"{top_1['total']}; make both again with: {again}"
        )
    if result["predictions"]["blake2b"] != checksum(path):
        raise DataError(f"{path}: is not the table of {RESULT} next to it; make both again with: {again}")
    return correct
