"""The base class of all sections of a YAML file: strict, immutable, lenient only about numbers written as text."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import to_jsonable_python

Side = Annotated[int, Field(ge=16, le=2048)]  # of an image, in pixels
Size = tuple[Side, Side]  # height and width


class Section(BaseModel):
    """A section of a YAML file. Unknown keys are refused; instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:  # noqa: ANN401  (whatever YAML can hold)
        """Read text as a number if the setting needs one, and reject true and false, which Python treats as 1 and 0."""
        kinds = scalars(cls.model_fields[str(info.field_name)].annotation)
        if not kinds & {int, float} or kinds & {str, bool}:
            return value
        return _each(value)


def _each(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, bool):
        raise ValueError(f"must be a number; got {shown(value)}")
    return [_each(part) for part in value] if isinstance(value, list | tuple) else as_number(value)


def as_number(value: Any) -> Any:  # noqa: ANN401
    """Return the number in a text ("1e-4" is text to PyYAML); anything else is returned unchanged."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value


def scalars(annotation: Any) -> set[type]:  # noqa: ANN401
    """Return the simple types inside an annotation: `tuple[int, int] | None` has int and NoneType."""
    inner = get_args(annotation)
    if not inner:
        return {annotation if isinstance(annotation, type) else type(annotation)}
    return set().union(*(scalars(part) for part in inner if part is not Ellipsis))


def section_of(annotation: Any) -> type[Section] | None:  # noqa: ANN401
    """Return the section inside an annotation such as `Adam | None` or `tuple[Stage, ...]`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((section for inner in get_args(annotation) if (section := section_of(inner))), None)


def as_yaml(value: Any) -> str:  # noqa: ANN401
    """Return a value, which may be a section, as it would be written on one line of a YAML file."""
    plain = to_jsonable_python(value)
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=math.inf, sort_keys=False)
    return text.rstrip("\n").removesuffix("\n...")


def shown(value: Any) -> str:  # noqa: ANN401
    """Return a value for a message: as one line of JSON, which is also YAML, truncated if long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def not_null(value: Any) -> Any:  # noqa: ANN401
    """Reject null: a YAML name without a value does not mean "off" or "default" to every reader."""
    if value is None:
        raise ValueError("is empty; write {} for its defaults, or delete the line")
    return value
