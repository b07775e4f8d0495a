"""Keras optimizers with a separate learning rate for the head, and the learning rate schedule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from whichcar.config.experiment import Adam, AdamW, Sgd

if TYPE_CHECKING:
    import keras

    from whichcar.config.recipe import Recipe


def create_optimizer(settings: Adam | AdamW | Sgd, recipe: Recipe, model: keras.Model) -> keras.optimizers.Optimizer:
    """Build the optimizer from its settings and the recipe's head rate, EMA and gradient accumulation.

    Weight decay is decoupled (Loshchilov and Hutter 2019) and excludes norms and biases.
    """
    import keras

    known = {Adam: keras.optimizers.Adam, AdamW: keras.optimizers.AdamW, Sgd: keras.optimizers.SGD}
    keys = settings.model_dump()
    kind = known[type(settings)]
    if keys.get("weight_decay") == 0:
        # Keras' AdamW requires a weight decay.
        del keys["weight_decay"]
        kind = keras.optimizers.Adam if kind is keras.optimizers.AdamW else kind
    if recipe.ema:
        # Keras updates the mean after every batch, including those that only accumulate gradients.
        keys |= {"use_ema": True, "ema_momentum": recipe.ema ** (1 / recipe.gradient_accumulation)}
    if recipe.gradient_accumulation > 1:
        keys["gradient_accumulation_steps"] = recipe.gradient_accumulation
    fast = {variable.path for variable in model.get_layer(model.output_names[0]).trainable_variables}
    rates = [recipe.head_rate if variable.path in fast else 1.0 for variable in model.trainable_variables]
    optimizer = _with_rates(kind, rates)(**keys)
    optimizer.build(model.trainable_variables)
    if keys.get("weight_decay"):
        excluded = [v for v in model.trainable_variables if len(v.shape) == 1 or v.name == "bias"]
        optimizer.exclude_from_weight_decay(var_list=excluded)
    return optimizer


def warmup_updates(updates: int, recipe: Recipe) -> int:
    """Return the number of optimizer updates, out of `updates`, for which the learning rate is warmed up."""
    return recipe.warmup_steps or round(recipe.warmup_share * updates)


def rate_share(update: int, updates: int, recipe: Recipe) -> float:
    """Return the share of the full learning rate at an update: linear warm-up, then constant or half a cosine to zero.

    Args:
        update: 0 … updates, counted over the whole training; batches after the last update have `updates`.
    """
    warmup = warmup_updates(updates, recipe)
    if update < warmup:
        return (update + 1) / warmup
    if recipe.schedule == "constant":
        return 1.0
    done = (update - warmup) / max(1, updates - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * done))


def rate_factor(epoch: int, recipe: Recipe) -> float:
    """Return the recipe's factor for the learning rate in an epoch, counted from 1."""
    begun = [pair for pair in recipe.rate_factors if pair[0] <= epoch]
    return max(begun)[1] if begun else 1.0


def averaged_weights(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Return the model's weights in order, trained ones replaced by their EMA if the recipe keeps one.

    If a weight has a constraint, as in a cosine head, it is also applied to the mean.
    """
    import keras

    if not optimizer.use_ema:
        return list(model.get_weights())
    means = {
        variable.path: mean if variable.constraint is None else variable.constraint(mean)
        for variable, mean in zip(
            optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True
        )
    }
    return [keras.ops.convert_to_numpy(means.get(variable.path, variable)) for variable in model.weights]


def _with_rates(kind: Any, rates: list[float]) -> Any:  # noqa: ANN401
    """Subclass an optimizer so that its i-th variable moves at `rates[i]` times the learning rate."""

    class Scaled(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:  # noqa: ANN401
            super().update_step(gradient, variable, learning_rate * rates[self._get_variable_index(variable)])

    return Scaled
