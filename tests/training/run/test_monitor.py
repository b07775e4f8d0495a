from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest

from whichcar.config.experiment import ReduceOnPlateau
from whichcar.training.hardware import prepare
from whichcar.training.run.monitor import MetricMonitor, rate_after

Direction = Literal["min", "max"]
# Eighths, so that float32 (Keras) and float64 (here) see the same steps.
VALUES = np.random.default_rng(0).integers(0, 9, (25, 14)) / 8


def ended(values: list[float], patience: int, mode: Direction, min_delta: float) -> int:
    """The epoch, from 0, after which training ends."""
    monitor = MetricMonitor("value", mode, min_delta)
    for epoch, value in enumerate(values):
        monitor.improved({"value": value})
        if monitor.has_waited(patience):
            return epoch
    return len(values)


def ended_by_keras(values: list[float], patience: int, mode: Direction, min_delta: float) -> int:
    prepare("float32")
    import keras

    callback = keras.callbacks.EarlyStopping("value", patience=patience, mode=mode, min_delta=min_delta)
    model = SimpleNamespace(stop_training=False)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"value": value})
        if model.stop_training:
            return epoch
    return len(values)


def rates(values: list[float], settings: ReduceOnPlateau, rate: float) -> list[float]:
    """The learning rate after each epoch."""
    monitor, found = MetricMonitor("value", settings.mode, settings.min_delta), []
    for value in values:
        monitor.improved({"value": value})
        rate = rate_after(monitor, settings, rate)
        found.append(rate)
    return found


def rates_of_keras(values: list[float], settings: ReduceOnPlateau, rate: float) -> list[float]:
    prepare("float32")
    import keras

    callback = keras.callbacks.ReduceLROnPlateau("value", **settings.model_dump(exclude={"monitor"}))
    optimizer, found = SimpleNamespace(learning_rate=rate), []
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"value": value})
        found.append(optimizer.learning_rate)
    return found


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("min_delta", [0.0, 0.25])
@pytest.mark.parametrize("patience", [0, 1, 3])
def test_it_ends_when_early_stopping_of_keras_does(patience: int, min_delta: float, mode: Direction) -> None:
    for values in VALUES.tolist():
        assert ended(values, patience, mode, min_delta) == ended_by_keras(values, patience, mode, min_delta)


def test_the_rate_is_that_of_the_plateau_callback_of_keras() -> None:
    rng = np.random.default_rng(1)
    for values in np.tile(VALUES, (6, 1)).tolist():
        settings = ReduceOnPlateau(
            factor=0.5,
            patience=rng.integers(3),
            mode=rng.choice(["min", "max"]),
            min_delta=rng.choice([0.0, 0.25]),
            cooldown=rng.integers(4),
            min_lr=rng.choice([0.0, 0.0625, 0.375, 1.0, 4.0]),
        )
        assert rates(values, settings, 1.0) == rates_of_keras(values, settings, 1.0), settings


def test_a_lowest_rate_above_the_rate_does_not_raise_it() -> None:
    settings = ReduceOnPlateau(patience=1, min_lr=0.1)
    assert rates([1.0, 1.0, 1.0, 1.0], settings, 0.05) == [0.05] * 4


def test_auto_takes_less_loss_and_more_accuracy() -> None:
    for name, better in (("val_loss", 0.5), ("loss", 0.5), ("val_accuracy", 1.5), ("accuracy", 1.5)):
        monitor = MetricMonitor(name)
        assert monitor.improved({name: 1.0})
        assert not monitor.improved({name: 2.0 - better})
        assert monitor.improved({name: better})
        assert monitor.best == better


def test_an_equal_value_is_no_improvement() -> None:
    monitor = MetricMonitor("val_loss")
    assert [monitor.improved({"val_loss": value}) for value in (1.0, 1.0, 0.9, 0.9)] == [True, False, True, False]
    assert monitor.waited == 1


def test_a_value_that_is_no_number_is_never_the_best() -> None:
    monitor = MetricMonitor("val_loss")
    assert monitor.improved({"val_loss": math.nan})  # the first is kept, since there is nothing better
    assert monitor.improved({"val_loss": 3.0})
    assert not monitor.improved({"val_loss": math.nan})
    assert not monitor.improved({"val_loss": 4.0})
    assert (monitor.best, monitor.waited) == (3.0, 2)


def test_counting_resumes_from_a_saved_state() -> None:
    for values in VALUES.tolist():
        whole, first, second = (
            MetricMonitor("value", "min"),
            MetricMonitor("value", "min"),
            MetricMonitor("value", "min"),
        )
        whole.cooldown = first.cooldown = 2
        answers = [whole.improved({"value": value}) for value in values]
        begun = [first.improved({"value": value}) for value in values[:6]]
        second.restore(first.state())
        assert begun + [second.improved({"value": value}) for value in values[6:]] == answers
        assert second.state() == whole.state()
