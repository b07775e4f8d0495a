"""Whether one of two evaluated experiments is better on the same images."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from whichcar.errors import DataError
from whichcar.evaluation.paired import Paired
from whichcar.evaluation.result import read_result
from whichcar.evaluation.upgrade import read_predictions
from whichcar.files import PREDICTIONS, RESULT, checksum
from whichcar.text import reason_of, shell_command


def paired(first: Path, second: Path) -> Paired:
    """Compare two evaluated experiments on the images that both predicted.

    Args:
        first, second: folders with the result.json and predictions.csv of one evaluation.

    Raises:
        DataError: one has not been evaluated, the two were measured on other images, or have none in common that
            could be read.
    """
    second_result, first_result = read_result(second), read_result(first)
    other_files = first_result["data"]["fingerprint"] != second_result["data"]["fingerprint"]
    other_images = DataError(
        f"{first}: measured on other images ({_images(first_result)}) than {second} ({_images(second_result)}); "
        "only the same files, or crops of them that `whichcar crop` wrote under the same paths, can be matched: "
        "evaluate both on the same ones, with `whichcar evaluate --data DIR`"
    )
    if other_files and not (_is_crop(first_result) or _is_crop(second_result)):
        raise other_images
    correct, others = _correct(first, first_result), _correct(second, second_result)
    both = correct.keys() & others.keys()
    if other_files and len(both) < min(len(correct), len(others)):  # crops may lack images, but have no others
        raise other_images
    if not both:
        raise DataError(f"{first}: no image was predicted both here and by {second}; evaluate both again")
    return Paired(
        total=len(both),
        gained=sum(correct[path] and not others[path] for path in both),
        lost=sum(others[path] and not correct[path] for path in both),
        by_path=other_files,
    )


def _is_crop(result: dict[str, Any]) -> bool:
    """True when `whichcar crop` wrote the images of a result."""
    from whichcar.inference.input_crop import is_cropped

    return is_cropped(Path(result["data"]["root"]).absolute())


def _again(folder: Path) -> str:
    return shell_command(["whichcar", "evaluate", folder])


def _images(result: dict[str, Any]) -> str:
    data = result["data"]
    return f"{data['images']} {data['split']} of {data['root']}"


def _correct(folder: Path, result: dict[str, Any]) -> dict[str, bool]:
    """Return whether each image that could be read was predicted correctly, by its path relative to the data's root."""
    table = folder / PREDICTIONS
    try:
        correct = {row["path"]: row["correct"] == "1" for row in read_predictions(table) if not row["error"]}
    except FileNotFoundError:
        raise DataError(f"{table}: is not there; make it again with: {_again(folder)}") from None
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(f"{table}: not readable ({reason_of(error)}); make it again with: {_again(folder)}") from error
    top_1 = result["top_1"]
    if (len(correct), sum(correct.values())) != (top_1["total"], top_1["correct"]):
        raise DataError(
            f"{table}: {sum(correct.values())} of {len(correct)} correct, but {RESULT} says {top_1['correct']} of "
            f"{top_1['total']}; make both again with: {_again(folder)}"
        )
    expected = result.get("predictions", {}).get("blake2b")  # results of earlier versions have none
    if expected is not None and expected != checksum(table):
        raise DataError(f"{table}: is not the table of {RESULT} next to it; make both again with: {_again(folder)}")
    return correct
