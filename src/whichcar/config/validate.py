"""Validates the settings of an experiment and reports all problems at once, one line each."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from whichcar.config.contradictions import contradictions
from whichcar.config.experiment import Experiment
from whichcar.config.messages import field_at, message_of, name_of, place_of
from whichcar.config.section import scalars
from whichcar.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    """The dotted name of a setting, and what is wrong with it and would be right."""

    name: str
    message: str


def config_error(path: str | Path, problems: Sequence[Problem]) -> ConfigError:
    """Return the error that lists all problems of a file, one per line."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return ConfigError("\n".join([f"{path}: {count}", *(f"  {one.name}: {one.message}" for one in problems)]))


def validate(raw: dict[str, Any]) -> tuple[Experiment | None, list[Problem]]:
    """Return the experiment, or None and every problem; contradictions that involve an invalid setting are left out."""
    experiment, problems, removed = validate_each(raw)
    clashes = [(names, why) for names, why in contradictions(experiment) if not any(_inside(n, removed) for n in names)]
    problems += [Problem(names[0], why) for names, why in clashes]
    return (None if problems else experiment), problems


def validate_each(raw: dict[str, Any]) -> tuple[Experiment, list[Problem], set[str]]:
    """Return the experiment without settings that are invalid by themselves, their problems, and the names removed.

    Pydantic checks how settings fit together only once each of them is valid by itself. So invalid settings are removed
    and the rest is checked again until it is valid.
    """
    rest = _with_text_keys(raw)
    problems: list[Problem] = []
    removed: set[str] = set()
    while True:
        try:
            experiment = Experiment.model_validate(rest)
        except ValidationError as error:
            found = {name_of(place_of(one)): one for one in error.errors(include_url=False)}
            # A section from which a setting was removed is not judged as a whole.
            incomplete = {name.rpartition(".")[0] for name in removed}
            passed = {name for name in found if _inside(name, removed) or name in incomplete}
            problems += [
                Problem(name, message_of(one, Experiment)) for name, one in found.items() if name not in passed
            ]
            removed |= {_remove(rest, one) for one in found.values()}
        else:
            return experiment, problems, removed


def kinds_of(name: str) -> set[type]:
    """Return the simple types that a setting, by its dotted name, may have; empty if there is no such setting."""
    field = field_at(Experiment, tuple(name.split(".")))
    return scalars(field.annotation) if field else set()


def _with_text_keys(value: Any) -> Any:  # noqa: ANN401
    """Return a copy in which every key is text, since YAML reads `1:` and `yes:` as something else."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(inner) for key, inner in value.items()}
    return [_with_text_keys(inner) for inner in value] if isinstance(value, list) else value


def _inside(name: str, sections: set[str]) -> bool:
    return any(name == section or name.startswith((f"{section}.", f"{section}[")) for section in sections)


def _remove(rest: dict[str, Any], error: ErrorDetails) -> str:
    """Remove an invalid setting (a list as a whole), or fill in a missing one; return its name."""
    place = place_of(error)
    keys = [str(part) for part in itertools.takewhile(lambda part: isinstance(part, str), place)]
    if error["type"] == "missing" and len(keys) == len(error["loc"]):
        if name_of(place) in _FILL_INS:
            rest |= copy.deepcopy(_FILL_INS[name_of(place)])
            return name_of(place)
        keys.pop()
    section: Any = rest
    for key in keys[:-1]:
        section = section.get(key, {})
    section.pop(keys[-1], None)
    return ".".join(keys)


_FILL_INS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 0},
    "data": {"data": {"directory": "."}},
    "data.directory": {"data": {"directory": "."}},
}
