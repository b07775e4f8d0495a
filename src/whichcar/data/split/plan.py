"""Plan where each labelled image goes in the split tree, and list rows that cannot be used; nothing is written."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from whichcar import files
from whichcar.data.duplicates.find import copies_and_unreadable, joined
from whichcar.data.labels import draw_share, folder_name
from whichcar.data.split.match import LabelledImage, RowProblem, bases_of, match, nothing_usable
from whichcar.data.split_names import TEST, TRAIN, VALIDATION
from whichcar.errors import DataError
from whichcar.records import Label
from whichcar.text import as_text


@dataclass(frozen=True)
class Plan:
    """The plan of a split, which accounts for every row of the labels.

    `targets` maps a path in the output, `<subset>/<folder>/<file>`, to the image. `classes` maps folders to true class
    names. `problems` maps row numbers (from 1) to why the rows cannot be used. `renamed` maps an img_name to its target
    if that does not have the image's own file name. `unlabelled` counts images without a row, in car_ims/ or next to
    usable ones. `groups` maps the names of groups to their targets. `together` lists the targets that belong on one
    side, because of copies and groups. `validation` are the targets that the labels assign to the validation split;
    they lie in train/ too. `unused_classes` are the classes in the labels that have no usable image. `conflicts` counts
    used images with a copy in another class.
    """

    targets: dict[str, Path]
    classes: dict[str, str]
    problems: dict[int, RowProblem]
    renamed: dict[str, str]
    unlabelled: int
    groups: dict[str, list[str]]
    together: list[list[str]]
    validation: frozenset[str]
    unused_classes: list[str]
    conflicts: int


def make_plan(
    data: Path,
    labels: Sequence[Label],
    keep_copies: bool = False,
    test_share: float = 0.25,
    seed: int = 123,
) -> Plan:
    """Decide for every label where its image goes, or why it cannot be used.

    Args:
        data: folder with the images, or with the images in `car_ims/`.
        labels: the rows. If none has a subset, the test split is drawn.
        keep_copies: use images even if a held-out split contains a copy of them or another image of their group.
        test_share: share of the images to draw for test; 0 for no test split.
        seed: random seed of the draw.

    Raises:
        DataError: no row can be used; the message contains the most common reason.
    """
    found, problems = match(data, labels)
    used = _without_repeats(found, problems)
    links = _Links(used)
    problems.update({item.row: links.unreadable[item.source] for item in used if item.source in links.unreadable})
    used = [item for item in used if item.row not in problems]
    if not any(label.subset for label in labels):
        used = _drawn(used, links, test_share, seed)
    used = _without_orphans(used, problems)
    if not keep_copies:
        used = _without_orphans(_without_linked(used, links, problems), problems)
    if not used:
        raise DataError(nothing_usable(data, [(labels[row - 1].img_name, one) for row, one in problems.items()]))
    folders = _folders({item.label.class_name for item in used})
    targets, renamed = _targets(used, folders)
    target_of = {source: target for target, source in targets.items()}
    held = {item.source for item in used if item.label.subset == VALIDATION}
    named: dict[str, list[str]] = defaultdict(list)
    for item in used:
        if item.label.group:
            named[item.label.group].append(target_of[item.source])
    together = ([target_of[source] for source in group if source in target_of] for group in links.groups)
    return Plan(
        targets=targets,
        classes={folder: name for name, folder in sorted(folders.items(), key=lambda pair: pair[1])},
        problems=dict(sorted(problems.items())),
        renamed=renamed,
        unlabelled=_unlabelled(data, labels, found),
        groups={name: sorted(named[name]) for name in sorted(named)},
        together=[group for group in together if len(group) > 1],
        validation=frozenset(target for target, source in targets.items() if source in held),
        unused_classes=sorted({as_text(label.class_name) for label in labels if label.class_name} - folders.keys()),
        conflicts=links.count_conflicts(used),
    )


class _Links:
    """Images that belong on one side of a split: copies, and images of one group, connected by chains of both.

    `unreadable` maps images that cannot be read to the reason; they are in no group.
    """

    def __init__(self, found: Sequence[LabelledImage]) -> None:
        copies, unreadable = copies_and_unreadable([item.source for item in found])
        self.unreadable = {found[number].source: RowProblem("unusable", why) for number, why in unreadable.items()}
        copies = [group for group in copies if not unreadable.keys() & group]  # copies are all readable, or none is
        named: dict[str, list[int]] = defaultdict(list)
        for number, item in enumerate(found):
            if item.label.group and number not in unreadable:
                named[item.label.group].append(number)
        self.groups = [[found[number].source for number in group] for group in joined([*copies, *named.values()])]
        self._copied = {found[number].source: place for place, group in enumerate(copies) for number in group}

    def count_conflicts(self, used: Iterable[LabelledImage]) -> int:
        """Count the images that have a copy in another class."""
        groups: dict[int, list[str]] = defaultdict(list)
        for item in used:
            if item.source in self._copied:
                groups[self._copied[item.source]].append(item.label.class_name)
        return sum(len(names) for names in groups.values() if len(set(names)) > 1)

    def problem(self, item: LabelledImage, held: Sequence[LabelledImage], split: str) -> RowProblem:
        """Return why an image cannot be used: its closest link to an image in a held-out split."""
        if group := [one for one in held if item.label.group and one.label.group == item.label.group]:
            return RowProblem("group", f"group {item.label.group!r} has {group[0].label.img_name} in {split}")
        copies = [one for one in held if self._copied.get(one.source, -1) == self._copied.get(item.source)]
        link = "a copy of" if copies else "linked, over copies and groups, to"
        return RowProblem("copy", f"{link} {(copies or held)[0].label.img_name} in {split}")


def _drawn(used: Sequence[LabelledImage], links: _Links, share: float, seed: int) -> list[LabelledImage]:
    """Return the rows with drawn subsets: about `share` of every class, in whole groups, is in test."""
    names = {item.source: item.label.img_name for item in used}
    classes: dict[str, list[str]] = defaultdict(list)
    for item in used:
        classes[item.label.class_name].append(item.label.img_name)
    groups = [[names[source] for source in group] for group in links.groups]
    test = draw_share(classes, share, seed, groups) if used and share else set()
    if used and share and not test:
        raise DataError(
            "no image can be set aside for test: every class is one image or one group; add images, or use a test "
            "share of 0"
        )
    subsets = {name: TEST if name in test else TRAIN for name in names.values()}
    return [replace(item, label=replace(item.label, subset=subsets[item.label.img_name])) for item in used]


def _unlabelled(data: Path, labels: Iterable[Label], found: Sequence[LabelledImage]) -> int:
    known = {base / PurePosixPath(label.img_name) for label in labels for base in bases_of(data)}
    known.update(item.source for item in found)
    around = (entry for folder in {data, *(item.source.parent for item in found)} for entry in folder.iterdir())
    fetched = (data / "car_ims" / name for name in files.walk(data / "car_ims"))  # such as a class without any row
    return sum(
        entry not in known and files.is_image(entry) and files.is_visible(entry.name) for entry in {*around, *fetched}
    )


def _without_repeats(found: Iterable[LabelledImage], problems: dict[int, RowProblem]) -> list[LabelledImage]:
    """Keep the first of several equal rows, and none of the rows that disagree about an image."""
    by_source: dict[Path, list[LabelledImage]] = defaultdict(list)
    for item in found:
        by_source[item.source].append(item)
    used = []
    for items in by_source.values():
        texts = sorted({_text(item.label) for item in items})
        if len(texts) == 1:
            used.append(items[0])
            problems.update({item.row: RowProblem("repeated", f"repeats row {items[0].row}") for item in items[1:]})
        else:
            problem = RowProblem("conflict", f"its rows disagree: {' against '.join(texts)}; none is used")
            problems.update({item.row: problem for item in items})
    return used


def _text(label: Label) -> str:
    group = f" of group {label.group!r}" if label.group else ""
    return f"{label.subset} {label.class_name!r}{group}".lstrip()


def _without_linked(
    used: Sequence[LabelledImage], links: _Links, problems: dict[int, RowProblem]
) -> list[LabelledImage]:
    """Leave out images linked to a held-out image, which would count as recognised after training on a copy of it."""
    by_source = {item.source: item for item in used}
    for group in links.groups:
        items = [by_source[source] for source in group if source in by_source]
        for split, others in ((TEST, (TRAIN, VALIDATION)), (VALIDATION, (TRAIN,))):
            held = [item for item in items if item.label.subset == split]
            for item in items if held else ():
                if item.label.subset in others and item.row not in problems:
                    problems[item.row] = links.problem(item, held, split)
    return [item for item in used if item.row not in problems]


def _without_orphans(found: Sequence[LabelledImage], problems: dict[int, RowProblem]) -> list[LabelledImage]:
    """Leave out held-out images of classes that have no training image."""
    learned = {item.label.class_name for item in found if item.label.subset == TRAIN}
    for item in found:
        if item.label.class_name not in learned:
            problems[item.row] = RowProblem("orphan", f"class {item.label.class_name!r} has no usable image in train")
    return [item for item in found if item.label.class_name in learned]


def _folders(names: Iterable[str]) -> dict[str, str]:
    """Return a unique folder for every class name; names that differ only in case, or not at all, get a number."""
    folders: dict[str, str] = {}
    taken: dict[str, int] = {}
    for name in sorted(names):
        folders[name] = _free(folder_name(name), "", taken)
    return folders


def _targets(found: Iterable[LabelledImage], folders: Mapping[str, str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Return a mapping from targets to sources, and from img_names to targets if the name was taken in its folder."""
    targets: dict[str, Path] = {}
    renamed: dict[str, str] = {}
    taken: dict[str, dict[str, int]] = defaultdict(dict)
    for item in sorted(found, key=lambda item: (len(item.source.parts), str(item.source))):
        place = f"{TEST if item.label.subset == TEST else TRAIN}/{folders[item.label.class_name]}"
        name = _free(item.source.stem, item.source.suffix, taken[place])
        targets[f"{place}/{name}"] = item.source
        if name != item.source.name:
            renamed[item.label.img_name] = f"{place}/{name}"
    return dict(sorted(targets.items())), renamed


def _free(stem: str, suffix: str, taken: dict[str, int]) -> str:
    """Return stem + suffix, with ` (2)`, ` (3)` ... between them if that is taken, and mark the name as taken.

    `taken` has the highest number of each name so far, so that many files of one name take linear time.
    """
    name, first = stem + suffix, _key(stem + suffix)
    number = taken.get(first, 1)
    while _key(name) in taken:
        number += 1
        name = f"{stem} ({number}){suffix}"
    taken[first] = number
    taken.setdefault(_key(name), 1)
    return name


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
