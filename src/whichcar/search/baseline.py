"""The baseline, trial 0: the values of the base itself, so that the best trial is never worse than the base."""

from __future__ import annotations

from typing import Any

from whichcar.config.validate import validate
from whichcar.search.space import SweepSpec, Values, is_active, laid_over


def start_values(spec: SweepSpec) -> dict[str, Any]:
    """Return the base's value of each hyperparameter, as a choice or a number, if the space contains it."""
    base = _dump(spec, {})
    values: dict[str, Any] = {}
    for name, one in spec.space.items():
        if not is_active(one, values):
            continue
        if one.choices is None:
            own = [_at(base, name)] if one.has(_at(base, name)) else []
        else:
            own = [label for label in one.labels if _changes_nothing(spec, base, values, name, label)]
        if own:
            values[name] = own[0]
    return values


def _changes_nothing(spec: SweepSpec, base: Any, values: Values, name: str, label: Any) -> bool:  # noqa: ANN401
    """Return True if the choice at `name` equals the base, given the base's numbers for what is varied inside it."""
    chosen = {**values, name: label}
    inside = {
        key: _at(base, key)
        for key, one in spec.space.items()
        if key.startswith(f"{name}.") and one.choices is None and is_active(one, chosen)
    }
    return bool(_at(_dump(spec, {**chosen, **inside}), name) == _at(base, name))


def _dump(spec: SweepSpec, values: Values) -> Any:  # noqa: ANN401
    """Return all settings of a trial; for invalid ones, a value that equals no settings."""
    experiment, _ = validate(laid_over(spec.settings, spec.space, values))
    return experiment.model_dump(mode="json") if experiment else {"refused": values}


def _at(settings: Any, name: str) -> Any:  # noqa: ANN401
    for key in name.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings
