"""Write the findings of the check stage as a page, grouped by issue, with the images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from whichcar.data.check.check import Checked
from whichcar.data.check.issues import FILE, ISSUES, SEVERITIES, write_findings
from whichcar.files import check_writable, system_errors
from whichcar.pages.render import write_page
from whichcar.pages.thumbnails import evenly
from whichcar.progress import track
from whichcar.records import Finding
from whichcar.text import plural

PAGE = "check.html"
_UNWRITABLE = ("cannot be written", "name another folder with --output")
SHOWN = 60  # images of each issue
_LISTED = 200  # rows of an issue that has no images


def check_output(output: Path) -> None:
    """Raise DataError if `write_report` could not write to this folder."""
    with system_errors(output, *_UNWRITABLE):
        for name in (FILE, PAGE):
            check_writable(output / name)


def write_report(checked: Checked, output: Path) -> tuple[Path, Path]:
    """Write issues.csv and a self-contained check.html to a folder and return their paths.

    Raises:
        DataError: the folder cannot be written to.
    """
    with system_errors(output, *_UNWRITABLE):
        write_findings(output / FILE, checked.findings)
        return output / FILE, _write_page(checked, output / PAGE)


def _write_page(checked: Checked, path: Path) -> Path:
    collection = checked.collection
    classes = len({entry.class_name for entry in collection.entries if entry.class_name})
    images = f"{plural(len(collection.entries), 'image')} of {plural(classes, 'class')} ({collection.kind})"
    severities = [plural(sum(row.severity == name for row in checked.findings), name) for name in SEVERITIES]
    names = list(dict.fromkeys(name for name, _ in checked.counts))
    sections = (_section(checked, name) for name in track(names, "writing the page", unit="issues"))
    return write_page(
        path,
        "check",
        f"{collection.root.resolve().name}: check",
        summary=f"{images}; {', '.join(severities)}; all are in {FILE}",
        counts=checked.counts,
        issues=ISSUES,
        sections=sections,
        root=collection.root,
        listed=_LISTED,
        table=FILE,
    )


def _section(checked: Checked, name: str) -> dict[str, object]:
    findings = [row for row in checked.findings if row.issue == name]
    with_image = [row for row in _without_reverse(findings) if _has_image(checked.collection.root, row)]
    listed = [row for row in findings if not _has_image(checked.collection.root, row)]
    ranked = bool(with_image and with_image[0].rank)
    pairs = sum(bool(row.other) for row in with_image)
    counts = {"pair": pairs, "image": len(with_image) - pairs, "finding": len(listed)}
    return {
        "issue": ISSUES[name],
        "count": ", ".join(plural(count, noun) for noun, count in counts.items() if count),
        "cards": len(with_image),
        "shown": with_image[:SHOWN] if ranked else evenly(with_image, len(with_image), SHOWN),
        "listed": listed,
    }


def _has_image(root: Path, finding: Finding) -> bool:
    """Return True if the image is shown; if it cannot be read, the reason would be on the page twice."""
    is_read = finding.issue not in ("unreadable", "truncated")
    return is_read and os.path.isfile(root / finding.path)  # noqa: PTH113  (False for a name that is too long)


def _without_reverse(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the findings, but only the first of two about the same pair."""
    seen: set[tuple[str, ...]] = set()
    for finding in findings:
        pair = tuple(sorted((finding.path, finding.other)))
        if not finding.other or pair not in seen:
            seen.add(pair)
            yield finding
