"""Make, model, body type and year, parsed from class names, and the classes grouped by them.

`AM General Hummer SUV 2000` is a Hummer of AM General, an SUV, of 2000.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

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
# Makes of one word, by which a name without a year or body type is recognized as a vehicle's name.
_MAKES = frozenset(
    """
    acura audi bentley bmw bugatti buick byd cadillac chery chevrolet chrysler citroen citroën cupra dacia daewoo
    daihatsu datsun dodge ferrari fiat fisker ford geely genesis gmc haval holden honda hummer hyundai infiniti isuzu
    jaguar jeep kia lada lamborghini lancia lexus lincoln lotus mahindra maruti maserati maybach mazda mclaren mercedes
    mercedes-benz mercury mg mini mitsubishi nio nissan oldsmobile opel peugeot plymouth polestar pontiac porsche
    proton ram renault rivian rolls-royce rover saab saturn scion seat skoda škoda smart ssangyong subaru suzuki tata
    tesla toyota vauxhall volkswagen volvo vw xpeng
    """.split()  # noqa: SIM905  (a list literal would be a line each)
)
# Models that look like a year, by make. Any other number like a year is one, even if nothing else follows the make.
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
# Words that end a model's name, with the body type that they stand for; the longest match wins.
_BODIES = {
    "Convertible": ("cabrio", "cabriolet", "convertible", "roadster", "spider", "spyder"),
    "Coupe": ("coupe", "coupé"),
    "Hatchback": ("hatch", "hatchback"),
    "Minivan": ("minivan", "mpv"),
    "Pickup": (
        *("club cab", "crew cab", "double cab", "extended cab", "king cab", "quad cab", "regular cab"),
        *("pickup", "pick-up", "supercab", "supercrew"),
    ),
    "SUV": ("crossover", "suv"),
    "Sedan": ("saloon", "sedan"),
    "Van": ("cargo van", "passenger van", "van"),
    "Wagon": ("estate", "wagon"),
}
# Model and body type of names with a missing or misplaced body type, and of trims with names of their own. They cover
# Stanford Cars, which takes its names from Edmunds.
_CORRECTIONS = {
    "acura integra type r": ("Integra", "Coupe"),
    "acura tl type-s": ("TL", "Sedan"),
    "audi tt rs coupe": ("TT", "Coupe"),
    "audi tts coupe": ("TT", "Coupe"),
    "bentley continental supersports conv. convertible": ("Continental Supersports", "Convertible"),
    "buick regal gs": ("Regal", "Sedan"),
    "chevrolet cobalt ss": ("Cobalt", "Coupe"),
    "chevrolet corvette ron fellows edition z06": ("Corvette", "Coupe"),
    "chevrolet corvette zr1": ("Corvette", "Coupe"),
    "chevrolet hhr ss": ("HHR", "Wagon"),
    "chevrolet malibu hybrid sedan": ("Malibu", "Sedan"),
    "chevrolet silverado 1500 classic extended cab": ("Silverado 1500", "Pickup"),
    "chevrolet silverado 1500 hybrid crew cab": ("Silverado 1500", "Pickup"),
    "chevrolet tahoe hybrid suv": ("Tahoe", "SUV"),
    "chevrolet trailblazer ss": ("TrailBlazer", "SUV"),
    "chrysler 300 srt-8": ("300", "Sedan"),
    "dodge challenger srt8": ("Challenger", "Coupe"),
    "dodge charger srt-8": ("Charger", "Sedan"),
    "fiat 500 abarth": ("500", "Hatchback"),
    "ford e-series wagon van": ("E-Series", "Van"),
    "ford expedition el suv": ("Expedition", "SUV"),
    "gmc yukon hybrid suv": ("Yukon", "SUV"),
    "hyundai sonata hybrid sedan": ("Sonata", "Sedan"),
    "infiniti g coupe ipl": ("G", "Coupe"),
    "jaguar xk xkr": ("XK", "Coupe"),
    "lamborghini gallardo lp 570-4 superleggera": ("Gallardo", "Coupe"),
    "ram c-v cargo van minivan": ("C-V", "Minivan"),
    "ram c/v cargo van minivan": ("C/V", "Minivan"),
    "rolls-royce phantom drophead coupe convertible": ("Phantom", "Convertible"),
}
_NO_PART = "not stated"
_YEARS = re.compile(r"(18[89]\d|19\d\d|20\d\d)(?:[-–](18[89]\d|19\d\d|20\d\d|\d\d))?")
_LONG_MAKE = re.compile(rf"(?:{'|'.join(map(re.escape, _LONG_MAKES))})(?=\s|$)", re.IGNORECASE)
_BODY_OF = {words: body for body, several in _BODIES.items() for words in several}
_BODY = re.compile(rf"(?:^|(?<=\s))(?:{'|'.join(sorted(_BODY_OF, key=len, reverse=True))})$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class VehicleName:
    """A class name in parts.

    `model` is everything between make and year except the body type ("" if there is nothing). `body` is a body type
    such as `Pickup` ("" if the name has none). `year` is the model year, or the first of a range that ends with
    `last_year`; both are None if the name has no year.
    """

    make: str
    model: str
    body: str
    year: int | None
    last_year: int | None

    @property
    def years(self) -> str:
        """The model year, or a range such as `2009-2011`; "" if the name has none."""
        last = "" if self.year == self.last_year else f"-{self.last_year}"
        return "" if self.year is None else f"{self.year}{last}"


def parse_name(name: str) -> VehicleName:
    """Return make, model, body type and year of a class name.

    The year, or a range such as `2009-2011` or `2009-11`, is the last word or the first; words are separated by spaces
    or underscores. A number may be a model instead (`Peugeot 2008`).
    """
    words = name.replace("_", " ").split()
    for place in (-1, 0) if len(words) > 1 else ():
        if years := _YEARS.fullmatch(words[place]):
            parts = _parts(" ".join(words[:-1] if place else words[1:]))
            if parts[1] or parts[2] or words[place] not in _LIKE_YEARS.get(parts[0].casefold(), ()):
                first, last = years.groups()
                if last and len(last) == 2:
                    last = ("20" if first.startswith("19") and last < first[2:] else first[:2]) + last  # 1998-04
                last = last or first
                return VehicleName(*parts, int(first), max(int(first), int(last)))
    return VehicleName(*_parts(" ".join(words)), None, None)


def _parts(text: str) -> tuple[str, str, str]:
    """Return make, model and body type of a name without its year."""
    long = _LONG_MAKE.match(text)
    make = long.group() if long else text.partition(" ")[0]
    if corrected := _CORRECTIONS.get(text.casefold()):
        return (make, *corrected)
    model = text[len(make) :].strip()
    body = _BODY.search(model)
    return (make, model[: body.start()].rstrip(), _BODY_OF[body.group().casefold()]) if body else (make, model, "")


@dataclass(frozen=True, eq=False)
class Level:
    """The classes grouped at one level, such as the make; the first level is the classes themselves.

    `groups` are the names of the groups; `index` is the group number of each class, (classes,) int64.
    """

    name: str
    groups: tuple[str, ...]
    index: npt.NDArray[np.int64]

    @cached_property
    def matrix(self) -> npt.NDArray[np.float32]:
        """(classes, groups): 1 if the class is in the group, so probabilities @ matrix sums them per group."""
        return np.eye(len(self.groups), dtype=np.float32)[self.index]


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """What class names say about the classes.

    `levels` lead from the classes through the model to the make. Each group of a level lies in one group of the next,
    so the probability never decreases from level to level. `facets`, body type and year, group the classes in other
    ways.
    """

    levels: tuple[Level, ...]
    facets: tuple[Level, ...]

    @property
    def all(self) -> tuple[Level, ...]:
        """The levels and then the facets."""
        return self.levels + self.facets

    @property
    def order(self) -> list[int]:
        """Class numbers sorted by make, model and name, so that similar classes are side by side."""
        groups = [[level.groups[number].casefold() for number in level.index] for level in reversed(self.levels)]
        return sorted(range(len(self.levels[0].index)), key=lambda number: [names[number] for names in groups])

    def as_json(self) -> dict[str, list[str]]:
        """Return the group of each class, in class order, for each level and facet except the first."""
        return {level.name: [level.groups[number] for number in level.index] for level in self.all[1:]}


def are_vehicles(class_names: Sequence[str]) -> bool:
    """Return True if more than half of the names have a year or a body type, or begin with a known make."""
    return 2 * sum(_is_vehicle(parse_name(name)) for name in class_names) > len(class_names)


def taxonomy_of(class_names: Sequence[str]) -> Taxonomy:
    """Group classes by the model, make, body type and year in their names.

    A name is a vehicle name if it has a year or a body type, or begins with a known make. If at most half of the names
    are vehicle names, the classes are the only level; otherwise their makes are known too, and a class with another
    name is a group of its own at every level. A level is left out if it has only one group or as many groups as the
    level before; a facet is left out if it has only one group or one group per class.
    """
    names = tuple(class_names)
    classes = Level("class", names, np.arange(len(names), dtype=np.int64))  # including names that differ only in case
    if not are_vehicles(names):
        return Taxonomy((classes,), ())
    parsed = [parse_name(name) for name in names]
    seen = {parts.make.casefold() for parts in parsed if _is_vehicle(parts)}
    is_vehicle = [parts.make.casefold() in seen for parts in parsed]
    pairs = list(zip(names, parsed, is_vehicle, strict=True))
    models = [f"{parts.make} {parts.model}".strip() if known else name for name, parts, known in pairs]
    makes = [parts.make if known else name for name, parts, known in pairs]
    levels = [classes]
    for level in (_level("model", models), _level("make", makes)):
        if 1 < len(level.groups) < len(levels[-1].groups):
            levels.append(level)
    bodies, years = [parts.body or _NO_PART for parts in parsed], [parts.years or _NO_PART for parts in parsed]
    facets = (_level("body type", bodies), _level("year", years))
    return Taxonomy(tuple(levels), tuple(facet for facet in facets if 1 < len(facet.groups) < len(names)))


def _is_vehicle(parts: VehicleName) -> bool:
    make = parts.make.casefold()
    return bool(parts.body or parts.years) or make in _MAKES or _LONG_MAKE.fullmatch(make) is not None


def _level(name: str, labels: Sequence[str]) -> Level:
    """Group classes by label, ignoring case."""
    groups: dict[str, str] = {}
    for label in labels:
        groups.setdefault(label.casefold(), label)
    numbers = {key: number for number, key in enumerate(groups)}
    return Level(name, tuple(groups.values()), np.array([numbers[label.casefold()] for label in labels], np.int64))
