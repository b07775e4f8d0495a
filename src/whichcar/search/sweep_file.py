"""The settings of a search, each defined once: search space, objective, budget, sampler and pruner."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from whichcar.config.section import Section, shown

Label = str | int | float | bool | None
METRICS = Literal["val_accuracy", "val_loss", "accuracy", "loss"]


def _text_keys(value: Any) -> Any:  # noqa: ANN401
    return {str(key): inner for key, inner in value.items()} if isinstance(value, dict) else value


class Parameter(Section):
    """A hyperparameter: a list of choices, or a range of numbers."""

    choices: Annotated[list[Any] | dict[str, Any] | None, BeforeValidator(_text_keys)] = Field(
        None, description="values to choose from, also whole sections; as NAME: VALUE to name them"
    )
    low: float | None = Field(None, description="lower bound")
    high: float | None = Field(None, description="upper bound")
    step: float | None = Field(None, gt=0, description="distance between two values (default: continuous)")
    log: bool = Field(False, description="sample log-uniformly")
    when: dict[str, Any] = Field(
        {}, description="condition: other hyperparameters and the values with which this one is active"
    )

    @model_validator(mode="after")
    def _choices_or_range(self) -> Parameter:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("must have either choices, or low and high")
        if self.choices is not None:
            if self.step is not None or self.log:
                raise ValueError("step and log go with low and high, not with choices")
            if not self.choices:
                raise ValueError("choices must not be empty")
            labels = [json.dumps(label) for label in self.labels]
            twice = next((label for label in labels if labels.count(label) > 1), None)
            if twice:
                raise ValueError(f"the choice {twice} is given twice; keep one")
        else:
            self._check_range()
        return self

    def _check_range(self) -> None:
        low, high, step = self.low, self.high, self.step
        if low is None or high is None:
            raise ValueError("must have both low and high")
        if low > high:
            raise ValueError(f"low must be at most high; got {low:g} and {high:g}")
        if self.log and low <= 0:
            raise ValueError(f"with log, low must be more than 0; got {low:g}")
        if self.log and step is not None:
            raise ValueError("log and step exclude each other; list the values as choices")
        if not _in_steps(high - low, step):
            raise ValueError(f"steps of {step:g} from {low:g} do not end at {high:g}; choose high so that they do")

    def has(self, number: Any) -> bool:  # noqa: ANN401
        """Return True if the number is in the range and, if there are steps, on one of them."""
        if not isinstance(number, int | float) or self.low is None or self.high is None:
            return False
        return self.low <= number <= self.high and _in_steps(number - self.low, self.step)

    @property
    def labels(self) -> list[Label]:
        """Names of the choices in tables and in the study."""
        return [_label(value) for value in self.choices] if isinstance(self.choices, list) else list(self.choices or ())

    def value_of(self, label: Any) -> Any:  # noqa: ANN401
        """Return the value of a choice; a number of a range is its own value."""
        if isinstance(self.choices, dict):
            return self.choices[label]
        if isinstance(self.choices, list):
            return self.choices[[json.dumps(one) for one in self.labels].index(json.dumps(label))]
        return self.plain(label)

    def plain(self, label: Any) -> Any:  # noqa: ANN401
        """Return a number without the rounding error of counting in steps: 0.3 for 0.30000000000000004."""
        return float(f"{label:.12g}") if self.step and isinstance(label, float) else label


def _in_steps(distance: float, step: float | None) -> bool:
    return step is None or abs(distance / step - round(distance / step)) <= 1e-6


def _label(value: Any) -> Label:  # noqa: ANN401
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value)


def _parameter(value: Any) -> Any:  # noqa: ANN401
    """Read a plain list as choices."""
    return {"choices": value} if isinstance(value, list) else value


class Objective(Section):
    """The metric to optimize, for trials and for the epochs of a trial (default: as the base's model_checkpoint)."""

    metric: METRICS = Field("val_accuracy", description="metric to optimize, a column of history.csv")
    epoch: Literal["best", "last"] = Field("best", description="epoch whose value counts and whose checkpoint is kept")

    @property
    def monitor(self) -> str:
        """Value that model_checkpoint.monitor must have so that the epoch that counts is kept."""
        return self.metric if self.epoch == "best" else "epoch"

    @property
    def maximize(self) -> bool:
        """True if higher is better."""
        return self.metric.endswith("accuracy")

    def of(self, values: Sequence[float]) -> float:
        """Return a trial's value from the values of its epochs."""
        return values[-1] if self.epoch == "last" else max(values) if self.maximize else min(values)


class Budget(Section):
    """When the search ends. Both limits cover all runs and processes that share the study."""

    trials: int | None = Field(
        None, ge=1, description="total number of trials (default: 20; for a grid, all combinations)"
    )
    minutes: float | None = Field(None, gt=0, description="start no new trial after this many total minutes")


class Sampler(Section):
    """How values are sampled, with Optuna's samplers."""

    name: Literal["tpe", "random", "grid"] = Field(
        "tpe", description="tree-structured Parzen estimator, random search, or grid search in random order"
    )
    seed: int = Field(123, ge=0, le=2**31, description="random seed; reproducible while trials run one at a time")
    startup_trials: int = Field(10, ge=0, description="random trials before tpe starts modelling")
    base_first: bool = Field(True, description="start tpe and random with the values of the base")


class Pruner(Section):
    """Early stopping of bad trials, with Optuna's pruners, asked after every epoch but the last."""

    name: Literal["none", "median", "successive_halving", "hyperband"] = Field("none", description="pruning algorithm")
    min_epochs: int = Field(1, ge=1, description="epochs before a trial can be pruned")
    reduction: int = Field(
        3, ge=2, description="reduction factor of successive_halving and hyperband: keep 1/N of the trials at each rung"
    )
    startup_trials: int = Field(5, ge=0, description="trials that finish before median prunes any")


class Sweep(Section):
    """A whole sweep file."""

    base: str = Field(min_length=1, description="settings file of the base experiment, relative to this file")
    set: dict[str, Any] = Field({}, description="settings that override the base in all trials, as NAME: VALUE")
    space: dict[str, Annotated[Parameter, BeforeValidator(_parameter)]] = Field(
        min_length=1, description="search space: hyperparameters by the name of the setting"
    )
    objective: Objective = Field(Objective(), description="metric to optimize")
    budget: Budget = Field(Budget(), description="limits of the whole search")
    sampler: Sampler = Field(Sampler(), description="how values are sampled")
    pruner: Pruner = Field(Pruner(), description="early stopping of bad trials")
    parallel: int = Field(
        1, ge=1, description="number of parallel trials; they share the processors and each GPU's memory"
    )
    restarts: int = Field(
        5, ge=0, description="how often a killed trial is restarted (with --ray, also what runs trials)"
    )
    keep: int | None = Field(None, ge=1, description="number of best trials whose checkpoints are kept (default: all)")

    @model_validator(mode="after")
    def _finite(self) -> Sweep:
        for name, one in self.space.items():
            if self.sampler.name == "grid" and one.choices is None and one.step is None:
                raise ValueError(f"a grid needs steps: give space.{name} a step or choices, or another sampler")
        return self

    @property
    def name_of_direction(self) -> Literal["maximize", "minimize"]:
        """The direction in Optuna's terms."""
        return "maximize" if self.objective.maximize else "minimize"


def not_a_label(value: object, parameter: Parameter) -> str:
    """Return the message that a value is none of a parameter's choices."""
    return f"must be one of {', '.join(map(shown, parameter.labels))}; got {shown(value)}"
