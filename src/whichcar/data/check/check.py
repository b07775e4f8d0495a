"""The check stage: find everything wrong, odd or doubtful about a set of images, with one row per finding."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from whichcar import files
from whichcar.data.check import quality
from whichcar.data.check.class_names import odd_names
from whichcar.data.check.copies import of_copies, of_groups
from whichcar.data.check.issues import finding, ordered
from whichcar.data.dataset import Collection, collect
from whichcar.data.duplicates.find import Prints, find_duplicates
from whichcar.data.duplicates.scan import Scan, ScanCache
from whichcar.data.split_names import VALIDATION
from whichcar.errors import ImageError, UnsupportedFormatError
from whichcar.images.read import read_format
from whichcar.progress import track
from whichcar.records import TINY, Finding, ImageHeader
from whichcar.text import plural

_UNEVEN = 4  # times fewer or more images than the median class
_TOGETHER = 4096  # images judged at once
_MODES = {"L": "grey", "LA": "grey with transparency", "1": "black and white", "P": "a palette", "RGBA": "transparency"}


@dataclass(frozen=True)
class Checked:
    """The result of `check` for `collection`; findings are sorted, the most severe first."""

    collection: Collection
    findings: list[Finding]

    def with_findings(self, more: Iterable[Finding]) -> Checked:
        """Return a copy with further findings."""
        return Checked(self.collection, ordered([*self.findings, *more]))

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """The number of findings of each issue and severity, in the order of the findings."""
        return Counter((one.issue, one.severity) for one in self.findings)


def check(data: str | Path, labels: str | Path | None = None, smallest: int = TINY) -> Checked:
    """Scan every image of a folder once and report what is wrong or odd; nothing is changed or written there.

    Args:
        data: images with a label file, split into train/ and test/, in one folder per class, or just images.
        labels: the label file (default: car_dataset_labels.csv in `data`, unless its splits contain class folders).
        smallest: an image whose shorter side has fewer pixels is tiny.

    Raises:
        DataError: the folder is missing or has no images, the label file cannot be read, or the disk is full.
        MissingExtraError: cleanvision is not installed.
    """
    with ScanCache() as cache:
        return check_collection(collect(Path(data), Path(labels) if labels else None), cache, smallest)


def check_collection(collection: Collection, cache: ScanCache, smallest: int = TINY) -> Checked:
    """Check images that have been listed, as `check` does; images whose scans are in the cache are not read again."""
    names = odd_names(Counter(entry.class_name for entry in collection.entries if entry.class_name))
    found = [*_of_rows(collection), *names, *_of_classes(collection), *of_groups(collection)]
    prints = Prints()
    scans = cache.scan((collection.root / entry.path for entry in collection.entries), quality.measure)
    found += _of_images(collection, track(scans, "checking", len(collection.entries)), prints, smallest)
    found += of_copies(collection, find_duplicates(cache, prints, collection.path_of))
    return Checked(collection, ordered(found))


def _of_rows(collection: Collection) -> Iterator[Finding]:
    kinds = {"missing": "row_without_file", "bad": "bad_row"}
    for name, problem in collection.problems:
        if problem.kind in kinds:  # the scan reports files that cannot be used
            yield finding(name or "(no name)", kinds[problem.kind], str(problem))
    for path, labels in collection.disagreeing.items():
        yield finding(path, "label_conflict", f"its rows disagree: {' against '.join(labels)}")
    for path in collection.without_row:
        yield finding(path, "file_without_row", "no row of the label file names it")
    for path in collection.others:
        suffix = PurePosixPath(path).suffix
        try:
            form = read_format(collection.root / path)
        except ImageError as error:
            # Anything else is not an image, such as a list or a note.
            if isinstance(error, UnsupportedFormatError) or files.is_unopened(path):
                yield finding(path, "unreadable", error.reason)
            continue
        if form == "TIFF" and files.is_unopened(path):  # as camera raw begins, with a small preview
            yield finding(path, "unreadable", f"camera raw, or a TIFF image called {suffix}; convert it to JPEG")
        else:
            yield finding(path, "wrong_extension", f"a {form} image, not read for its suffix {suffix!r}; rename it")


def _of_classes(collection: Collection) -> Iterator[Finding]:
    """Yield classes without images or in one split only, and those with far fewer or more than the median class."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in collection.entries:
        if entry.class_name:
            counts[entry.class_name]["test" if entry.split == "test" else "train"] += 1
    if not counts:
        return
    known = {entry.class_name for entry in collection.entries if entry.split != VALIDATION}
    for name in sorted(set(collection.empty) - known):
        yield finding(name, "missing_class", "its folder has no image; add some, or remove it")
    splits = {split for count in counts.values() for split in count}
    median = statistics.median(count.total() for count in counts.values())
    for name, count in sorted(counts.items()):
        if "test" in splits and not count["train"]:
            yield finding(name, "missing_class", f"{plural(count['test'], 'test image')} and none in train")
        elif "test" in splits and not count["test"] and name not in collection.empty:
            found = f"{plural(count['train'], 'image')} in train and none in test"
            yield finding(name, "missing_class", found, severity="note")
        total = count.total()
        if total == 1 < median:
            yield finding(name, "imbalance", "one image only: none can be set aside for validation")
        elif not median / _UNEVEN <= total <= median * _UNEVEN:
            yield finding(name, "imbalance", f"{total} images; the median class has {median:g}")


def _of_images(collection: Collection, scans: Iterable[Scan], prints: Prints, smallest: int) -> Iterator[Finding]:
    """Yield the findings about each image by itself, and collect what is needed to compare it with others."""
    waiting: list[tuple[str, Scan, ImageHeader]] = []
    for entry, scan in zip(collection.entries, scans, strict=True):
        prints.add(scan)
        if scan.header is None or scan.fingerprint is None:
            yield finding(entry.path, "truncated" if scan.truncated else "unreadable", scan.problem)
            continue
        yield from _of_file(entry.path, scan.header, smallest)
        if scan.header.mode == "RGB" and quality.grey(scan.fingerprint.pixels):
            yield finding(entry.path, "odd_mode", "grey, stored as RGB")
        waiting.append((entry.path, scan, scan.header))
        if len(waiting) == _TOGETHER:
            yield from _of_quality(waiting)
            waiting.clear()
    yield from _of_quality(waiting)


def _of_file(path: str, header: ImageHeader, smallest: int) -> Iterator[Finding]:
    suffix = PurePosixPath(path).suffix.lower()
    meant = Image.registered_extensions().get(suffix)
    if meant != header.format:
        yield finding(path, "wrong_extension", f"a {header.format} image that is called {suffix}")
    if header.mode != "RGB":
        yield finding(path, "odd_mode", f"{_MODES.get(header.mode, 'stored')} ({header.mode})")
    if header.orientation != 1:
        yield finding(path, "exif_rotated", f"EXIF orientation {header.orientation}")
    if header.animated:
        yield finding(path, "animated", f"an animated {header.format}")
    if min(header.width, header.height) < smallest:
        yield finding(path, "tiny", f"{header.width} x {header.height} pixels")


def _of_quality(images: Sequence[tuple[str, Scan, ImageHeader]]) -> Iterator[Finding]:
    if not images:
        return
    sides = np.array([(header.width, header.height) for _, _, header in images], np.float64)
    measures = np.array([scan.measures for _, scan, _ in images])
    for issue, (marked, scores) in quality.judge(measures, sides.min(axis=1) / sides.max(axis=1)).items():
        for place in np.flatnonzero(marked):
            path, _, header = images[int(place)]
            size = f", {header.width} x {header.height} pixels" if issue == "odd_aspect" else ""
            yield finding(path, issue, f"score {scores[place]:.2f}{size}")
