"""What an experiment accepts, refuses and says: the specification's YAML, its search space, and the mistakes in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from whichcar.config.experiment import Experiment
from whichcar.config.load import read_experiment
from whichcar.errors import ConfigError

EVERY_KEY = """
seed: 123
data:
  directory: data/car_ims_v1
  labels: inferred
  label_mode: categorical
  validation_split: 0.2
  image_size: [224, 224]
  batch_size: 32
model:
  weights: imagenet
  input_shape: [224, 224, 3]
  classes: 196
  dropout_rate: 0.3
  l1_factor: 0.01
  l2_factor: 0.01
  data_aug_layer:
    random_flip: {mode: horizontal, name: flip}
    random_rotation: {factor: 0.1, fill_mode: constant, fill_value: 0.0}
    random_zoom: {height_factor: 0.1, width_factor: [0.1, 0.2], fill_mode: nearest, fill_value: 0}
    random_contrast: {factor: 0.2}
compile:
  optimizer:
    adam: {learning_rate: 0.001, epsilon: 1e-4, amsgrad: true, beta_1: 0.9, beta_2: 0.999}
  loss: categorical_crossentropy
  metrics: [accuracy]
fit:
  epochs: 100
  callbacks:
    model_checkpoint:
      filepath: model.{epoch:02d}-{val_loss:.4f}.h5
      save_best_only: true
      monitor: val_accuracy
      mode: max
    tensor_board: {log_dir: logs, histogram_freq: 1}
    early_stopping: {monitor: val_accuracy, patience: 10, mode: max, restore_best_weights: true}
    reduce_on_plateau: {monitor: val_loss, factor: 0.2, patience: 5, min_delta: 1e-4, cooldown: 2, min_lr: 1e-6}
"""


def read(folder: Path, text: str = "", *overrides: str) -> Experiment:
    """Read a file with a seed, a directory and the given text."""
    path = folder / "config.yml"
    path.write_text(text if "data:" in text else f"seed: 1\ndata: {{directory: cars}}\n{text}", encoding="utf-8")
    return read_experiment(path, overrides)


def problems(folder: Path, text: str = "", *overrides: str) -> list[str]:
    """The lines after the first of what reading says, without their indent."""
    with pytest.raises(ConfigError) as raised:
        read(folder, text, *overrides)
    first, *lines = str(raised.value).splitlines()
    assert first == f"{folder / 'config.yml'}: {len(lines)} problem{'s' if len(lines) > 1 else ''}"
    assert all(line.startswith("  ") for line in lines)
    return [line[2:] for line in lines]


def leaves(settings: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        inner = leaves(value) if isinstance(value, dict) else {"": value}
        found |= {f"{key}.{name}".rstrip("."): leaf for name, leaf in inner.items()}
    return found


def test_every_key_of_the_specification_is_read(tmp_path: Path) -> None:
    written = leaves(yaml.safe_load(EVERY_KEY))
    read_back = leaves(read(tmp_path, EVERY_KEY).model_dump(mode="json"))
    assert len(written) == 47
    texts_as_numbers = {
        "compile.optimizer.adam.epsilon": 1e-4,
        "fit.callbacks.reduce_on_plateau.min_delta": 1e-4,
        "fit.callbacks.reduce_on_plateau.min_lr": 1e-6,
    }
    assert {key: read_back[key] for key in written} == written | texts_as_numbers


SEARCH_SPACE = [
    *(("data.batch_size", size) for size in (16, 32, 50, 64)),
    *(("model.dropout_rate", rate) for rate in (0, 0.1, 0.2, 0.3, 0.4, 0.5)),
    *(
        ("model.data_aug_layer.random_flip.mode", mode)
        for mode in ("horizontal", "vertical", "horizontal_and_vertical")
    ),
    *(("model.data_aug_layer.random_rotation.factor", factor) for factor in (0.025, 0.1, [-0.025, 0.025], [0.1, 0.2])),
    *(("model.data_aug_layer.random_zoom.height_factor", factor) for factor in (0.1, 0.2, [0.1, 0.2])),
    *(("compile.optimizer.adam.learning_rate", rate) for rate in (0.001, 0.01, 0.025)),
    *(("compile.optimizer.adam.epsilon", epsilon) for epsilon in (0.0001, 0.1)),
    *(("model.l1_factor", factor) for factor in (0, 0.01)),
    *(("model.l2_factor", factor) for factor in (0, 0.01)),
]


@pytest.mark.parametrize(("name", "value"), SEARCH_SPACE)
def test_the_search_space_of_the_reference_project_is_accepted(tmp_path: Path, name: str, value: object) -> None:
    experiment = read(tmp_path, "", f"{name}={value}")
    assert leaves(experiment.model_dump(mode="json"))[name] == value


@pytest.mark.parametrize("layers", ["", "  data_aug_layer:", "  data_aug_layer: {}", "  data_aug_layer: null"])
def test_no_augmentation_may_be_written_in_four_ways(tmp_path: Path, layers: str) -> None:
    assert not read(tmp_path, f"model:\n  dropout_rate: 0.5\n{layers}\n").model.data_aug_layer


def test_layers_stay_in_the_order_they_were_written(tmp_path: Path) -> None:
    text = (
        "model: {data_aug_layer: {random_zoom: {height_factor: 0.1}, random_contrast: {factor: 0.1}, random_flip: {}}}"
    )
    assert list(read(tmp_path, text).model.data_aug_layer or {}) == ["random_zoom", "random_contrast", "random_flip"]


def test_only_the_parameters_that_were_written_are_passed_to_a_layer(tmp_path: Path) -> None:
    text = 'model: {data_aug_layer: {random_flip: {}, random_zoom: {height_factor: ["1e-1", 0.2]}}}'
    assert read(tmp_path, text).model.data_aug_layer == {
        "random_flip": {},
        "random_zoom": {"height_factor": [0.1, 0.2]},
    }


@pytest.mark.parametrize(
    ("written", "weights"),
    [("imagenet", "imagenet"), ("null", None), ("~", None), ("a/b.h5", "a/b.h5"), ("~/$X", "~/$X")],
)
def test_weights_are_imagenet_null_or_an_unchanged_path(tmp_path: Path, written: str, weights: str | None) -> None:
    assert read(tmp_path, f"model: {{weights: {written}}}").model.weights == weights


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_an_optimizer_with_empty_braces_has_its_defaults(tmp_path: Path, optimizer: str) -> None:
    chosen = read(tmp_path, f"compile: {{optimizer: {{{optimizer}: {{}}}}}}").compile.optimizer
    assert [name for name, value in chosen if value is not None] == [optimizer]


def test_the_default_optimizer_is_adam(tmp_path: Path) -> None:
    assert read(tmp_path).compile.optimizer.adam is not None
    assert read(tmp_path, "compile: {metrics: [accuracy]}").compile.optimizer.adam is not None


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_both_endings_of_a_checkpoint_are_accepted(tmp_path: Path, suffix: str) -> None:
    text = f"fit: {{callbacks: {{model_checkpoint: {{filepath: 'model.{{epoch:02d}}-{{val_loss:.4f}}.{suffix}'}}}}}}"
    assert read(tmp_path, text).fit.callbacks.model_checkpoint.filepath == "model.{epoch:02d}-{val_loss:.4f}." + suffix


EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("**/config.yml")), ids=lambda path: path.parent.name)
def test_every_included_experiment_can_be_read(path: Path) -> None:
    assert read_experiment(path).data.directory


@pytest.mark.parametrize("name", ["exp_001", "exp_002"])
def test_two_experiments_have_the_best_settings_of_the_reference_project(name: str) -> None:
    experiment = read_experiment(EXPERIMENTS / name / "config.yml")
    adam = experiment.compile.optimizer.adam
    assert adam is not None
    assert (adam.learning_rate, adam.epsilon) == (0.025, 0.1)
    assert (experiment.data.batch_size, experiment.model.dropout_rate, experiment.fit.epochs) == (32, 0.3, 100)
    assert experiment.data.directory == {"exp_001": "data/car_ims_v1", "exp_002": "data/car_ims_v2"}[name]


# What follows what


def test_the_input_shape_follows_the_image_size(tmp_path: Path) -> None:
    assert read(tmp_path, "seed: 1\ndata: {directory: x, image_size: [96, 128]}").model.input_shape == (96, 128, 3)


def test_the_image_size_follows_the_input_shape(tmp_path: Path) -> None:
    assert read(tmp_path, "model: {input_shape: [96, 128, 3]}").data.image_size == (96, 128)


def test_an_open_input_shape_fits_any_image_size(tmp_path: Path) -> None:
    text = "seed: 1\ndata: {directory: x, image_size: [96, 128]}\nmodel: {input_shape: [null, null, 3]}"
    assert read(tmp_path, text).model.input_shape == (None, None, 3)


def test_the_epochs_follow_the_stages(tmp_path: Path) -> None:
    text = "recipe: {stages: [{epochs: 8, image_size: [128, 128]}, {epochs: 3, image_size: [176, 176]}]}"
    assert read(tmp_path, text).fit.epochs == 11


@pytest.mark.parametrize(
    ("stopping", "monitor"),
    [
        ("", "val_loss"),
        ("restore_best_weights: null", "val_loss"),
        ("monitor: accuracy", "val_loss"),
        ("monitor: val_accuracy, restore_best_weights: true", "val_accuracy"),
        ("monitor: val_accuracy, restore_best_weights: false", "epoch"),
    ],
)
def test_which_epoch_is_evaluated_follows_restore_best_weights(tmp_path: Path, stopping: str, monitor: str) -> None:
    callbacks = read(tmp_path, f"fit: {{callbacks: {{early_stopping: {{{stopping}}}}}}}").fit.callbacks
    assert callbacks.model_checkpoint.monitor == monitor


@pytest.mark.parametrize("metrics", ["[]", "[auc]", "[accuracy, accuracy]", "accuracy", "null"])
def test_metrics_that_would_not_be_computed_are_refused(tmp_path: Path, metrics: str) -> None:
    (line,) = problems(tmp_path, f"compile: {{metrics: {metrics}}}")
    assert line.startswith("compile.metrics")
    assert read(tmp_path, "compile: {metrics: [accuracy]}").compile.metrics == ["accuracy"]


def test_without_validation_the_training_metrics_are_monitored(tmp_path: Path) -> None:
    text = "seed: 1\ndata: {directory: x, validation_split: 0}\nfit: {callbacks: {early_stopping: {}}}"
    callbacks = read(tmp_path, text).fit.callbacks
    assert (callbacks.model_checkpoint.monitor, callbacks.early_stopping.monitor) == ("loss", "loss")
    assert callbacks.model_checkpoint.filepath == "model.{epoch:02d}-{loss:.4f}.keras"


# Mistakes, and what is message


def test_two_mistakes_are_reported_together(tmp_path: Path) -> None:
    assert problems(tmp_path, "model: {droput_rate: 0.3}\nfit: {epochs: 0}") == [
        "model.droput_rate: no such setting; did you mean `dropout_rate`?",
        "fit.epochs: must be at least 1; got 0",
    ]


MISTAKES = [
    ("data: {directory: x}\nmodel: {}", ["seed: is missing: random seed of the whole experiment"]),
    ("seed: 1\ndata: 3", ["data: must contain settings, one per line; got 3"]),
    (
        "seed: 1\ndata: {batch_size: 1}",
        [
            "data.directory: is missing: folder with train/ and test/, or with one folder per class; relative to where "
            "the command runs"
        ],
    ),
    ("seed: 1\ndata: {directory: ''}", ['data.directory: must not be empty; got ""']),
    ("seed: 1\ndata: {directory: 12}", ["data.directory: must be text; quote it if necessary; got 12"]),
    ("seed: ten\ndata: {directory: x}", ['seed: must be a whole number; got "ten"']),
    ("seed: -1\ndata: {directory: x}", ["seed: must be at least 0; got -1"]),
    ("seed: 4294967296\ndata: {directory: x}", ["seed: must be at most 4294967295; got 4294967296"]),
    ("seed: 1\ndata: {directory: x, batch_size: 32.5}", ["data.batch_size: must be a whole number; got 32.5"]),
    ("seed: 1\ndata: {directory: x, validation_split: 1}", ["data.validation_split: must be less than 1; got 1"]),
    ("seed: 1\ndata: {directory: x, validation_split: -0.1}", ["data.validation_split: must be at least 0; got -0.1"]),
    (
        "seed: 1\ndata: {directory: x, labels: infered}",
        ['data.labels: must be inferred; got "infered"; did you mean `inferred`?'],
    ),
    (
        "seed: 1\ndata: {directory: x, image_size: 224}",
        ["data.image_size: must be a list (height and width of the network's input); got 224"],
    ),
    (
        "seed: 1\ndata: {directory: x, image_size: []}",
        ["data.image_size: must be a list (height and width of the network's input); got []"],
    ),
    (
        "seed: 1\ndata: {directory: x, image_size: [1, 2, 3]}",
        ["data.image_size: must be a list (height and width of the network's input); got [1, 2, 3]"],
    ),
    ("seed: 1\ndata: {directory: x, image_size: [8, 224]}", ["data.image_size[0]: must be at least 16; got 8"]),
    ("model: {input_shape: [224, 224, 1]}", ["model.input_shape[2]: must be 3; got 1"]),
    ("model: {dropout_rate: true}", ["model.dropout_rate: must be a number; got true"]),
    ("model: {dropout_rate: much}", ['model.dropout_rate: must be a number; got "much"']),
    ("model: {dropout_rate: .nan}", ["model.dropout_rate: must be a finite number; got NaN"]),
    ("model: {dropout_rate: }", ["model.dropout_rate: is empty; write a value, or delete the line"]),
    ("seed:\ndata: {directory: x}", ["seed: is empty; write a value"]),
    ("model:", ["model: is empty; write {} for its defaults, or delete the line"]),
    ("model: {classes: 1}", ["model.classes: must be at least 2; got 1"]),
    ("model: {weights: None}", ["model.weights: YAML reads None as a name; write null for random weights"]),
    ("model: {weights: ''}", ['model.weights: must not be empty; got ""']),
    ("compile: {loss: mse}", ['compile.loss: must be categorical_crossentropy; got "mse"']),
    ("compile: {metrics: [acc]}", ['compile.metrics[0]: must be accuracy; got "acc"; did you mean `accuracy`?']),
    (
        "compile: {metrics: accuracy}",
        ['compile.metrics: must be a list (metrics computed in addition to the loss); got "accuracy"'],
    ),
    ("compile: {optimizer: adam}", ['compile.optimizer: must contain settings, one per line; got "adam"']),
    ("compile: {optimizer: {}}", ["compile.optimizer: name exactly one of adam, adamw, sgd; got none"]),
    (
        "compile: {optimizer: {sgd: {}, adam: {}}}",
        ["compile.optimizer: name exactly one of adam, adamw, sgd; got adam and sgd"],
    ),
    (
        "compile: {optimizer: {adam: }}",
        ["compile.optimizer.adam: is empty; write {} for its defaults, or delete the line"],
    ),
    ("compile: {optimizer: {adm: {}}}", ["compile.optimizer.adm: no such setting; did you mean `adam`?"]),
    (
        "compile: {optimizer: {adam: {lr: 1}}}",
        ["compile.optimizer.adam.lr: no such setting; known: learning_rate, beta_1, beta_2, epsilon, amsgrad"],
    ),
    (
        "compile: {optimizer: {sgd: {nesterov: maybe}}}",
        ['compile.optimizer.sgd.nesterov: must be true or false; got "maybe"'],
    ),
    (
        "fit: {early_stopping: {}}",
        ["fit.early_stopping: no such setting; did you mean `fit.callbacks.early_stopping`?"],
    ),
    (
        "fit: {callbacks: {early_stoping: {}}}",
        ["fit.callbacks.early_stoping: no such setting; did you mean `early_stopping`?"],
    ),
    (
        "fit: {callbacks: {early_stopping: {monitor: val_acc}}}",
        [
            "fit.callbacks.early_stopping.monitor: must be one of loss, accuracy, val_loss, val_accuracy;"
            ' got "val_acc"; did you mean `val_accuracy`?'
        ],
    ),
    ("optimizer: {}", ["optimizer: no such setting; did you mean `compile.optimizer`?"]),
    ("7: {}", ["7: no such setting; known: seed, data, model, compile, fit, recipe, hardware, refit_of"]),
    ("data_aug_layer: {}", ["data_aug_layer: no such setting; did you mean `model.data_aug_layer`?"]),
    (
        "recipe: {random_resized_crop: {side: [0.9, 0.8]}}",
        ["recipe.random_resized_crop: side must be two shares with 0 < low <= high <= 1; got [0.9, 0.8]"],
    ),
    (
        "recipe: {stages: [{epochs: 1}]}",
        ["recipe.stages[0].image_size: is missing: height and width of training images"],
    ),
    (
        "recipe: {stages: [{epochs: 0, image_size: [64, 64]}, {epochs: 1, image_size: [64, 64], size: 3}]}",
        [
            "recipe.stages[0].epochs: must be at least 1; got 0",
            "recipe.stages[1].size: no such setting; did you mean `image_size`?",
        ],
    ),
    (
        "recipe: {test_sizes: [192]}",
        [
            "recipe.test_sizes[0]: must be a list (image sizes for prediction, tried on validation; the best is used "
            "(without validation images: exactly one size)); got 192"
        ],
    ),
    (
        "model: {backbone: mobilenet_v3_smal}",
        ['model.backbone: no network has the name "mobilenet_v3_smal"; did you mean `mobilenet_v3_small`?'],
    ),
    (
        "model: {backbone: mobilenet_v2}\nrecipe: {test_sizes: [[24, 64]]}",
        ["recipe.test_sizes: mobilenet_v2 takes at least 32 pixels a side; got [24, 64]"],
    ),
    (
        "model: {backbone: mobilenet_v3_small}\nfit: {callbacks: {model_checkpoint: {filepath: model.h5}}}",
        ["fit.callbacks.model_checkpoint.filepath: Keras loads no mobilenet_v3_small from .h5; write model.keras"],
    ),
    (
        "model: {backbone: convnext_tiny}\nrecipe: {freeze: 5}",
        ["recipe.freeze: must be at most 4, the stages of convnext_tiny; got 5"],
    ),
    (
        "model: {backbone: vgg16}\nrecipe: {precise_batch_norm: true}",
        ["recipe.precise_batch_norm: vgg16 has no batch normalization; delete it"],
    ),
    (
        "model: {backbone: vgg16}\nrecipe: {co_tuning: 1}",
        ["recipe.co_tuning: vgg16 has no single layer from its features to ImageNet's classes; delete it"],
    ),
    ("recipe:\n  rand_augment:", ["recipe.rand_augment: is empty; write {} for its defaults, or delete the line"]),
    ("hardware: {devices: all}", ['hardware.devices: must be auto or a whole number of at least 1; got "all"']),
    ("hardware: {devices: true}", ["hardware.devices: must be auto or a whole number of at least 1; got true"]),
    ("recipe: {freeze: 6}", ["recipe.freeze: must be at most 5, the stages of resnet50; got 6"]),
    (
        "hardware: {precision: float16}",
        ['hardware.precision: must be one of auto, float32, bfloat16; got "float16"; did you mean `bfloat16`?'],
    ),
]


@pytest.mark.parametrize(("text", "lines"), MISTAKES, ids=[text.replace("\n", " ") for text, _ in MISTAKES])
def test_a_mistake_is_one_plain_line_with_the_fix(tmp_path: Path, text: str, lines: list[str]) -> None:
    assert problems(tmp_path, text) == lines


@pytest.mark.parametrize("callback", ["model_checkpoint", "tensor_board", "early_stopping", "reduce_on_plateau"])
def test_an_empty_callback_is_an_error_with_the_fix(tmp_path: Path, callback: str) -> None:
    text = f"fit:\n  callbacks:\n    {callback}:\n"
    expected = f"fit.callbacks.{callback}: is empty; write {{}} for its defaults, or delete the line"
    assert problems(tmp_path, text) == [expected]
    assert getattr(read(tmp_path, text.rstrip() + " {}").fit.callbacks, callback) is not None


LAYER_MISTAKES = [
    ("random_flip:", "random_flip: is empty; write {} for its defaults, or delete the line"),
    ("random_flip: 3", "random_flip: must contain settings, one per line; got 3"),
    ("random_flp: {}", "random_flp: no such setting; did you mean `random_flip`?"),
    ("mixup: {}", "mixup: no such setting; did you mean `recipe.mixup`?"),
    ("cut_mix: {}", "cut_mix: no such setting; did you mean `recipe.cutmix`?"),
    (
        "random_flip: {mode: horizontaly}",
        "random_flip.mode: must be one of horizontal, vertical, horizontal_and_vertical;"
        ' got "horizontaly"; did you mean `horizontal`?',
    ),
    ("random_rotation: {}", "random_rotation.factor: is missing; write it"),
    (
        "random_rotation: {factor: 15}",
        "random_rotation.factor: must be a number, or two as [lowest, highest], between -1 and 1; got 15",
    ),
    (
        "random_rotation: {factor: [0.1, 0.2, 0.3]}",
        "random_rotation.factor: must be a number, or two as [lowest, highest], between -1 and 1; got [0.1, 0.2, 0.3]",
    ),
    (
        "random_rotation: {factor: true}",
        "random_rotation.factor: must be a number, or two as [lowest, highest], between -1 and 1; got true",
    ),
    (
        "random_zoom: {height_factor: -1}",
        "random_zoom.height_factor: must be a number, or two as [lowest, highest], above -1 and at most 1; got -1",
    ),
    ("random_gaussian_blur: {kernel_size: 4}", "random_gaussian_blur.kernel_size: must be odd; got 4"),
    ("random_contrast: {factor: 0.1, facto: 1}", "random_contrast.facto: no such setting; did you mean `factor`?"),
]


@pytest.mark.parametrize(("text", "line"), LAYER_MISTAKES)
def test_a_mistake_in_an_augmentation_layer_is_found_without_keras(tmp_path: Path, text: str, line: str) -> None:
    assert problems(tmp_path, f"model:\n  data_aug_layer:\n    {text}\n") == [f"model.data_aug_layer.{line}"]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("model.{epoch}", 'must end in .h5 or .keras; got "model.{epoch}"'),
        ("model.{epoch}.hdf5", 'must end in .h5 or .keras; got "model.{epoch}.hdf5"'),
        ("model.{val_los:.4f}.h5", "{val_los} is not a known value; did you mean `val_loss`?"),
        (
            "model.{step}.h5",
            "{step} is not a known value; known: epoch, learning_rate, loss, accuracy, val_loss, val_accuracy",
        ),
    ],
)
def test_a_checkpoint_pattern_that_cannot_be_filled_in_is_refused(tmp_path: Path, pattern: str, why: str) -> None:
    text = f"fit: {{callbacks: {{model_checkpoint: {{filepath: '{pattern}'}}}}}}"
    assert problems(tmp_path, text) == [f"fit.callbacks.model_checkpoint.filepath: {why}"]


@pytest.mark.parametrize("pattern", ["{val_loss:d}.h5", "{epoch.h5", "{}.h5", "{loss[0]}.h5", "{loss.x}.h5"])
def test_the_error_of_an_invalid_checkpoint_pattern_has_an_example(tmp_path: Path, pattern: str) -> None:
    (line,) = problems(tmp_path, f"fit: {{callbacks: {{model_checkpoint: {{filepath: '{pattern}'}}}}}}")
    assert "cannot be filled in" in line
    assert line.endswith("e.g. model.{epoch:02d}-{val_loss:.4f}.h5")


CONTRADICTIONS = [
    (
        "seed: 1\ndata: {directory: x, validation_split: 0}\n"
        "fit: {callbacks: {reduce_on_plateau: {monitor: val_loss}}}",
        "fit.callbacks.reduce_on_plateau.monitor: val_loss needs validation images, but data.validation_split is 0;"
        " write loss",
    ),
    (
        "seed: 1\ndata: {directory: x, validation_split: 0}\n"
        "fit: {callbacks: {model_checkpoint: {filepath: 'm.{val_loss:.2f}.h5'}}}",
        'fit.callbacks.model_checkpoint.filepath: "m.{val_loss:.2f}.h5" needs validation images, but'
        " data.validation_split is 0; write m.{loss:.2f}.h5",
    ),
    (
        "seed: 1\ndata: {directory: x, validation_split: 0}\nrecipe: {test_sizes: [[64, 64], [80, 80]]}",
        "recipe.test_sizes: needs validation images, but data.validation_split is 0; keep the one size to predict at",
    ),
    (
        "seed: 1\ndata: {directory: x, train_on_validation: true}\n"
        "fit: {callbacks: {early_stopping: {monitor: val_loss}}}",
        "fit.callbacks.early_stopping.monitor: val_loss needs validation images, but data.train_on_validation is true;"
        " write loss",
    ),
    (
        "recipe: {warmup_steps: 150, warmup_share: 0.1}",
        "recipe.warmup_share: recipe.warmup_steps is 150, too; keep one of them",
    ),
    (
        "fit: {callbacks: {early_stopping: {monitor: val_accuracy, restore_best_weights: true},"
        " model_checkpoint: {monitor: loss}}}",
        "fit.callbacks.early_stopping.restore_best_weights: the best epoch by val_accuracy is to be evaluated, but"
        " model_checkpoint.monitor is loss; delete one of the two",
    ),
    (
        "fit: {callbacks: {early_stopping: {restore_best_weights: false}, model_checkpoint: {monitor: val_loss}}}",
        "fit.callbacks.early_stopping.restore_best_weights: the last epoch is to be evaluated, but"
        " model_checkpoint.monitor is val_loss; delete one of the two",
    ),
    (
        "fit: {callbacks: {early_stopping: {restore_best_weights: false}, model_checkpoint: {save_best_only: true}}}",
        "fit.callbacks.early_stopping.restore_best_weights: the last epoch is to be evaluated, but save_best_only is"
        " true; delete one",
    ),
    (
        "fit: {callbacks: {reduce_on_plateau: {}}}\nrecipe: {schedule: cosine}",
        "recipe.schedule: both set the learning rate; delete reduce_on_plateau, or write schedule: constant",
    ),
    (
        "seed: 1\ndata: {directory: x, image_size: [128, 128]}\nmodel: {input_shape: [128, 224, 3]}",
        "model.input_shape: is [128, 224] but data.image_size is [128, 128];"
        " delete input_shape, and it follows image_size",
    ),
    (
        "fit: {callbacks: {early_stopping: {mode: max}}}",
        "fit.callbacks.early_stopping.mode: max would take the worst val_loss for the best;"
        " write auto or delete the line",
    ),
    (
        "fit: {callbacks: {model_checkpoint: {monitor: accuracy, mode: min}}}",
        "fit.callbacks.model_checkpoint.mode: min would take the worst accuracy for the best;"
        " write auto or delete the line",
    ),
    (
        "recipe: {cached_features: true, freeze: 4}",
        "recipe.cached_features: the backbone is run once, so it must not change: write recipe.freeze: 5; got 4",
    ),
    (
        "model: {weights: null}\nrecipe: {cached_features: true, freeze: 5}",
        "recipe.cached_features: a backbone with random weights is of no use; give imagenet or a file",
    ),
    *(
        (
            f"recipe: {{cached_features: true, freeze: 5, {name}: {value}}}",
            f"recipe.cached_features: the backbone sees each image once, as it is; delete recipe.{name}",
        )
        for name, value in {
            "mixup": "0.2",
            "cutmix": "1.0",
            "rand_augment": "{}",
            "random_resized_crop": "{}",
            "stages": "[{epochs: 10, image_size: [64, 64]}]",
            "test_sizes": "[[176, 176]]",
        }.items()
    ),
    (
        "model: {data_aug_layer: {random_flip: {mode: horizontal}}}\nrecipe: {cached_features: true, freeze: 5}",
        "recipe.cached_features: the backbone sees each image once, as it is; delete model.data_aug_layer",
    ),
    *(
        (
            f"recipe: {{{frozen}, {name}: {value}}}",
            f"recipe.{frozen.split(':')[0]}: it serves to train the backbone, which is frozen; delete recipe.{name}",
        )
        for frozen in ("cached_features: true, freeze: 5", "freeze: 5")
        for name, value in {"co_tuning": "1", "precise_batch_norm": "true", "batch_norm_momentum": "0.9"}.items()
    ),
    (
        "fit: {callbacks: {reduce_on_plateau: {}}}\nrecipe: {rate_factors: [[1, 0.5]]}",
        "recipe.rate_factors: both lower the learning rate; delete one of them",
    ),
    (
        "seed: 1\ndata: {directory: x, image_size: [96, 96], cache_size: [128, 96]}\n"
        "recipe: {stages: [{epochs: 5, image_size: [64, 128]}, {epochs: 5, image_size: [96, 96]}]}",
        "data.cache_size: is [128, 96], and images are trained at [96, 128], to which they would be enlarged;"
        " delete it",
    ),
    (
        "model: {weights: null}\nrecipe: {co_tuning: 1}",
        "recipe.co_tuning: needs ImageNet's classifier, but model.weights is null;"
        " give imagenet or a file with the top layer",
    ),
]


@pytest.mark.parametrize(("text", "line"), CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, text: str, line: str) -> None:
    assert problems(tmp_path, text) == [line]


@pytest.mark.parametrize(
    "text",
    [
        "fit: {epochs: 5}\nrecipe: {plain_epochs: 6}",
        "fit: {epochs: 10}\nrecipe: {stages: [{epochs: 8, image_size: [64, 64]}, {epochs: 3, image_size: [96, 96]}]}",
        "fit: {callbacks: {early_stopping: {restore_best_weights: true}, model_checkpoint: {save_best_only: true}}}",
        "recipe: {freeze: 5}",
        "recipe: {cached_features: true, freeze: 5, label_smoothing: 0.1, ema: 0.99}\nmodel: {data_aug_layer: {}}",
        "recipe: {schedule: cosine, warmup_steps: 150, mixup: 0.2, cutmix: 1.0, rand_augment: {}, ema: 0.999}",
        "recipe: {test_sizes: [[176, 176], [192, 192]], random_resized_crop: {side: [0.8, 1]}}",
        "seed: 1\ndata: {directory: x, validation_split: 0}\nrecipe: {test_sizes: [[192, 192]]}",
        "seed: 1\ndata: {directory: x, cache_size: [192, 192]}\n"
        "recipe: {stages: [{epochs: 5, image_size: [96, 96]}, {epochs: 5, image_size: [160, 160]}]}",
        "fit: {callbacks: {early_stopping: {monitor: val_accuracy, mode: max}}}",
    ],
)
def test_compatible_settings_are_accepted(tmp_path: Path, text: str) -> None:
    assert isinstance(read(tmp_path, text), Experiment)


def test_contradictions_are_reported_together_with_wrong_values(tmp_path: Path) -> None:
    text = "model: {droput_rate: 1}\ncompile: {optimizer: {adam: {epsilon: 0}, sgd: {}}}\n"
    assert problems(tmp_path, text + "recipe: {warmup_steps: 3, warmup_share: 0.1}") == [
        "model.droput_rate: no such setting; did you mean `dropout_rate`?",
        "compile.optimizer.adam.epsilon: must be more than 0; got 0",
        "compile.optimizer: name exactly one of adam, adamw, sgd; got adam and sgd",
        "recipe.warmup_share: recipe.warmup_steps is 3, too; keep one of them",
    ]


def test_a_wrong_value_is_not_reported_again_as_a_contradiction(tmp_path: Path) -> None:
    text = "recipe: {warmup_steps: -3, warmup_share: 0.1}"
    assert problems(tmp_path, text) == ["recipe.warmup_steps: must be at least 0; got -3"]


def test_settings_are_immutable(tmp_path: Path) -> None:
    experiment = read(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        experiment.fit.epochs = 3  # type: ignore[misc]
    other = Experiment.model_validate({"seed": 1, "data": {"directory": "x", "image_size": [64, 64]}})
    assert (other.model.input_shape, experiment.model.input_shape) == ((64, 64, 3), (224, 224, 3))
