"""Validation scores are the numbers that evaluation would give for the same predictions."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from whichcar import metrics
from whichcar.data.decoded_cache import StoredRows
from whichcar.errors import TrainingError
from whichcar.metrics import Score
from whichcar.training.hardware import prepare
from whichcar.training.network.models import TrainingModels
from whichcar.training.setup import TrainingData
from whichcar.training.validation import validate

prepare("float32")
import keras  # noqa: E402

SIZE = (32, 32)


def validated(tmp_path: Any, probabilities: np.ndarray, classes: list[int]) -> Score:  # noqa: ANN401
    """The score of a network that gives these probabilities, image by image."""
    np.save(tmp_path / "rows.npy", probabilities.astype(np.float32))
    rows = np.arange(len(classes))
    data = SimpleNamespace(
        images=StoredRows(tmp_path / "rows.npy"),
        train_rows=np.arange(len(probabilities)),
        validation={SIZE: (StoredRows(tmp_path / "rows.npy"), rows)},
        validation_classes=np.array(classes),
    )
    inputs = keras.Input((probabilities.shape[1],))
    train_model = keras.Model(inputs, keras.layers.Identity()(inputs))
    models = TrainingModels(train_model, train_model, train_model, train_model, None, keras.optimizers.SGD())
    return validate(models, cast(TrainingData, data), batch_size=2, size=SIZE)


def test_a_tie_is_a_miss_in_validation_as_in_evaluation(tmp_path: Any) -> None:  # noqa: ANN401
    constant = np.full((5, 4), 0.25)
    assert validated(tmp_path, constant, [0, 1, 2, 3, 0]).accuracy == 0.0
    assert metrics.top_k_accuracy(constant, np.array([0, 1, 2, 3, 0])) == 0.0


def test_fewer_validation_images_than_a_batch_are_not_padded(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    predicted, predict = [], TrainingModels.predict_on_batch

    def counted(models: TrainingModels, images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        predicted.append(len(images))
        return predict(models, images, size)

    monkeypatch.setattr(TrainingModels, "predict_on_batch", counted)
    for count in (1, 2, 3):
        validated(tmp_path, np.full((3, 2), 0.5), [0] * count)
    assert predicted == [1, 2, 2, 2]


def test_predictions_that_are_no_numbers_end_the_training(tmp_path: Any) -> None:  # noqa: ANN401
    with pytest.raises(TrainingError, match="are not numbers; lower the learning rate"):
        validated(tmp_path, np.array([[0.5, 0.5], [np.nan, np.nan]]), [0, 1])
    with pytest.raises(TrainingError, match="are not numbers"):
        validated(tmp_path, np.full((2, 2), np.nan), [])
    assert math.isnan(validated(tmp_path, np.full((2, 2), 0.5), []).loss)


def test_loss_and_accuracy_are_those_of_evaluation(tmp_path: Any) -> None:  # noqa: ANN401
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(6, 0.1), 33).astype(np.float32)
    probabilities[:3] = np.eye(6, dtype=np.float32)[:3]  # among them 0 and 1
    truth = rng.integers(0, 6, 33)
    score = validated(tmp_path, probabilities, truth.tolist())
    assert score.accuracy == metrics.top_k_accuracy(probabilities, truth)
    assert score.loss == metrics.log_loss(probabilities[np.arange(33), truth])
