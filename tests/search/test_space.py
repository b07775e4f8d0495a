from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest
import yaml

from whichcar.errors import ConfigError
from whichcar.search.space import combinations, is_active, read_spec

SWEEPS = Path(__file__).parents[2] / "experiments" / "sweeps"
OPTIMIZERS = {"choices": {"adam": {"adam": {"epsilon": 0.1}}, "sgd": {"sgd": {"momentum": 0.9}}}}


class Write(Protocol):
    def __call__(self, space: object, **rest: object) -> Path: ...


@pytest.fixture
def write(tmp_path: Path) -> Write:
    (tmp_path / "base.yml").write_text("seed: 1\ndata: {directory: d, image_size: [32, 32]}\nfit: {epochs: 4}\n")

    def written(space: object, **rest: object) -> Path:
        path = tmp_path / "some.yml"
        path.write_text(yaml.safe_dump({"base": "base.yml", "space": space, **rest}, sort_keys=False))
        return path

    return written


def problems(path: Path, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as error:
        read_spec(path, overrides)
    head, *lines = str(error.value).splitlines()
    assert head.startswith(str(path.parent))
    return "\n".join(line.strip() for line in lines)


@pytest.mark.parametrize("name", ["original_grid", "fast", "show/grid", "show/pruned", "show/from_base", "head"])
def test_the_included_sweep_files_are_valid(name: str) -> None:
    assert read_spec(SWEEPS / f"{name}.yml").epochs > 1


def test_the_grid_is_the_whole_space_of_the_reference_project() -> None:
    spec = read_spec(SWEEPS / "original_grid.yml")
    # no augmentation, flips of three kinds, or those with two rotations and three zooms; the rest is free
    assert combinations(spec.space) == (1 + 3 + 3 * 2 * 3) * 2 * 6 * 3 * 2 * 2 * 2
    best = {
        "data.batch_size": 32,
        "model.dropout_rate": 0.3,
        "model.data_aug_layer": "all",
        "model.data_aug_layer.random_flip.mode": "horizontal",
        "model.data_aug_layer.random_rotation.factor": "little",
        "model.data_aug_layer.random_zoom": "0.1 to 0.2",
        "compile.optimizer.adam.learning_rate": 0.025,
        "compile.optimizer.adam.epsilon": 0.1,
        "model.l1_factor": 0.0,
        "model.l2_factor": 0.0,
    }
    experiment = spec.experiment_of(best)
    alone = read_spec(SWEEPS / "original_grid.yml").experiment_of({})
    assert experiment.model == alone.model  # the base is that best one
    assert experiment.compile == alone.compile


def test_an_unknown_setting_is_refused_with_a_suggestion(write: Write) -> None:
    message = problems(write({"model.droput_rate": [0.1, 0.2]}))
    assert message == "space.model.droput_rate: no such setting; did you mean `dropout_rate`?"


def test_every_choice_and_both_ends_of_a_range_are_checked(write: Write) -> None:
    space = {
        "data.batch_size": [16, 0],
        "model.dropout_rate": {"low": 0.0, "high": 1.5},
        "model.data_aug_layer": {"choices": {"flip": {"random_flip": {"mode": "sideways"}}}},
        "fit.epochs": {"low": 0, "high": 3},
        "model.weights": {"low": 1, "high": 2},
    }
    message = problems(write(space)).splitlines()
    assert "space.data.batch_size: must be at least 1; got 0" in message
    assert "space.model.dropout_rate: must be less than 1; got 1.5" in message
    assert any(
        line.startswith("space.model.data_aug_layer.random_flip.mode: must be one of horizontal") for line in message
    )
    assert "space.fit.epochs: must be at least 1; got 0" in message
    assert any(line.startswith("space.model.weights: must be text") for line in message)


def test_whole_numbers_are_sampled_as_integers(write: Write) -> None:
    spec = read_spec(write({"fit.epochs": {"low": 2, "high": 8, "step": 3}, "recipe.ema": {"low": 0, "high": 0.5}}))
    assert spec.integers == {"fit.epochs"}
    assert spec.space["fit.epochs"].low == 2
    assert isinstance(spec.space["fit.epochs"].step, int)
    assert spec.epochs == 8


def test_a_fraction_for_a_whole_number_is_refused(write: Write) -> None:
    assert "space.fit.epochs: must be a whole number; got 2.5" in problems(
        write({"fit.epochs": {"low": 2.5, "high": 4}})
    )


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"low": 1}, "must have both low and high"),
        ({"low": 1, "high": 2, "choices": [1]}, "must have either choices, or low and high"),
        ({}, "must have either choices, or low and high"),
        ({"low": 2, "high": 1}, "low must be at most high; got 2 and 1"),
        ({"low": 0, "high": 1, "log": True}, "with log, low must be more than 0; got 0"),
        (
            {"low": 0.1, "high": 1, "log": True, "step": 0.1},
            "log and step exclude each other; list the values as choices",
        ),
        ({"low": 0, "high": 1, "step": 0.3}, "steps of 0.3 from 0 do not end at 1; choose high so that they do"),
        ({"choices": []}, "choices must not be empty"),
        ({"choices": [0.1, 0.1]}, "the choice 0.1 is given twice; keep one"),
        ({"choices": [0.1], "log": True}, "step and log go with low and high, not with choices"),
        ({"low": 0, "high": 1, "logg": True}, "no such setting; did you mean `log`?"),
        ({"low": "few", "high": 1}, 'must be a number; got "few"'),
    ],
)
def test_an_invalid_hyperparameter_is_refused(write: Write, parameter: object, message: str) -> None:
    line = problems(write({"model.dropout_rate": parameter}))
    assert line.startswith("space.model.dropout_rate")
    assert line.endswith(message)


def test_a_hyperparameter_is_active_only_where_its_condition_holds(write: Write) -> None:
    rate = "compile.optimizer.adam.learning_rate"
    spec = read_spec(write({"compile.optimizer": OPTIMIZERS, rate: {"low": 1e-4, "high": "1e-1", "log": True, "when": {"compile.optimizer": "adam"}}}))  # fmt: skip # noqa: E501
    assert is_active(spec.space[rate], {"compile.optimizer": "adam"})
    assert not is_active(spec.space[rate], {"compile.optimizer": "sgd"})
    adam = spec.experiment_of({"compile.optimizer": "adam", rate: 0.05}).compile.optimizer.adam
    assert adam is not None
    assert (adam.learning_rate, adam.epsilon) == (0.05, 0.1)
    assert spec.experiment_of({"compile.optimizer": "sgd"}).compile.optimizer.adam is None


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"compile.optimizer": "adma"}, 'must be one of "adam", "sgd"; got "adma"'),
        ({"compile.optimiser": "adam"}, "is not varied here; did you mean `compile.optimizer`?"),
        ({"data.batch_size": 8}, "must be above model.dropout_rate in the file, since it is sampled first"),
        ({"recipe.ema": 0.1}, "is a range; a condition needs choices"),
    ],
)
def test_a_condition_that_can_never_hold_is_refused(write: Write, when: dict[str, object], message: str) -> None:
    space = {
        "compile.optimizer": OPTIMIZERS,
        "recipe.ema": {"low": 0, "high": 0.5},
        "model.dropout_rate": {"low": 0, "high": 0.5, "when": when},
        "data.batch_size": [8, 16],
    }
    assert problems(write(space)) == f"space.model.dropout_rate.when.{next(iter(when))}: {message}"


def test_conflicting_choices_are_found_before_anything_runs(write: Write) -> None:
    space = {"compile.optimizer": OPTIMIZERS, "compile.optimizer.adam.learning_rate": {"low": 0.1, "high": 0.2}}
    message = problems(write(space))
    assert message.startswith(
        "space: compile.optimizer: name exactly one of adam, adamw, sgd; got adam and sgd; with {"
    )


def test_a_choice_that_conflicts_with_the_base_is_named_by_its_value(write: Write) -> None:
    message = problems(write({"recipe.warmup_steps": [0, 9]}, set={"recipe.warmup_share": 0.1}))
    assert message == (
        "space.recipe.warmup_steps: 9 conflicts with the base: recipe.warmup_share: recipe.warmup_steps is 9, too; "
        "keep one of them"
    )


def test_null_removes_an_augmentation_layer(write: Write) -> None:
    spec = read_spec(write({"model.data_aug_layer.random_flip": [None, {"mode": "horizontal"}]}))
    assert spec.experiment_of({"model.data_aug_layer.random_flip": None}).model.data_aug_layer == {}
    label = spec.space["model.data_aug_layer.random_flip"].labels[1]
    layers = spec.experiment_of({"model.data_aug_layer.random_flip": label}).model.data_aug_layer
    assert layers == {"random_flip": {"mode": "horizontal"}}


def test_settings_of_all_trials_come_from_the_file_then_the_command_line(write: Write) -> None:
    path = write({"model.dropout_rate": [0, 0.1]}, set={"fit.epochs": 7, "seed": 5})
    experiment = read_spec(path, ("seed=6",)).experiment_of({})
    assert (experiment.fit.epochs, experiment.seed) == (7, 6)


def test_a_mistake_in_the_settings_of_all_trials_is_located(write: Write) -> None:
    assert problems(write({"seed": [1]}, set={"fit.epoch": 3})) == (
        "set.fit.epoch: no such setting; did you mean `epochs`?"
    )
    assert "fit.epochs: must be at least 1; got 0 (from --set)" in problems(write({"seed": [1]}), ("fit.epochs=0",))


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ({"budgets": {}}, "budgets: no such setting; did you mean `budget`?"),
        ({"budget": {"trails": 3}}, "budget.trails: no such setting; did you mean `trials`?"),
        ({"budget": {"trials": 0}}, "budget.trials: must be at least 1; got 0"),
        ({"sampler": {"name": "tpee"}}, 'name: must be one of tpe, random, grid; got "tpee"; did you mean `tpe`?'),
        ({"objective": {"metric": "f1"}}, 'must be one of val_accuracy, val_loss, accuracy, loss; got "f1"'),
        ({"sampler": {"name": "grid"}, "space": {"recipe.ema": {"low": 0, "high": 0.5}}}, "a grid needs steps: give space.recipe.ema a step or choices, or another sampler"),  # noqa: E501
        ({"space": {}}, "space: must not be empty"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_sweep_file_is_one_line(write: Write, rest: dict[str, object], message: str) -> None:
    assert problems(write(**{"space": {"seed": [1, 2]}, **rest})).endswith(message)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yml: no such file; name a YAML file such as .*sweeps/fast\.yml"):
        read_spec(tmp_path / "no.yml")
    (tmp_path / "empty.yml").touch()
    with pytest.raises(ConfigError, match=r"empty\.yml: is empty; write at least base and space"):
        read_spec(tmp_path / "empty.yml")
    (tmp_path / "some").mkdir()
    with pytest.raises(ConfigError, match=r"some: is a folder; name a YAML file such as .*sweeps/fast\.yml"):
        read_spec(tmp_path / "some")
    (tmp_path / "some.yml").write_text("base: gone.yml\nspace: {seed: [1, 2]}\n")
    with pytest.raises(ConfigError, match=r"some: is a folder; name a YAML file such as .*some\.yml"):
        read_spec(tmp_path / "some")
    with pytest.raises(ConfigError, match=r"gone\.yml: no such file"):
        read_spec(tmp_path / "some.yml")


def test_the_decoded_cache_has_the_largest_size(write: Write) -> None:
    spec = read_spec(write({"data.image_size": [[32, 48], [64, 32]]}))
    assert spec.settings["data"]["cache_size"] == [64, 48]
    assert spec.experiment_of({"data.image_size": "[64, 32]"}).data.cache_size == (64, 48)


KEPT = "fit.callbacks.model_checkpoint.monitor"


def kept(path: Path, overrides: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """What decides which epoch a trial keeps, and the objective."""
    spec = read_spec(path, overrides)
    objective = spec.sweep.objective
    return spec.experiment_of({}).fit.callbacks.model_checkpoint.monitor, objective.metric, objective.epoch


@pytest.mark.parametrize(
    ("objective", "monitor"),
    [
        ({}, "val_accuracy"),
        ({"metric": "val_loss"}, "val_loss"),
        ({"metric": "accuracy"}, "accuracy"),
        ({"epoch": "last"}, "epoch"),
    ],
)
def test_the_objective_decides_which_epoch_a_trial_keeps(write: Write, objective: object, monitor: str) -> None:
    assert kept(write({"seed": [1, 2]}, objective=objective))[0] == monitor


@pytest.mark.parametrize(
    ("monitor", "objective"), [("val_loss", ("val_loss", "best")), ("epoch", ("val_accuracy", "last"))]
)
def test_an_objective_that_is_left_out_follows_what_the_base_keeps(
    write: Write, monitor: str, objective: tuple[str, str]
) -> None:
    assert kept(write({"seed": [1]}, set={KEPT: monitor})) == (monitor, *objective)
    assert kept(write({"seed": [1]}), (f"{KEPT}={monitor}",)) == (monitor, *objective)


def test_an_objective_that_is_left_out_follows_early_stopping_where_that_restores_the_best(write: Write) -> None:
    stopping = {"monitor": "accuracy", "restore_best_weights": True}
    path = write({"seed": [1]}, set={"fit.callbacks.early_stopping": stopping})
    assert kept(path) == ("accuracy", "accuracy", "best")


def test_an_objective_that_contradicts_what_the_base_keeps_is_refused(write: Write) -> None:
    message = problems(write({"seed": [1]}, set={KEPT: "val_loss"}, objective={"metric": "val_accuracy"}))
    assert message == (
        f"objective: val_accuracy of the best epoch counts, but the base's {KEPT} is val_loss, so that another epoch "
        f"would be kept; write `{KEPT}: val_accuracy` under set, or delete the objective"
    )
    agreeing = write({"seed": [1]}, set={KEPT: "val_loss"}, objective={"metric": "val_loss"})
    assert kept(agreeing) == ("val_loss", "val_loss", "best")


def test_what_trials_keep_cannot_be_varied(write: Write) -> None:
    assert "is decided by the objective" in problems(write({KEPT: ["val_loss", "val_accuracy"]}))


def test_an_objective_on_validation_needs_validation_images(write: Write) -> None:
    message = problems(write({"seed": [1]}, set={"data.validation_split": 0}, objective={"metric": "val_accuracy"}))
    assert "val_accuracy needs validation images, but data.validation_split is 0" in message
    for without in ({"data.validation_split": 0}, {"data.train_on_validation": True}):
        assert kept(write({"seed": [1]}, set=without))[:2] == ("loss", "loss")
