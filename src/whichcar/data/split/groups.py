"""Group images that belong together, such as those of one car, by a pattern or by guessing from their file names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from whichcar.errors import DataError
from whichcar.records import Label
from whichcar.text import plural, shell_command

# The end of a name that distinguishes images of one group: a number or a letter, or Roboflow's hash of a variant.
_LAST = re.compile(r"(?P<group>.*?[^\W_])(?:[ _.-]+(?:\d{1,4}|[a-z])|(?<=\d)[a-z]|\s*\(\d+\)|\.rf\.[0-9a-f]{32})", re.I)
_LEAST, _MOST = 2, 0.5  # minimum number of groups in a class; maximum share of a class that one group may have
SUGGESTED = r"^(.+)[ _-][^/]*$"  # a pattern for --group-by that finds most of these groups


def with_groups(labels: Sequence[Label], pattern: str) -> list[Label]:
    """Return the labels with the group that a regular expression finds in each img_name.

    Args:
        labels: rows without a group.
        pattern: searched for in the img_name, which may contain folders; its first capturing group, or else the whole
            match, is the name of the group. An image without a match is in no group.

    Raises:
        DataError: the pattern is not a regular expression or matches no image, or labels have groups already.
    """
    option = shell_command(["--group-by", pattern])
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"{option}: is not a valid regular expression ({error})") from error
    if any(label.group for label in labels):
        raise DataError("--group-by: the label file has a column group already; leave out the option, or the column")
    found = [replace(label, group=_group(expression, label.img_name)) for label in labels]
    if labels and not any(label.group for label in found):
        raise DataError(f"{option}: matches none of {plural(len(labels), 'name')}, such as {labels[0].img_name!r}")
    return found


def _group(expression: re.Pattern[str], name: str) -> str:
    found = expression.search(name)
    return (found[1 if expression.groups else 0] or "") if found else ""


def likely_groups(classes: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Yield the paths of one class that look like one group: their names differ only in a last number or letter.

    A class with a single such beginning is merely numbered, and a beginning without a digit that several classes share
    describes something else, such as a view or a source; neither is a group.

    Args:
        classes: the paths of each class.
    """
    begun = {name: _by_beginning(paths) for name, paths in classes.items()}
    shared: dict[str, int] = defaultdict(int)
    for groups in begun.values():
        for beginning in groups:
            shared[beginning] += 1
    for name, groups in begun.items():
        if len(groups) < _LEAST:
            continue
        for beginning, paths in groups.items():
            telling = shared[beginning] == 1 or any(letter.isdigit() for letter in beginning)
            if telling and len(paths) <= _MOST * len(classes[name]):
                yield paths


def _by_beginning(paths: Sequence[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        if found := _LAST.fullmatch(PurePosixPath(path).stem):
            groups[found["group"].casefold()].append(path)
    return {beginning: found for beginning, found in groups.items() if len(found) > 1}
