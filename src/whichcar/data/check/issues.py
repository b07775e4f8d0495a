"""The issues that a set of images can have, by name, and issues.csv, the table of the findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from whichcar import files
from whichcar.data.split.groups import SUGGESTED
from whichcar.errors import DataError
from whichcar.records import Finding
from whichcar.text import shell_command

FILE = "issues.csv"
COLUMNS = ("path", "issue", "severity", "detail")
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Issue:
    """A kind of finding: its usual severity and what it means."""

    name: str
    severity: str
    meaning: str


ISSUES = {
    issue.name: issue
    for issue in (
        Issue("unreadable", "error", "the file cannot be read as an image"),
        Issue("truncated", "error", "the end of the image is missing"),
        Issue(
            "leak",
            "error",
            "a copy of it is in another split (train, validation, test), so the measured accuracy is too high",
        ),
        Issue(
            "label_conflict",
            "error",
            "copies of one image have different classes, or rows of the label file disagree",
        ),
        Issue("missing_class", "error", "the class has no image to learn from, or none to test with"),
        Issue("row_without_file", "error", "the label file names an image that is not there"),
        Issue("bad_row", "error", "a row of the label file cannot be used"),
        Issue("label_error", "warning", "a network not trained on the image is confident of another class"),
        Issue("exact_duplicate", "warning", "another file has the same bytes"),
        Issue("near_duplicate", "warning", "another file has the same photo: re-encoded, resized, cropped or mirrored"),
        Issue("file_without_row", "warning", "no row of the label file names the image, so it is not used"),
        Issue("wrong_extension", "warning", "the suffix does not match the file's format"),
        Issue(
            "class_name", "warning", "the class may be a second spelling of another, or is not named like the others"
        ),
        Issue("blank", "warning", "hardly anything is visible"),
        Issue("tiny", "warning", "too few pixels to identify anything"),
        Issue(
            "likely_group",
            "note",
            "images in several splits are named like photos of one object; if they are, "
            f"split them with --group-by {shell_command([SUGGESTED])}",
        ),
        Issue("odd_aspect", "note", "extreme aspect ratio: little detail is left after resizing to a square"),
        Issue("dark", "note", "even its brightest parts are dark"),
        Issue("bright", "note", "even its darkest parts are bright"),
        Issue("blurry", "note", "blurred: hardly any edges"),
        Issue("odd_mode", "note", "not 8-bit RGB; it is converted when it is read"),
        Issue("exif_rotated", "note", "EXIF orientation is not 1; rotated when it is read"),
        Issue("animated", "note", "several frames; the first is taken"),
        Issue("imbalance", "note", "the class has far fewer or far more images than most"),
    )
}
_ORDER = {name: place for place, name in enumerate(ISSUES)}


def finding(path: str, issue: str, detail: str, other: str = "", severity: str | None = None, rank: int = 0) -> Finding:
    """Return a finding, with the issue's usual severity unless another one is given."""
    return Finding(path, issue, severity or ISSUES[issue].severity, detail, other, rank)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings in the order of the table: by issue, the most severe first, then by rank and path."""
    return sorted(
        findings,
        key=lambda one: (_ORDER[one.issue], SEVERITIES.index(one.severity), one.rank, one.path, one.other),
    )


def matching(findings: Iterable[Finding], names: Sequence[str], option: str) -> list[Finding]:
    """Return the findings selected by names of issues, names of severities, or `any`.

    Raises:
        DataError: a name is unknown; the message begins with the option and lists the known names.
    """
    known = ["any", *SEVERITIES, *ISSUES]
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"{option}: no issue is called {unknown[0]!r}; known: {', '.join(known)}")
    return [one for one in findings if {"any", one.severity, one.issue} & set(names)]


def write_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Write issues.csv, one row per finding, whole or not at all."""
    rows = ((one.path, one.issue, one.severity, one.detail) for one in ordered(findings))
    files.write_csv(path, COLUMNS, rows)
