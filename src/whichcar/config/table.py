"""The table of settings, derived from their definitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from whichcar.config.experiment import Experiment
from whichcar.config.section import Section, section_of, shown

_KINDS = {int: "whole number", float: "number", str: "text", bool: "true or false", NoneType: "null"}
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class Setting(NamedTuple):
    """One row, in words; a section has a row of its own, before those inside it."""

    name: str
    kind: str
    default: str
    limits: str
    meaning: str


def describe_settings(root: type[Section] = Experiment) -> list[Setting]:
    """Return every setting in the order of the sections. `[]` in a name means each item of a list."""
    return list(_describe(root))


def _describe(section: type[Section], before: str = "") -> Iterator[Setting]:
    for key, field in section.model_fields.items():
        inner, default = section_of(field.annotation), field.get_default()
        name, is_list = f"{before}{key}", isinstance(default, tuple)
        if field.is_required():
            written = "required"
        elif inner and not is_list:
            written = "off" if default is None else ""
        else:
            written = shown(default)
        limits = ", ".join(_limits(field.metadata) or dict.fromkeys(_nested(field.annotation)))
        yield Setting(name, _kind(field.annotation), written, limits, field.description or "")
        if inner:
            yield from _describe(inner, f"{name}[]." if is_list else f"{name}.")


def _kind(annotation: Any) -> str:  # noqa: ANN401
    """Return the kind of a value in words, such as `whole number or null`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, UnionType):
        # An optional section is absent, never null.
        return " or ".join(_kind(part) for part in inner if not (part is NoneType and section_of(annotation)))
    if origin is tuple and Ellipsis not in inner:
        return f"[{', '.join(map(_kind, inner))}]"
    if origin in (tuple, list):
        return f"list of {_kind(inner[0])}"
    return "settings by name" if origin is dict else _KINDS.get(annotation, "section")


def _limits(metadata: Iterable[Any]) -> list[str]:
    """Return limits in words, such as `at least 0` and `less than 1`."""
    return [f"{word} {getattr(one, key)}" for one in metadata for key, word in _LIMITS.items() if hasattr(one, key)]


def _nested(annotation: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the limits of the numbers inside a list."""
    for field in getattr(annotation, "__metadata__", ()):
        yield from _limits(getattr(field, "metadata", ()))
    for part in get_args(annotation):
        if section_of(part) is None:
            yield from _nested(part)
