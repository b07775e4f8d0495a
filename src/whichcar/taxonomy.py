"""Make, model and year, parsed from class names: `AM General Hummer SUV 2000`."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Makes of more than one word. All others are the first word of a name.
_LONG_MAKES = (
    "AC Cars",
    "Alfa Romeo",
    "AM General",
    "American Motors",
    "Aston Martin",
    "Austin Healey",
    "Avtovaz Lada",
    "De Tomaso",
    "Facel Vega",
    "Great Wall",
    "International Harvester",
    "Iran Khodro",
    "Isotta Fraschini",
    "Land Rover",
    "Li Auto",
    "Lynk & Co",
    "Mahindra & Mahindra",
    "Mercedes Benz",
    "Rolls Royce",
    "Ssang Yong",
    "Tata Motors",
)
# Models called like a year, by make; any other number like a year is one, also where nothing else follows the make.
_LIKE_YEARS = {
    "alfa romeo": ("1900", "2000"),
    "bmw": ("1800", "2000", "2002"),
    "datsun": ("2000",),
    "fiat": ("1900",),
    "lancia": ("2000",),
    "opel": ("1900",),
    "peugeot": ("2008",),
    "rover": ("2000",),
    "triumph": ("2000",),
}
_YEAR = re.compile(r"18[89]\d|19\d\d|20\d\d")
_LONG_MAKE = re.compile(rf"(?:{'|'.join(map(re.escape, _LONG_MAKES))})(?=\s|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class VehicleName:
    """A class name in parts, as they are written in it.

    `model` is all between make and year, body style included ("" where there is nothing); `year` is None where the name
    has none.
    """

    make: str
    model: str
    year: int | None


def parse_name(name: str) -> VehicleName:
    """Return make, model and year of a class name.

    The year is the last word, or the first; words are divided by spaces or underscores. A number may be a model instead
    (`Peugeot 2008`).
    """
    words = name.replace("_", " ").split()
    for place in (-1, 0) if len(words) > 1 else ():
        if _YEAR.fullmatch(words[place]):
            make, model = _make_and_model(" ".join(words[:-1] if place else words[1:]))
            if model or words[place] not in _LIKE_YEARS.get(make.casefold(), ()):
                return VehicleName(make, model, int(words[place]))
    return VehicleName(*_make_and_model(" ".join(words)), None)


def _make_and_model(text: str) -> tuple[str, str]:
    long = _LONG_MAKE.match(text)
    make = long.group() if long else text.partition(" ")[0]
    return make, text[len(make) :].strip()
