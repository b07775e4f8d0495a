"""The search space: reads the sweep file and checks every value it may try before anything runs."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from whichcar.config.experiment import Experiment
from whichcar.config.load import apply_overrides, lay_over, read_settings, read_yaml
from whichcar.config.messages import messages
from whichcar.config.section import as_number, shown
from whichcar.config.validate import Problem, config_error, kinds_of, validate
from whichcar.errors import ConfigError
from whichcar.search.sweep_file import Objective, Parameter, Sweep, not_a_label
from whichcar.text import suggestion

DRAWS = 200  # random combinations checked before anything runs
DEFAULT_TRIALS = 20
MONITOR = "fit.callbacks.model_checkpoint.monitor"

Values = Mapping[str, Any]  # choice or number, by the name of the hyperparameter


@dataclass(frozen=True)
class SweepSpec:
    """A checked sweep file with its base, from which the settings of each trial are made.

    `settings` are those of the base, as written, plus those common to all trials; `integers` names the settings that
    are whole numbers; `epochs` is the maximum over the combinations checked.
    """

    path: Path
    sweep: Sweep
    settings: dict[str, Any]
    space: dict[str, Parameter]
    integers: frozenset[str]
    epochs: int

    @property
    def folder(self) -> Path:
        """Folder of the study and the trials: next to the file, with its name."""
        return self.path.with_suffix("")

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.path.stem

    @property
    def trials(self) -> int:
        """Total number of trials."""
        wanted = self.sweep.budget.trials
        if self.sweep.sampler.name != "grid":
            return wanted or DEFAULT_TRIALS
        return min(wanted or math.inf, combinations(self.space))  # type: ignore[return-value]

    def settings_of(self, values: Values) -> dict[str, Any]:
        """Return the settings of one trial, as they are written to its config.yml."""
        return laid_over(self.settings, self.space, values)

    def experiment_of(self, values: Values) -> Experiment:
        """Return the checked settings of one trial.

        Raises:
            ConfigError: the settings contradict each other.
        """
        experiment, problems = validate(self.settings_of(values))
        if experiment is None:
            raise ConfigError("; ".join(f"{one.name}: {one.message}" for one in problems))
        return experiment

    def identity(self) -> dict[str, Any]:
        """Return what all trials of a study have in common."""
        experiment, _ = validate(self.settings)
        settings = experiment.model_dump(mode="json", exclude={"hardware"}) if experiment else self.settings
        space = {name: one.model_dump(mode="json", exclude_defaults=True) for name, one in self.space.items()}
        return {"base": settings, "space": space, "objective": self.sweep.objective.model_dump(mode="json")}


def read_spec(path: str | Path, overrides: Sequence[str] = (), limits: Mapping[str, Any] | None = None) -> SweepSpec:
    """Read a sweep file and its base, and check every choice, every limit and many combinations of them.

    Args:
        path: the sweep file.
        overrides: settings that override the base, such as `model.weights=weights.h5`.
        limits: values that replace the file's own, such as `{"budget.trials": 50}`.

    Raises:
        ConfigError: naming every mistake in the file, or in the base.
    """
    path = Path(path)
    raw = read_yaml(path, "experiments/sweeps/fast.yml", ("base", "space"))
    try:
        sweep = Sweep.model_validate(raw)
        for name, value in (limits or {}).items():
            raw = lay_over(raw, name.split("."), value)
            sweep = Sweep.model_validate(raw)
    except ValidationError as error:
        raise config_error(
            path, [Problem(name or "file", message) for name, message in messages(error, Sweep).items()]
        ) from None
    settings = read_settings(path.parent / sweep.base)
    settings, problems = _with_common(settings, sweep.set)
    if not problems:
        settings, _, problems = apply_overrides(settings, overrides)  # on top of the base and `set`
        problems = problems or [Problem(one.name, f"{one.message} (from --set)") for one in validate(settings)[1]]
    if problems:
        raise config_error(path, problems)
    sweep, settings, problems = _agreeing(sweep, settings)
    if problems:
        raise config_error(path, problems)
    integers = frozenset(name for name in sweep.space if int in kinds_of(name) and float not in kinds_of(name))
    space = {name: _as_numbers(name, one, name in integers) for name, one in sweep.space.items()}
    problems = list(_impossible_conditions(space))
    tried: list[Experiment] = []
    if not problems:
        problems = list(_each_alone(settings, space, tried))
    if not problems:
        problems = list(_together(settings, space, tried))
    if problems:
        raise config_error(path, problems)
    settings = _with_one_cache(settings, space, tried)
    return SweepSpec(path, sweep, settings, space, integers, max(one.fit.last_epoch for one in tried))


def laid_over(settings: dict[str, Any], space: Mapping[str, Parameter], values: Values) -> dict[str, Any]:
    """Return the settings with a trial's values; sections are set before the settings inside them."""
    for name in sorted(values, key=lambda one: one.count(".")):
        settings = lay_over(settings, name.split("."), space[name].value_of(values[name]))
    return settings


def is_active(parameter: Parameter, values: Values) -> bool:
    """Return True if the condition of the hyperparameter holds."""
    return all(name in values and values[name] in _wanted(one) for name, one in parameter.when.items())


def combinations(space: Mapping[str, Parameter]) -> int:
    """Return how many combinations a space of choices and stepped ranges has."""
    parents = {parent for one in space.values() for parent in one.when}

    def count(names: Sequence[str], values: dict[str, Any]) -> int:
        if not names:
            return 1
        name, rest = names[0], names[1:]
        if not is_active(space[name], values):
            return count(rest, values)
        candidates = _candidates(space[name])
        if name not in parents:
            return len(candidates) * count(rest, values)
        return sum(count(rest, {**values, name: label}) for label in candidates)

    return count(list(space), {})


def _wanted(value: Any) -> list[Any]:  # noqa: ANN401
    return value if isinstance(value, list) else [value]


def _candidates(parameter: Parameter) -> list[Any]:
    """Return the choices, the numbers of a stepped range, or the ends of a continuous one."""
    if parameter.choices is not None:
        return list(parameter.labels)
    low, high, step = parameter.low, parameter.high, parameter.step
    assert low is not None and high is not None  # noqa: S101  (Parameter sees to it)
    if step is None:
        return [low, high]
    whole = isinstance(low, int) and isinstance(step, int)
    return [low + number * step if whole else round(low + number * step, 12) for number in range(_steps(parameter) + 1)]


def _steps(parameter: Parameter) -> int:
    low, high, step = parameter.low, parameter.high, parameter.step
    return round((high - low) / step) if low is not None and high is not None and step else 0


def _as_numbers(name: str, parameter: Parameter, integer: bool) -> Parameter:
    """Return the parameter with numbers of the setting's type: YAML reads `1e-4` as text, and 16.0 as a float."""
    if parameter.choices is None:
        numbers = {key: getattr(parameter, key) for key in ("low", "high", "step")}
        if not integer or any(number is not None and number != int(number) for number in numbers.values()):
            return parameter
        whole = {key: None if number is None else int(number) for key, number in numbers.items()}
        whole["step"] = whole["step"] or (None if parameter.log else 1)
        return parameter.model_copy(update=whole)
    if str in kinds_of(name):
        return parameter
    if isinstance(parameter.choices, dict):
        return parameter.model_copy(update={"choices": {k: as_number(v) for k, v in parameter.choices.items()}})
    return parameter.model_copy(update={"choices": [as_number(value) for value in parameter.choices]})


def _with_common(settings: dict[str, Any], common: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    problems = []
    for name, value in common.items():
        try:
            settings = lay_over(settings, name.split("."), value)
        except ValueError as error:
            problems.append(Problem(f"set.{name}", str(error)))
    if not problems:
        problems = [Problem(f"set.{one.name}", one.message) for one in validate(settings)[1]]
    return settings, problems


def _agreeing(sweep: Sweep, settings: dict[str, Any]) -> tuple[Sweep, dict[str, Any], list[Problem]]:
    """Make the objective and the checkpoint's monitor agree: whichever is left out follows the other."""
    objective, experiment = sweep.objective, validate(settings)[0]
    assert experiment is not None  # noqa: S101  (checked before)
    if MONITOR in sweep.space:
        return sweep, settings, [Problem(f"space.{MONITOR}", "is decided by the objective; delete it here")]
    callbacks = experiment.fit.callbacks
    base, stopping = callbacks.model_checkpoint.monitor, callbacks.early_stopping
    decided = experiment.is_written(MONITOR) or (stopping is not None and stopping.evaluated is not None)
    if not objective.model_fields_set and (decided or not experiment.data.held_out_share):
        objective = Objective(epoch="last") if base == "epoch" else Objective(metric=base)
    elif decided and base != objective.monitor:
        why = (
            f"{objective.metric} of the {objective.epoch} epoch counts, but the base's {MONITOR} is {base}, so that "
            f"another epoch would be kept; write `{MONITOR}: {objective.monitor}` under set, or delete the objective"
        )
        return sweep, settings, [Problem("objective", why)]
    settings = lay_over(settings, MONITOR.split("."), objective.monitor)
    return sweep.model_copy(update={"objective": objective}), settings, []


def _impossible_conditions(space: Mapping[str, Parameter]) -> Iterator[Problem]:
    """Yield the conditions that can never hold."""
    before: list[str] = []
    for name, one in space.items():
        for parent, value in one.when.items():
            place = f"space.{name}.when.{parent}"
            if parent not in space:
                hint = suggestion(parent, [key for key in space if key != name])
                yield Problem(place, f"is not varied here; {hint or 'name a parameter of this space'}")
            elif parent not in before:
                yield Problem(place, f"must be above {name} in the file, since it is sampled first")
            elif space[parent].choices is None:
                yield Problem(place, "is a range; a condition needs choices")
            else:
                wrong = [label for label in _wanted(value) if label not in space[parent].labels]
                yield from (Problem(place, not_a_label(label, space[parent])) for label in wrong)
        before.append(name)


def _each_alone(settings: dict[str, Any], space: Mapping[str, Parameter], tried: list[Experiment]) -> Iterator[Problem]:
    """Yield the problems of each choice and each end of a range, one at a time on top of the base."""
    for name, one in space.items():
        reported: set[str] = set()
        ends = [one.low, one.high] if one.choices is None else one.labels
        for label in ends:
            for problem in _problems(settings, space, {**_context(space, name), name: label}, tried):
                inside = f"{problem.name}.".startswith(f"{name}.")
                message = problem.message if inside else f"{shown(label)} conflicts with the base: {_line(problem)}"
                if message not in reported:
                    reported.add(message)
                    yield Problem(f"space.{problem.name if inside else name}", message)


def _context(space: Mapping[str, Parameter], name: str) -> dict[str, Any]:
    """Return values that make a parameter active."""
    values: dict[str, Any] = {}
    for parent, value in space[name].when.items():
        values |= {**_context(space, parent), parent: _wanted(value)[0]}
    return values


def _together(settings: dict[str, Any], space: Mapping[str, Parameter], tried: list[Experiment]) -> Iterator[Problem]:
    """Yield the problem of the first random combination that is refused."""
    rng = random.Random(0)
    for _ in range(DRAWS):
        values: dict[str, Any] = {}
        for name, one in space.items():
            if is_active(one, values):
                values[name] = rng.choice(_candidates(one))
        for problem in _problems(settings, space, values, tried):
            drawn = ", ".join(f"{key}: {shown(value)}" for key, value in values.items())
            yield Problem("space", f"{_line(problem)}; with {{{drawn}}}; add a `when` to exclude it")
            return


def _problems(
    settings: dict[str, Any], space: Mapping[str, Parameter], values: Values, tried: list[Experiment]
) -> list[Problem]:
    try:
        experiment, problems = validate(laid_over(settings, space, values))
    except ValueError as error:
        return [Problem(list(values)[-1], str(error))]
    if experiment:
        tried.append(experiment)
    return problems


def _with_one_cache(
    settings: dict[str, Any], space: Mapping[str, Parameter], tried: Sequence[Experiment]
) -> dict[str, Any]:
    """Fix the size of decoded images at the largest that any trial uses, so that all share one decoded cache."""
    data = settings.get("data") or {}
    if data.get("cache_size") or "data.cache_size" in space:
        return settings
    sizes = [
        size
        for one in tried
        for size in (one.data.image_size, *(s.image_size for s in one.recipe.stages), *one.recipe.test_sizes)
    ]
    return lay_over(settings, ["data", "cache_size"], [max(size[0] for size in sizes), max(size[1] for size in sizes)])


def _line(problem: Problem) -> str:
    return f"{problem.name}: {problem.message}"
