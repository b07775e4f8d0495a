"""The settings of a search, once: what is varied and how, for how long, and what counts as better."""

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
    """One varied setting: some choices, or a range of numbers."""

    choices: Annotated[list[Any] | dict[str, Any] | None, BeforeValidator(_text_keys)] = Field(
        None, description="values, also whole sections; as NAME: VALUE where a name reads better"
    )
    low: float | None = Field(None, description="smallest number")
    high: float | None = Field(None, description="largest number")
    step: float | None = Field(None, gt=0, description="distance between two numbers (default: any number)")
    log: bool = Field(False, description="draw the logarithm evenly")
    when: dict[str, Any] = Field({}, description="varied only while these parameters have these values")

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
                raise ValueError(f"the choice {twice} is there twice; keep one")
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
        """True for a number of the range, on a step where there are steps."""
        if not isinstance(number, int | float) or self.low is None or self.high is None:
            return False
        return self.low <= number <= self.high and _in_steps(number - self.low, self.step)

    @property
    def labels(self) -> list[Label]:
        """What the choices are called in tables and in the study."""
        return [_label(value) for value in self.choices] if isinstance(self.choices, list) else list(self.choices or ())

    def value_of(self, label: Any) -> Any:  # noqa: ANN401
        """Return the setting's value that a label stands for; a number of a range stands for itself."""
        if isinstance(self.choices, dict):
            return self.choices[label]
        if isinstance(self.choices, list):
            return self.choices[[json.dumps(one) for one in self.labels].index(json.dumps(label))]
        return self.plain(label)

    def plain(self, label: Any) -> Any:  # noqa: ANN401
        """Return a number without the noise that counting in steps leaves: 0.3 for 0.30000000000000004."""
        return float(f"{label:.12g}") if self.step and isinstance(label, float) else label


def _in_steps(distance: float, step: float | None) -> bool:
    return step is None or abs(distance / step - round(distance / step)) <= 1e-6


def _label(value: Any) -> Label:  # noqa: ANN401
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value)


def _parameter(value: Any) -> Any:  # noqa: ANN401
    """Take a plain list for choices."""
    return {"choices": value} if isinstance(value, list) else value


class Objective(Section):
    """What counts as better, of trials and of each trial's epochs. Left out, the base's model_checkpoint decides."""

    metric: METRICS = Field("val_accuracy", description="column of history.csv")
    epoch: Literal["best", "last"] = Field("best", description="the epoch that counts and whose checkpoint is kept")

    @property
    def monitor(self) -> str:
        """What model_checkpoint.monitor must be, so that the epoch that counts is the one that is kept."""
        return self.metric if self.epoch == "best" else "epoch"

    @property
    def maximize(self) -> bool:
        """True where more is better."""
        return self.metric.endswith("accuracy")

    def of(self, values: Sequence[float]) -> float:
        """Return a trial's value from those of its epochs."""
        return values[-1] if self.epoch == "last" else max(values) if self.maximize else min(values)


class Budget(Section):
    """When the search ends; both count over all calls and processes that share the study."""

    trials: int | None = Field(None, ge=1, description="how many trials (default: 20; of a grid all)")
    minutes: float | None = Field(None, gt=0, description="no trial begins once all of them took as long together")


class Sampler(Section):
    """Which values are tried: Optuna's samplers."""

    name: Literal["tpe", "random", "grid"] = Field(
        "tpe", description="tree-structured Parzen estimator, chance, or every combination once in random order"
    )
    seed: int = Field(123, ge=0, le=2**31, description="fixes the draws, as far as trials run one after the other")
    startup_trials: int = Field(10, ge=0, description="of tpe: trials drawn by chance before it learns from them")
    base_first: bool = Field(True, description="of tpe and random: the first trial has the base's own values")


class Pruner(Section):
    """Which trials end early: Optuna's pruners, asked after every epoch but the last."""

    name: Literal["none", "median", "successive_halving", "hyperband"] = Field("none", description="rule")
    min_epochs: int = Field(1, ge=1, description="epochs that every trial may do")
    reduction: int = Field(3, ge=2, description="of halving and hyperband: one of as many goes on at a rung")
    startup_trials: int = Field(5, ge=0, description="of median: trials that end before any is pruned")


class Sweep(Section):
    """A whole sweep file."""

    base: str = Field(min_length=1, description="settings file of the experiment that is varied, seen from this file")
    set: dict[str, Any] = Field({}, description="settings laid over the base in all trials, as NAME: VALUE")
    space: dict[str, Annotated[Parameter, BeforeValidator(_parameter)]] = Field(
        min_length=1, description="what is varied, by the name of the setting"
    )
    objective: Objective = Field(Objective(), description="what counts as better")
    budget: Budget = Field(Budget(), description="when the search ends")
    sampler: Sampler = Field(Sampler(), description="which values are tried")
    pruner: Pruner = Field(Pruner(), description="which trials end early")
    parallel: int = Field(1, ge=1, description="trials at once; they share the processors")
    restarts: int = Field(5, ge=0, description="how often a trial killed from outside is taken up again")
    keep: int | None = Field(None, ge=1, description="trials whose checkpoints are kept, best first (default: all)")

    @model_validator(mode="after")
    def _finite(self) -> Sweep:
        for name, one in self.space.items():
            if self.sampler.name == "grid" and one.choices is None and one.step is None:
                raise ValueError(f"a grid needs steps: give space.{name} a step or choices, or another sampler")
        return self

    @property
    def name_of_direction(self) -> Literal["maximize", "minimize"]:
        """Optuna's word for what is better."""
        return "maximize" if self.objective.maximize else "minimize"


def not_a_label(value: object, parameter: Parameter) -> str:
    """Return that a value is none of a parameter's choices."""
    return f"must be one of {', '.join(map(shown, parameter.labels))}; got {shown(value)}"
