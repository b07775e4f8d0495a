"""Find class names that look wrong: two spellings of the same name, or a name not built like the others."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

from whichcar.data.check.issues import finding
from whichcar.records import Finding
from whichcar.text import plural

_YEAR = re.compile(r"\b(19|20)\d\d\b")
_USUAL = 0.8  # if at least this share of names has a year, a name without one is odd
_LONG = 5  # letters a word must have for one different letter to be a misspelling, not another word


def odd_names(counts: Mapping[str, int]) -> list[Finding]:
    """Return a finding for each class name that may be misspelt.

    Two names are similar if only capitals, accents, spaces or punctuation differ, or one letter in a word of five or
    more letters; with another digit, it is another name (`Audi A4`, `Audi A5`). The one with fewer images gets the
    finding.

    Args:
        counts: the number of images of each class.
    """
    found = []
    for pair in _close_pairs(sorted(counts)):
        rare, usual = sorted(pair, key=lambda name: (counts[name], name))
        difference = (
            "capitals, accents or punctuation differ" if _plain(rare) == _plain(usual) else "one letter differs"
        )
        count = plural(counts[usual], "image")
        detail = f"may be {usual!r} ({count}) in another spelling: {difference}; it has {counts[rare]}"
        found.append(finding(rare, "class_name", detail))
    with_year = [name for name in counts if _YEAR.search(name)]
    if len(with_year) >= _USUAL * len(counts):
        detail = f"no year in it; {len(with_year)} of {len(counts)} names have one"
        found += [finding(name, "class_name", detail) for name in sorted(set(counts) - set(with_year))]
    return found


def _close_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of similar names, found by grouping names by what remains without any one letter."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        plain = _plain(name)
        for shorter in {plain, *(plain[:place] + plain[place + 1 :] for place in range(len(plain)))}:
            groups[shorter].append(name)
    pairs = {
        (first, second)
        for alike in groups.values()
        for place, first in enumerate(alike)
        for second in alike[place + 1 :]
        if _plain(first) == _plain(second) or _is_slip(_words(first), _words(second))
    }
    return sorted(pairs)


def _is_slip(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return True if the words differ only in one letter of one long word."""
    if len(first) != len(second):
        return False
    different = [(one, other) for one, other in zip(first, second, strict=True) if one != other]
    if len(different) != 1:
        return False
    one, other = sorted(different[0], key=len)
    if len(one) < _LONG or len(other) - len(one) > 1 or any(letter.isdigit() for letter in one + other):
        return False
    place = next((place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))
    return one[place + (len(one) == len(other)) :] == other[place + 1 :]


def _words(name: str) -> list[str]:
    letters = unicodedata.normalize("NFKD", name.casefold())
    return re.findall(r"\w+", "".join(letter for letter in letters if not unicodedata.combining(letter)))


def _plain(name: str) -> str:
    return "".join(_words(name)).replace("_", "")
