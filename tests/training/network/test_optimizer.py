from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from whichcar.config.experiment import Experiment
from whichcar.config.recipe import Recipe
from whichcar.training.hardware import prepare

prepare("float32")
import keras  # noqa: E402

from whichcar.training.network.optimizer import averaged_weights, create_optimizer, rate_factor, rate_share  # noqa: E402

SGD = {"sgd": {"learning_rate": 0.1}}
ADAMW = {"adamw": {"learning_rate": 0.01, "weight_decay": 0}}


def experiment(optimizer: dict[str, Any], **recipe: Any) -> Experiment:  # noqa: ANN401
    settings = {"seed": 1, "data": {"directory": "cars"}, "compile": {"optimizer": optimizer}, "recipe": recipe}
    return Experiment.model_validate(settings)


def network() -> keras.Model:
    """A body with a norm, and a head, always with the same weights."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, "tanh", bias_initializer="ones", name="body")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    head = keras.layers.Dense(3, "softmax", bias_initializer="ones", name="predictions")
    return keras.Model(inputs, head(x))


def optimizer_of(settings: Experiment, model: keras.Model) -> keras.optimizers.Optimizer:
    return create_optimizer(settings.compile.optimizer.chosen, settings.recipe, model)


def changes(settings: Experiment, gradient: float = 1.0, steps: int = 2) -> dict[str, np.ndarray]:
    """How far each variable moves in some steps with a gradient that is the same everywhere."""
    model = network()
    optimizer = optimizer_of(settings, model)
    before = [variable.numpy() for variable in model.trainable_variables]
    for _ in range(steps):
        gradients = [keras.ops.full(variable.shape, gradient) for variable in model.trainable_variables]
        optimizer.apply(gradients, model.trainable_variables)
    return {v.path: v.numpy() - old for v, old in zip(model.trainable_variables, before, strict=True)}


@pytest.mark.parametrize(
    "optimizer",
    [SGD, {"sgd": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}}, ADAMW, {"adam": {"learning_rate": 0.01}}],
)
def test_the_head_moves_at_its_own_multiple_of_the_rate(optimizer: dict[str, Any]) -> None:
    alike, faster = changes(experiment(optimizer)), changes(experiment(optimizer, head_rate=10))
    assert all(np.abs(moved).min() > 0 for moved in alike.values())
    for path, moved in faster.items():
        share = 10 if path.startswith("predictions/") else 1
        np.testing.assert_allclose(moved, share * alike[path], rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_shrinks_kernels_and_leaves_norms_and_biases(name: str) -> None:
    settings = experiment({name: {"learning_rate": 0.1, "weight_decay": 0.05}}, head_rate=10)
    start = {variable.path: variable.numpy() for variable in network().trainable_variables}
    moved = changes(settings, gradient=0.0, steps=2)
    assert len(moved) == 6
    for path, change in moved.items():
        share = (1 - 0.1 * 0.05) ** 2 - 1 if path.endswith("kernel") else 0
        np.testing.assert_allclose(change, start[path] * share, rtol=1e-4, atol=1e-7, err_msg=path)


def test_the_two_dimensional_biases_of_attention_are_biases() -> None:
    inputs = keras.Input((4, 6))
    x = keras.layers.MultiHeadAttention(2, 3, bias_initializer="ones")(inputs, inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", bias_initializer="ones")(x))
    optimizer = optimizer_of(experiment({"adamw": {"learning_rate": 0.1, "weight_decay": 0.05}}), model)
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert np.array_equal(variable.numpy(), old) == (variable.name == "bias"), variable.path


def test_without_decay_adamw_is_adam() -> None:
    without, adam = changes(experiment(ADAMW)), changes(experiment({"adam": {"learning_rate": 0.01}}))
    for path, moved in without.items():
        np.testing.assert_allclose(moved, adam[path], atol=1e-6)


def test_what_the_settings_say_reaches_keras() -> None:
    given = {"learning_rate": 0.025, "epsilon": 0.1, "beta_1": 0.8, "beta_2": 0.9, "amsgrad": True}
    adam = optimizer_of(experiment({"adam": given}), network())
    assert isinstance(adam, keras.optimizers.Adam)
    assert (adam.epsilon, adam.beta_1, adam.beta_2, adam.amsgrad) == (0.1, 0.8, 0.9, True)
    assert float(adam.learning_rate) == pytest.approx(0.025)
    sgd = optimizer_of(experiment({"sgd": {"momentum": 0.9, "nesterov": True}}), network())
    assert isinstance(sgd, keras.optimizers.SGD)
    assert (sgd.momentum, sgd.nesterov) == (0.9, True)


def test_frozen_layers_are_not_the_optimizers() -> None:
    model = network()
    model.get_layer("body").trainable = False
    optimizer = optimizer_of(experiment(SGD, head_rate=10), model)
    before = model.get_layer("predictions").kernel.numpy()
    optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    np.testing.assert_allclose(model.get_layer("predictions").kernel.numpy() - before, -1.0, rtol=1e-5)


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(2)
    return [
        (rng.normal(size=(8, 6)).astype(np.float32), np.eye(3, dtype=np.float32)[rng.integers(3, size=8)])
        for _ in range(3)
    ]


def compiled(settings: Experiment) -> keras.Model:
    """The network without training of its norm, whose moments depend on how a batch is cut."""
    model = network()
    model.get_layer("norm").trainable = False
    model.compile(optimizer_of(settings, model), "categorical_crossentropy", jit_compile=False)
    return model


def test_two_half_batches_make_the_step_of_a_whole_one() -> None:
    optimizer = {"sgd": {"learning_rate": 0.3, "momentum": 0.9, "weight_decay": 0.1}}
    whole = compiled(experiment(optimizer, head_rate=3))
    halves = compiled(experiment(optimizer, head_rate=3, gradient_accumulation=2))
    for images, labels in batches():
        whole.train_on_batch(images, labels)
        start = halves.get_weights()
        halves.train_on_batch(images[:4], labels[:4])
        for weight, kept in zip(halves.get_weights(), start, strict=True):
            np.testing.assert_array_equal(weight, kept)
        halves.train_on_batch(images[4:], labels[4:])
        for weight, truth in zip(halves.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_allclose(weight, truth, rtol=1e-4, atol=1e-6)


def test_the_running_mean_follows_the_weights() -> None:
    model = network()
    model.compile(optimizer_of(experiment(SGD, ema=0.75), model), "categorical_crossentropy", jit_compile=False)
    mean: list[np.ndarray] = []
    for images, labels in batches():
        model.train_on_batch(images, labels)
        now = [variable.numpy() for variable in model.trainable_variables]
        mean = [0.75 * m + 0.25 * n for m, n in zip(mean, now, strict=True)] if mean else now
    averaged = dict(zip((w.path for w in model.weights), averaged_weights(model, model.optimizer), strict=True))
    for variable, expected in zip(model.trainable_variables, mean, strict=True):
        np.testing.assert_allclose(averaged[variable.path], expected, rtol=1e-4, atol=1e-6)
        assert (averaged[variable.path] != variable.numpy()).any()
    for variable in model.non_trainable_variables:
        if "moving" in variable.path:
            np.testing.assert_array_equal(averaged[variable.path], variable.numpy())


def test_the_running_mean_of_a_cosine_head_has_weights_of_length_one() -> None:
    model = network()
    head = model.get_layer("predictions").kernel
    head.constraint = keras.constraints.UnitNorm(axis=0)
    model.compile(optimizer_of(experiment(SGD, ema=0.5), model), "categorical_crossentropy", jit_compile=False)
    for images, labels in batches():
        model.train_on_batch(images, labels)
    averaged = dict(zip((w.path for w in model.weights), averaged_weights(model, model.optimizer), strict=True))
    np.testing.assert_allclose(np.linalg.norm(averaged[head.path], axis=0), 1, rtol=1e-5)
    assert (averaged[head.path] != head.numpy()).any()


def test_without_a_running_mean_the_weights_are_taken_as_they_are() -> None:
    model = network()
    found = averaged_weights(model, optimizer_of(experiment(SGD), model))
    for weight, truth in zip(found, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, truth)


def test_the_running_mean_is_as_long_in_steps_when_gradients_are_accumulated() -> None:
    optimizer = optimizer_of(experiment(SGD, ema=0.81, gradient_accumulation=2), network())
    assert optimizer.ema_momentum == pytest.approx(0.9)


def test_the_rate_grows_in_a_line_and_falls_as_a_cosine() -> None:
    recipe = Recipe(schedule="cosine", warmup_steps=4)
    shares = [rate_share(step, 24, recipe) for step in range(24)]
    assert shares[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert shares[14] == pytest.approx(0.5)
    assert shares[9] == pytest.approx(0.5 + math.sqrt(0.125))
    assert 0 < shares[23] < 0.01
    assert all(before >= after for before, after in pairwise(shares[4:]))


def test_warming_up_may_be_a_share_of_the_training() -> None:
    recipe, same = Recipe(schedule="cosine", warmup_share=0.25), Recipe(schedule="cosine", warmup_steps=10)
    assert [rate_share(step, 40, recipe) for step in range(40)] == [rate_share(step, 40, same) for step in range(40)]
    assert max(rate_share(step, 12, recipe) for step in range(12)) == 1.0
    assert rate_share(0, 2, Recipe(warmup_share=0.1)) == 1.0


def test_a_constant_rate_stays_after_warming_up() -> None:
    assert [rate_share(step, 5, Recipe(warmup_steps=2)) for step in range(5)] == [0.5, 1, 1, 1, 1]
    assert [rate_share(step, 3, Recipe()) for step in range(3)] == [1, 1, 1]


def test_the_rate_is_multiplied_from_the_epochs_that_are_listed_on() -> None:
    recipe = Recipe(rate_factors=((5, 0.01), (3, 0.1)))
    assert [rate_factor(epoch, recipe) for epoch in range(1, 7)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_warming_up_may_be_longer_than_the_training() -> None:
    shares = [rate_share(step, 3, Recipe(schedule="cosine", warmup_steps=10)) for step in range(3)]
    assert shares == pytest.approx([0.1, 0.2, 0.3])
