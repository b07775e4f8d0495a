"""What the stages found, as lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whichcar.config_table import Setting
    from whichcar.data.packed import CacheInfo
    from whichcar.data.split import Split

_SHOWN = 10
_CLASSES_SHOWN = 20


def of_split(split: Split) -> Iterator[str]:
    """Tell how many pictures went where and which rows could not be used."""
    counts = split.counts
    yield f"{split.output}: {len(split.classes)} classes"
    yield f"  train {counts['train']} pictures, {counts['validation']} of them for validation; test {counts['test']}"
    if split.unlabelled:
        yield f"  {split.unlabelled} pictures have no row in the label file and were left out"
    if split.problems:
        yield f"  {len(split.problems)} rows could not be used:"
        for problem in split.problems[:_SHOWN]:
            yield f"    {problem.path}: {problem.reason}"
        if len(split.problems) > _SHOWN:
            yield f"    ... all of them in {split.output / 'split.json'}"


def of_settings(settings: Iterable[tuple[str, object, str]]) -> Iterator[str]:
    """List every setting with its value and where it comes from."""
    rows = [(key, json.dumps(value, ensure_ascii=False, default=str), origin) for key, value, origin in settings]
    yield from columns(rows)


def of_setting_table(settings: Iterable[Setting]) -> Iterator[str]:
    """List all settings there are as a Markdown table."""
    yield "| setting | kind | default | limits | meaning |"
    yield "|---|---|---|---|---|"
    for setting in settings:
        name = f"`{setting.name}`"
        yield f"| {' | '.join([name, *(cell.replace('|', chr(92) + '|') for cell in setting[1:])])} |"


def of_caches(root: Path, caches: Sequence[CacheInfo]) -> Iterator[str]:
    """List the decoded caches and their sum."""
    if not caches:
        yield f"{root}: no cache"
        return
    rows = [("key", "pictures", "size", "MB", "made")]
    for info in caches:
        made = datetime.fromtimestamp(info.created).strftime("%Y-%m-%d %H:%M")
        rows.append((info.key, str(info.images), f"{info.size[0]}x{info.size[1]}", f"{info.bytes / 1e6:.1f}", made))
    yield from columns(rows)
    yield f"{sum(info.bytes for info in caches) / 1e6:.1f} MB in {root}; remove with: whichcar cache clear [KEY]"


def of_result(result: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Tell how good a classifier is.

    Args:
        result: the content of result.json.
        folder: where it lies, with the report and the plots.
    """
    data, best, classes = result["data"], result["top_1"], result["classes"]
    size = "x".join(map(str, result["image_size"]))
    low, high = best["interval_95"]
    yield f"{result['checkpoint']['file']}: {best['of']} {data['part']} pictures of {len(classes)} classes, {size}"
    if data["unreadable"]:
        yield f"  {data['unreadable']} pictures could not be read; they are listed in result.json"
    yield ""
    yield f"  accuracy   {best['value']:6.1%}   (95 % interval {low:.1%} to {high:.1%}; {best['right']} right)"
    if len(classes) > 5:
        yield f"  best five  {result['top_5']['value']:6.1%}"
    yield f"  by chance  {1 / len(classes):6.1%}"
    yield ""
    yield from _classes(classes)
    for pair in result["most_confused"][:3]:
        yield f"  {pair['truth']} taken for {pair['said']}: {pair['count']} of {pair['of']}"
    yield ""
    yield f"report   {folder / 'report.html'}"
    yield f"plots    {folder / 'plots'}"
    yield f"numbers  {folder / 'result.json'}, {folder / 'predictions.csv'}"


def _classes(classes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """List the classes, the hardest first; of many only the hardest."""
    hardest = sorted(classes, key=lambda row: (row["recall"], row["f1"]))
    rows = [("class", "pictures", "right", "recall", "precision")]
    for row in hardest[:_CLASSES_SHOWN]:
        shares = (f"{row['recall']:.0%}", f"{row['precision']:.0%}")
        rows.append((row["name"], str(row["pictures"]), str(row["right"]), *shares))
    for line in columns(rows):
        yield f"  {line}"
    if len(hardest) > _CLASSES_SHOWN:
        yield f"  ... {len(hardest) - _CLASSES_SHOWN} easier classes stand in the report"
    yield ""


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Align the cells: the first column to the left, numbers to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    numeric = [all(_is_number(row[place]) for row in rows[1:]) for place in range(len(widths))]
    for row in rows:
        cells = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numeric, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _is_number(cell: str) -> bool:
    return cell.rstrip("%").replace(".", "", 1).isdigit()
