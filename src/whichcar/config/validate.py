"""Every mistake in an experiment's settings at once, each in one plain line with what would do."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from whichcar.config.augmentations import AllAugmentations
from whichcar.config.contradictions import contradictions
from whichcar.config.experiment import Experiment
from whichcar.config.section import Section, in_words, not_among, scalars, section_of, shown, suggestion
from whichcar.config.table import describe_settings
from whichcar.errors import ConfigError

Place = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake: the dotted name of the setting, and what is wrong and would do."""

    name: str
    message: str


def report(path: str | Path, problems: Sequence[Problem]) -> ConfigError:
    """Return the error that lists all problems of a file, one a line."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return ConfigError("\n".join([f"{path}: {count}", *(f"  {one.name}: {one.message}" for one in problems)]))


def check(raw: dict[str, Any]) -> tuple[Experiment | None, list[Problem]]:
    """Return the experiment, or None and every problem.

    Pydantic looks at how settings fit together only once each of them is right by itself. So what is wrong is taken
    out and the rest is checked again until it stands; a contradiction that involves something taken out is not told.
    """
    rest = _with_text_keys(raw)
    problems: list[Problem] = []
    removed: set[str] = set()
    while True:
        try:
            experiment = Experiment.model_validate(rest)
        except ValidationError as error:
            found = {_name(_place(one)): one for one in error.errors(include_url=False)}
            # A section that something was taken out of is not judged as a whole.
            incomplete = {name.rpartition(".")[0] for name in removed}
            passed = {name for name in found if _inside(name, removed) or name in incomplete}
            problems += [Problem(name, _plain(one)) for name, one in found.items() if name not in passed]
            removed |= {_take_out(rest, one) for one in found.values()}
        else:
            break
    clashes = [(names, why) for names, why in contradictions(experiment) if not any(_inside(n, removed) for n in names)]
    problems += [Problem(names[0], why) for names, why in clashes]
    return (None if problems else experiment), problems


def kinds_of(name: str) -> set[type]:
    """Return the simple types that a setting, by its dotted name, may have; none where there is no such setting."""
    field = _field(tuple(name.split(".")))
    return scalars(field.annotation) if field else set()


def _with_text_keys(value: Any) -> Any:  # noqa: ANN401
    """Return a copy in which every key is text, since YAML reads `1:` and `yes:` as something else."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(inner) for key, inner in value.items()}
    return [_with_text_keys(inner) for inner in value] if isinstance(value, list) else value


def _place(error: ErrorDetails) -> Place:
    """Return where the mistake is; a value missing from a list is a mistake of the list."""
    place = error["loc"]
    return place[:-1] if error["type"] == "missing" and isinstance(place[-1], int) else place


def _name(place: Place) -> str:
    """Return `recipe.stages[0].epochs` for ("recipe", "stages", 0, "epochs")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def _inside(name: str, sections: set[str]) -> bool:
    return any(name == section or name.startswith((f"{section}.", f"{section}[")) for section in sections)


def _take_out(rest: dict[str, Any], error: ErrorDetails) -> str:
    """Remove the setting (a list as a whole), or stand in for one that is missing; return the name of what was done."""
    place = _place(error)
    keys = [str(part) for part in itertools.takewhile(lambda part: isinstance(part, str), place)]
    if error["type"] == "missing" and len(keys) == len(error["loc"]):
        if _name(place) in _STAND_INS:
            rest |= copy.deepcopy(_STAND_INS[_name(place)])
            return _name(place)
        keys.pop()
    here: Any = rest
    for key in keys[:-1]:
        here = here.get(key, {})
    here.pop(keys[-1], None)
    return ".".join(keys)


_STAND_INS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 0},
    "data": {"data": {"directory": "."}},
    "data.directory": {"data": {"directory": "."}},
}


def _plain(error: ErrorDetails) -> str:
    """Return pydantic's finding in plain words: what would do; what was found."""
    place, kind, value, context = _place(error), error["type"], error["input"], error.get("ctx", {})
    field = _field(place)
    meaning = (field.description if field else "") or ""
    if kind in ("extra_forbidden", "invalid_key"):
        return _unknown(place)
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing" and place == error["loc"]:
        return f"is missing: {meaning}" if meaning else "is missing; write it"
    if value is None:
        advice = "write {} for its defaults" if kind == "model_type" else "write a value"
        return f"is empty; {advice}{'' if field and field.is_required() else ', or delete the line'}"
    if kind in ("missing", "too_long", "too_short", "tuple_type", "list_type"):
        return f"must be a list ({meaning}); got {shown(value)}"
    if kind == "literal_error":
        return not_among(value, context["expected"])
    return in_words(error)


def _unknown(place: Place) -> str:
    """Say what was probably meant: a near name in the same section, the same name in another one, or any of these."""
    name, section = str(place[-1]), _section(place[:-1])
    known = list(section.model_fields) if section else []
    bare = name.replace("_", "").lower()
    others = [one.name for one in describe_settings() if one.name.rpartition(".")[2].replace("_", "") == bare]
    hint = suggestion(name, known, parts=not others)
    if not hint:
        hint = f"did you mean `{others[0]}`?" if others else f"known are {', '.join(known)}"
    return f"no such setting; {hint}"


def _section(place: Place) -> type[Section] | None:
    """Return the section at a place, if there is one."""
    here: type[Section] | None = Experiment
    for key in place:
        if here and isinstance(key, str):
            field = here.model_fields.get(key)
            here = AllAugmentations if key == "data_aug_layer" else section_of(field.annotation) if field else None
    return here


def _field(place: Place) -> FieldInfo | None:
    """Return the setting at a place; for a value in a list, that of the list."""
    keys = [part for part in place if isinstance(part, str)]
    section = _section(tuple(keys[:-1])) if keys else None
    return section.model_fields.get(keys[-1]) if section else None
