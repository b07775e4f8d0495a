"""No image file can crash, stall or lose a row in any command, and the commands agree on which files can be read.

`WHICHCAR_FUZZ=SEED:COUNT pytest -m slow -rP tests/test_hostile_images.py` takes other files than those of seed 1, and
shows the time and the memory that each command took.
"""

import csv
import html
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from whichcar.errors import ImageError
from whichcar.images.read import read_image
from whichcar.text import as_text

from .colours import FOLDERS, colour_experiment, colour_model
from .hostile import make

__all__ = ["colour_experiment", "colour_model"]  # fixtures

SEED, COUNT = map(int, os.environ.get("WHICHCAR_FUZZ", "1:126").split(":"))
LIMIT = 60 + COUNT  # seconds a command may take
MOST = 1500  # megabytes
MEASURE = """
import json, resource, subprocess, sys
limit, *command = sys.argv[1:]
status = subprocess.run(command, timeout=float(limit)).returncode
json.dump([status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024], open("measured.json", "w"))
"""
PACK = """
import json, sys
from pathlib import Path
from whichcar.data.decoded_cache import decode_all
from whichcar.files import images
root, cache = map(Path, sys.argv[1:])
paths = images(root)
images = decode_all(paths, (24, 32), cache)
reported = {one.path: one.reason.removeprefix(f"{one.path}: ") for one in images.skipped}
rows = {path.relative_to(root).as_posix(): reported.get(path, "") for path in paths[: len(images)]}
print(json.dumps({name.encode("utf-8", "backslashreplace").decode(): reason for name, reason in rows.items()}))
"""

pytestmark = pytest.mark.slow


class Ran(NamedTuple):
    """What a command did; `peak` is its largest memory in megabytes."""

    status: int
    out: str
    err: str
    seconds: float
    peak: int


class Hostile(NamedTuple):
    """The files: why each cannot be read, "" where it can, by its path as text."""

    folder: Path
    made: dict[str, str]
    problems: dict[str, str]

    @property
    def unreadable(self) -> dict[str, str]:
        return {path: problem for path, problem in self.problems.items() if problem}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    folder = tmp_path_factory.mktemp("hostile") / "cars"
    made = make(folder, SEED, COUNT, FOLDERS)
    return Hostile(folder, made, {as_text(path): problem_of(folder / path) for path in made})


def problem_of(path: Path) -> str:
    try:
        with warnings.catch_warnings(action="ignore"):  # which the tests make errors
            read_image(path)
    except ImageError as error:
        return error.reason
    return ""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """The function that runs a command in a process of its own, and fails where that stalls, crashes or swells."""

    def ran(*arguments: str | Path, status: int = 0) -> Ran:
        command = arguments if arguments[0] == "-c" else ("-m", "whichcar", *arguments)
        start = time.perf_counter()
        # Between the two stands a small process: the memory of the one that forks counts as that of the command.
        measured = subprocess.run(
            [sys.executable, "-c", MEASURE, str(LIMIT), sys.executable, *command],
            cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
        )  # fmt: skip
        assert measured.returncode == 0, measured.stderr  # it took longer than the limit
        ended, peak = json.loads((tmp_path / "measured.json").read_text(encoding="utf-8"))
        found = Ran(ended, measured.stdout, measured.stderr, time.perf_counter() - start, peak)
        sys.stdout.write(f"{arguments[0]:9s} {COUNT} files {found.seconds:6.1f} s {found.peak:5d} MB\n")
        assert found.status == status, found.err
        assert "Traceback" not in found.out + found.err
        assert found.peak < MOST
        return found

    return ran


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def assert_reported(reported: list[tuple[str, str]], expected: dict[str, str]) -> None:
    """Compare (path, problem) pairs, a row a file, with what is known of the files."""
    assert len(reported) == len(dict(reported))
    assert dict(reported) == expected


def test_check_tells_of_every_unreadable_file(hostile: Hostile, run: Callable[..., Ran], tmp_path: Path) -> None:
    ran = run("check", hostile.folder, "--output", tmp_path, "--fail-on", "unreadable", status=1)
    rows = table(tmp_path / "issues.csv")
    assert f"{len(hostile.made)} images" in ran.out
    assert {row["path"] for row in rows if row["issue"] not in ("imbalance", "class_name")} <= set(hostile.problems)
    reported = [(row["path"], row["detail"]) for row in rows if row["issue"] in ("unreadable", "truncated")]
    assert_reported(reported, hostile.unreadable)


@pytest.mark.parametrize("command", ["explore", "look"])
def test_the_page_counts_every_unreadable_file(
    hostile: Hostile, run: Callable[..., Ran], tmp_path: Path, command: str
) -> None:
    run(command, hostile.folder, "--output", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    listed = [html.unescape(line) for line in re.findall(r"<li>(.*?)</li>", page, re.DOTALL)]
    more = re.search(r"and ([\d,]+) more", page)
    assert len(listed) + (int(more[1].replace(",", "")) if more else 0) == len(hostile.unreadable)


def test_split_uses_every_file_or_says_why_not(hostile: Hostile, run: Callable[..., Ran], tmp_path: Path) -> None:
    run("split", hostile.folder, tmp_path / "split", "--keep-copies")
    record = json.loads((tmp_path / "split" / "split.json").read_text(encoding="utf-8"))
    left_out = {row["img_name"] for row in record["problems"]}
    linked = [path for path in (tmp_path / "split").glob("t*/**/*") if path.is_file()]
    assert len(record["problems"]) == len(left_out)
    assert left_out <= set(hostile.problems)
    assert len(linked) + len(left_out) == len(hostile.made)
    sound = {path for path in left_out if not hostile.problems[path]}
    assert all("\\udc" in path for path in sound)  # names that are no text; no label file could hold them


def test_crop_has_a_row_for_every_file(
    hostile: Hostile, run: Callable[..., Ran], tmp_path: Path, red_car_file: Path
) -> None:
    output = tmp_path / "crops"
    run("crop", hostile.folder, output, "--detector", red_car_file)
    rows = table(output / "boxes.csv")
    reported = [(as_text(row["path"]), row["outcome"]) for row in rows]
    outcomes = {path: f"skipped: {problem}" for path, problem in hostile.unreadable.items()}
    cropped = {path: outcome for path, outcome in reported if path not in outcomes}
    assert_reported(reported, cropped | outcomes)
    assert cropped.keys() == hostile.problems.keys() - outcomes.keys()
    assert set(cropped.values()) <= {"cropped", "whole: no vehicle"}
    assert all((output / row["path"]).is_file() for row in rows if as_text(row["path"]) in cropped)


def test_predict_has_a_row_for_every_file(
    hostile: Hostile, run: Callable[..., Ran], colour_experiment: Path, red_car_file: Path
) -> None:
    start = f"{as_text(hostile.folder)}/"
    for more in ((), ("--crop", "--detector", red_car_file)):
        rows = map(json.loads, run("predict", colour_experiment, hostile.folder, "--json", *more).out.splitlines())
        assert_reported([(row["path"].removeprefix(start), row.get("problem") or "") for row in rows], hostile.problems)


def test_evaluate_has_a_row_for_every_file(hostile: Hostile, run: Callable[..., Ran], colour_experiment: Path) -> None:
    run("evaluate", colour_experiment, "--data", hostile.folder)
    (path,) = colour_experiment.rglob("predictions.csv")
    assert_reported([(row["path"], row["error"]) for row in table(path)], hostile.problems)


def test_training_decodes_every_file_or_says_why_not(hostile: Hostile, run: Callable[..., Ran], tmp_path: Path) -> None:
    ran = run("-c", PACK, hostile.folder, tmp_path / "cache")
    assert_reported(list(json.loads(ran.out).items()), hostile.problems)
