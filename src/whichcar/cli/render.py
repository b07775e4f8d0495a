"""What the stages found, as lines for a terminal."""

from __future__ import annotations

import json
import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from whichcar.text import one_line, plural, shell_command

if TYPE_CHECKING:
    from whichcar.config.table import Setting
    from whichcar.data.check.check import Checked
    from whichcar.data.decoded_cache import CacheInfo
    from whichcar.data.fetch.fetch import Fetched
    from whichcar.data.split.split import Split
    from whichcar.records import Crop, Finding
    from whichcar.search.driver import Swept

_SHOWN = 10
_CLASSES_SHOWN = 20
_WORST_SHOWN = 5


def of_fetched(fetched: Fetched) -> Iterator[str]:
    """Tell what is there now and what to type next."""
    into, labels = fetched.into, fetched.into / "car_dataset_labels.csv"
    yield f"{into}: {plural(fetched.pictures, 'image')}, {plural(fetched.labels, 'label')} ({fetched.kind})"
    for one in fetched.files:
        if one.sha256:
            yield f"  {one.source}: {one.size / 1e6:.1f} MB, SHA-256 {one.sha256}"
    counts = ", ".join(f"{split} {count:,}" for split, count in fetched.splits.items())
    yield f"  {plural(len(fetched.classes), 'class')}: {_some(fetched.classes)}; {counts or 'no labels'}"
    if not fetched.fresh:
        yield "  fetched before; nothing to do"
    command: list[str | Path] = ["whichcar", "split", into, labels, into / "car_ims_v1"]
    yield f"next: {shell_command(command)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(one_line, names[:_SHOWN])) + more


def of_split(split: Split) -> Iterator[str]:
    """Tell how many images went where and which rows could not be used."""
    counts = split.counts
    yield f"{split.output}: {plural(len(split.classes), 'class')}"
    held = f"{counts['validation']:,} of them for validation"
    yield f"  train {plural(counts['train'], 'image')}, {held}; test {plural(counts['test'], 'image')}"
    if split.test_share == 0:
        yield "  no test split was drawn (--test-share 0)"
    elif split.test_share is not None:
        yield f"  test was drawn: a share of {split.test_share:g} of the images (--test-share), by class"
    if split.groups:
        yield f"  {plural(split.groups, 'group')}, each on one side of the split"
    if split.unlabelled:
        yield f"  {plural(split.unlabelled, 'image')} without a label, left out"
    if split.unused_classes:
        count = plural(len(split.unused_classes), "class")
        yield f"  warning: {count} without a usable image, left out: {_some(split.unused_classes)}"
    if split.conflicts:
        command = shell_command(["whichcar", "check", split.output])
        yield f"  warning: {split.conflicts:,} images have a copy in another class; list them with: {command}"
    if split.problems:
        yield f"  {plural(len(split.problems), 'row')} could not be used:"
        for problem in split.problems[:_SHOWN]:
            yield f"    {problem.path}: {problem.reason}"
        if len(split.problems) > _SHOWN:
            yield f"    ... all of them in {split.output / 'split.json'}"


def of_checked(checked: Checked, pages: Iterable[Path]) -> Iterator[str]:
    """Tell how often each issue was found, and where all of it stands."""
    from whichcar.data.check.issues import ISSUES

    collection = checked.collection
    count = len({entry.class_name for entry in collection.entries if entry.class_name})
    classes = f" of {plural(count, 'class')}" if count else ""
    yield f"{collection.root}: {plural(len(collection.entries), 'image')}{classes} ({collection.kind})"
    if not checked.findings:
        yield "  nothing was found"
    for (name, severity), found in checked.counts.items():
        yield f"  {found:6d}  {severity:8s} {name:17s} {ISSUES[name].meaning}"
    for path in pages:
        yield f"{'table' if path.suffix == '.csv' else 'page':6s} {path}"


def counted(findings: Iterable[Finding]) -> str:
    """Return such as `leak 3, unreadable 1`."""
    counts = Counter(one.issue for one in findings)
    return ", ".join(f"{name} {count}" for name, count in counts.items())


class Cropped:
    """Counts what the crop stage did, row by row, and tells it."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.outcomes: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.scores = array("f")  # a list would take eight times the memory
        self.folders: dict[str, Counter[str]] = {}

    @property
    def count(self) -> int:
        """How many images there were so far."""
        return self.outcomes.total()

    def add(self, row: Crop) -> None:
        """Count one more image."""
        self.outcomes[row.outcome] += 1
        if row.score is not None:
            self.labels[row.label] += 1
            self.scores.append(row.score)
        self.folders.setdefault(PurePath(row.path).parent.name, Counter())[row.kind] += 1

    def lines(self) -> Iterator[str]:
        """Tell how many were cropped, left whole and skipped, and in which classes most were not cropped."""
        cropped = len(self.scores)
        yield f"{self.output}: {plural(self.count, 'image')}"
        if cropped:
            found = ", ".join(f"{one_line(label)} {count}" for label, count in self.labels.most_common())
            middle = statistics.median(self.scores)
            yield f"  {cropped:6d}  {cropped / self.count:6.1%}  cropped ({found}; middle score {middle:.2f})"
        others = [(outcome, count) for outcome, count in self.outcomes.most_common() if outcome != "cropped"]
        for outcome, count in others[:_SHOWN]:
            yield f"  {count:6d}  {count / self.count:6.1%}  {outcome}"
        if len(others) > _SHOWN:
            yield f"  ... {plural(len(others) - _SHOWN, 'more reason')} in {self.output / 'boxes.csv'}"
        shares = {name: 1 - counts["cropped"] / counts.total() for name, counts in self.folders.items()}
        worst = sorted((-share, name) for name, share in shares.items() if share)[:_WORST_SHOWN]
        if worst and len(self.folders) > 1:
            yield "  least often cropped:"
            for share, name in worst:
                total, cropped = self.folders[name].total(), self.folders[name]["cropped"]
                yield f"    {-share:4.0%} not ({total - cropped} of {total})  {one_line(name)}"
        yield f"table  {self.output / 'boxes.csv'}"


def of_detectors() -> Iterator[str]:
    """List the detectors that have a name."""
    from whichcar.detection import zoo
    from whichcar.detection.families import projects

    rows = [("name", "family", "input", "COCO AP", "licence", "checksum")]
    for entry in zoo.ENTRIES:
        known = "known" if entry.sha256 else "of the first download"
        numbers = (f"{entry.side}", f"{entry.average_precision}")
        rows.append((entry.name, entry.family, *numbers, entry.licence, known))
    yield from columns(rows)
    yield ""
    yield f"{zoo.DEFAULT} is taken where none is named and {zoo.FILE_VARIABLE} names no file."
    yield "yolox-nano is the smallest and misses most: a low sports car close to the camera, for instance."
    yield f"Also: detectron2 (Faster R-CNN R101-FPN, AP 42.0) where it is installed, and PATH.onnx of {projects()}."


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


def of_swept(swept: Swept) -> Iterator[str]:
    """Tell what a search led to and what to type next."""
    said = ", ".join(f"{count} {outcome}" for outcome, count in swept.counts.items())
    yield f"{swept.folder}: {said or 'no trial'}"
    if not swept.new:
        yield "  nothing to do: the budget is used up; raise it in the file, or with --trials or --minutes, to go on"
    if swept.best is not None:
        yield f"  best: trial {swept.best}, {swept.metric} {swept.value:.4f}"
    yield f"table   {swept.folder / 'trials.csv'}"
    if swept.report:
        yield f"report  {swept.report}"
    if swept.config:
        yield f"next: {shell_command(['whichcar', 'train', swept.config])}"


def of_caches(root: Path, caches: Sequence[CacheInfo]) -> Iterator[str]:
    """List the decoded caches and their sum."""
    if not caches:
        yield f"{root}: no cache"
        return
    rows = [("key", "images", "size", "MB", "made")]
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
    what = "image" if data["part"] == "pictures" else f"{data['part']} image"
    present = [row for row in classes if row["pictures"]]
    all_of = "" if len(present) == len(classes) else f"{len(present)} of the model's "
    yield (
        f"{one_line(result['checkpoint']['file'])}: {plural(best['of'], what)} of {all_of}"
        f"{plural(len(classes), 'class')}, "
        f"{size}; this experiment has been evaluated on them {plural(data['evaluations'], 'time')}"
    )
    if data["unreadable"]:
        yield f"  {plural(data['unreadable'], 'image')} could not be read; they are listed in result.json"
    for warning in result["warnings"]:
        yield f"  warning: {one_line(warning)}"
    yield ""
    yield f"  accuracy   {best['value']:6.1%}   (95 % interval {low:.1%} to {high:.1%}; {best['right']} correct)"
    if len(classes) > 5:
        yield f"  top-5      {result['top_5']['value']:6.1%}"
    yield f"  by chance  {1 / len(classes):6.1%}"
    yield ""
    yield from _classes(present)
    for pair in result["most_confused"][:3]:
        yield f"  {one_line(pair['truth'])} predicted as {one_line(pair['said'])}: {pair['count']} of {pair['of']}"
    yield ""
    yield f"report   {folder / 'report.html'}"
    yield f"plots    {folder / 'plots'}"
    yield f"numbers  {folder / 'result.json'}, {folder / 'predictions.csv'}"


def _classes(classes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """List the classes, the hardest first; of many only the hardest."""
    hardest = sorted(classes, key=lambda row: (row["recall"], row["f1"]))
    rows = [("class", "images", "correct", "recall", "precision")]
    for row in hardest[:_CLASSES_SHOWN]:
        shares = (f"{row['recall']:.0%}", f"{row['precision']:.0%}")
        rows.append((one_line(row["name"]), str(row["pictures"]), str(row["right"]), *shares))
    for line in columns(rows):
        yield f"  {line}"
    if len(hardest) > _CLASSES_SHOWN:
        yield f"  ... {plural(len(hardest) - _CLASSES_SHOWN, 'easier class')} in the report"
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
