"""The check stage as a page: what was found, grouped by issue, with the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from whichcar.data import page
from whichcar.data.check.check import Checked
from whichcar.data.check.issues import FILE, ISSUES, SEVERITIES, Issue, write_findings
from whichcar.errors import DataError
from whichcar.progress import track
from whichcar.records import Finding
from whichcar.text import plural

PAGE = "check.html"
SHOWN = 60  # images of each issue
_LISTED = 200  # rows of an issue that has no images


def write_report(checked: Checked, output: Path) -> tuple[Path, Path]:
    """Write issues.csv and check.html, which needs no other file, into a folder and return their paths.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        write_findings(output / FILE, checked.findings)
        return output / FILE, _write_page(checked, output / PAGE)
    except OSError as error:
        raise DataError(f"{output}: {error.strerror}; name another folder with --output") from error


def _write_page(checked: Checked, path: Path) -> Path:
    collection, counts = checked.collection, checked.counts
    classes = len({entry.class_name for entry in collection.entries if entry.class_name})
    said = f"{plural(len(collection.entries), 'image')} of {plural(classes, 'class')} ({collection.kind})"
    worst = [plural(sum(one.severity == name for one in checked.findings), name) for name in SEVERITIES]
    head = f"<p class=soft>{page.text(said)}; {', '.join(worst)}; every one of them in {FILE}</p>"
    found = list(dict.fromkeys(name for name, _ in counts))
    rows = "".join(f"<tr>{_row(ISSUES[name], severity, count)}</tr>" for (name, severity), count in counts.items())
    table = f"<div class=scroll><table>{rows}</table></div>" if found else "<p>Nothing was found.</p>"
    sections = (_section(checked, name) for name in track(found, "writing the page", unit="issues"))
    return page.write_page(path, f"{collection.root.resolve().name}: check", [head, table, *sections])


def _row(issue: Issue, severity: str, count: int) -> str:
    link = f'<a href="#{issue.name}">{_title(issue.name)}</a>'
    said = f"<td class=soft>{severity}</td><td class=soft>{page.text(issue.meaning)}</td>"
    return f"<td class=n>{count:,}</td><td class={severity}>{link}</td>{said}"


def _title(name: str) -> str:
    return name.replace("_", " ")


def _section(checked: Checked, name: str) -> str:
    rows = [one for one in checked.findings if one.issue == name]
    root = checked.collection.root
    pictures = [one for one in _without_reverse(rows) if _is_shown(root, one)]
    listed = [one for one in rows if not _is_shown(root, one)]
    shown = list(_spread(pictures, SHOWN))
    told = f"{page.text(ISSUES[name].meaning)}{_of(len(shown), len(pictures))}"
    gallery = page.gallery(_figure(root, one) for one in shown) if shown else ""
    lines = "".join(f"<li><b>{page.text(one.path)}</b> {page.text(one.detail)}</li>" for one in listed[:_LISTED])
    more = f"<p class=soft>{len(listed) - _LISTED} more in {FILE}</p>" if len(listed) > _LISTED else ""
    text = f"<ul>{lines}</ul>{more}" if listed else ""
    return (
        f"<h2 id={name}>{_title(name)} <span class=soft>{len(rows)}</span></h2><p class=soft>{told}</p>{gallery}{text}"
    )


def _is_shown(root: Path, one: Finding) -> bool:
    """True for a finding with an image: in place of one that cannot be read, its reason would stand there twice."""
    return one.issue not in ("unreadable", "truncated") and (root / one.path).is_file()


def _of(shown: int, count: int) -> str:
    return f"; {shown} of {count} shown" if shown < count else ""


def _without_reverse(rows: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the rows, but of two that tell of the same pair only the first."""
    seen: set[tuple[str, ...]] = set()
    for one in rows:
        pair = tuple(sorted((one.path, one.other)))
        if not one.other or pair not in seen:
            seen.add(pair)
            yield one


def _spread(rows: Sequence[Finding], most: int) -> Iterator[Finding]:
    """Yield at most so many rows: the first where they are ranked, else evenly from all of them."""
    if rows and rows[0].rank:
        return iter(rows[:most])
    count = len(rows)
    return (row for place, row in enumerate(rows) if count <= most or place * most % count < most)


def _figure(root: Path, one: Finding) -> str:
    name, detail = page.text(one.path), page.text(one.detail)
    said = f"<b>{name}</b> <span class={one.severity}>{detail}</span>"
    if not one.other:
        return page.figure(root / one.path, said)
    pair = f"<div>{page.image(root / one.path)}{page.image(root / one.other)}</div>"
    return f"<figure class=pair>{pair}<figcaption>{said}</figcaption></figure>"
