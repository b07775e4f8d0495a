"""Pydantic's errors as one plain line each: the dotted name of the setting, what is allowed, and what was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from whichcar.config.augmentations import AllAugmentations
from whichcar.config.section import Section, section_of, shown
from whichcar.config.table import describe_settings
from whichcar.text import suggestion

Place = tuple[int | str, ...]

_LIMITS = ("gt", "ge", "lt", "le")
_WORDS = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text; quote it if necessary",
    "string_too_short": "must not be empty",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "model_type": "must contain settings, one per line",
    "dict_type": "must contain settings, one per line",
}


def messages(error: ValidationError, root: type[Section]) -> dict[str, str]:
    """Return what is wrong with a section and its subsections, by the dotted name of the setting."""
    return {name_of(place_of(one)): message_of(one, root) for one in error.errors(include_url=False)}


def place_of(error: ErrorDetails) -> Place:
    """Return the place of an error; a value missing from a list is an error of the list."""
    place = tuple(key for key in error["loc"] if not str(key).endswith("]"))  # such as list[any], one type of a union
    return place[:-1] if error["type"] == "missing" and isinstance(place[-1], int) else place


def name_of(place: Place) -> str:
    """Return `recipe.stages[0].epochs` for ("recipe", "stages", 0, "epochs")."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")


def message_of(error: ErrorDetails, root: type[Section]) -> str:
    """Return an error in plain words.

    Args:
        error: one of pydantic's errors.
        root: the section that was checked.
    """
    place, kind, value, context = place_of(error), error["type"], error["input"], error.get("ctx", {})
    field = field_at(root, place)
    meaning = (field.description if field else "") or ""
    if kind in ("extra_forbidden", "invalid_key"):
        return _unknown(root, place)
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing" and place == error["loc"]:
        return f"is missing: {meaning}" if meaning else "is missing; write it"
    if value is None:
        advice = "write {} for its defaults" if kind == "model_type" else "write a value"
        return f"is empty; {advice}{'' if field and field.is_required() else ', or delete the line'}"
    if value == {}:
        return "must not be empty"
    if kind in ("missing", "too_long", "too_short", "tuple_type", "list_type"):
        return f"must be a list ({meaning}); got {shown(value)}"
    if kind == "literal_error":
        return _not_among(value, context["expected"])
    if kind not in _WORDS:
        return f"{error['msg'][0].lower()}{error['msg'][1:]}; got {shown(value)}"
    return f"{_WORDS[kind].format(**_whole(context))}; got {shown(value)}"


def _whole(context: Mapping[str, Any]) -> dict[str, float]:
    """Return the limits, those that are whole as integers."""
    return {key: int(limit) if limit == int(limit) else limit for key, limit in context.items() if key in _LIMITS}


def _not_among(value: object, expected: str) -> str:
    """Return the message that a value is not one that pydantic expected, such as `'a', 'b' or 'c'`."""
    names = expected.replace("'", "").replace(" or ", ", ")
    hint = suggestion(str(value), names.split(", "))
    several = "one of " if ", " in names else ""
    return f"must be {several}{names}; got {shown(value)}{'; ' if hint else ''}{hint}"


def _unknown(root: type[Section], place: Place) -> str:
    """Suggest a similar name in the same section, the same name in another one, or list the names of the section."""
    name, section = str(place[-1]), _section(root, place[:-1])
    known = list(section.model_fields) if section else []
    bare = name.replace("_", "").lower()
    others = [one.name for one in describe_settings(root) if one.name.rpartition(".")[2].replace("_", "") == bare]
    hint = suggestion(name, known, parts=not others)
    if not hint:
        hint = f"did you mean `{others[0]}`?" if others else f"known: {', '.join(known)}"
    return f"no such setting; {hint}"


def _section(root: type[Section], place: Place) -> type[Section] | None:
    """Return the section at a place, if there is one."""
    section: type[Section] | None = root
    keys = (key for key in place if isinstance(key, str))
    for key in keys:
        field = section.model_fields.get(key) if section else None
        section = section_of(field.annotation) if field else None
        if key == "data_aug_layer":
            section = AllAugmentations
        elif field and section and get_origin(field.annotation) is dict and next(keys, None) is None:
            return None  # the dict itself
    return section


def field_at(root: type[Section], place: Place) -> FieldInfo | None:
    """Return the setting at a place; for a value in a list, the setting of the list."""
    keys = [key for key in place if isinstance(key, str)]
    section = _section(root, tuple(keys[:-1])) if keys else None
    return section.model_fields.get(keys[-1]) if section else None
