"""Co-tuning: its target, its loss, what it begins with, and that nothing of it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whichcar.config.experiment import Experiment
from whichcar.errors import CheckpointError
from whichcar.training.hardware import prepare

HARDWARE = prepare("float32")

import keras  # noqa: E402

from whichcar.training.network import co_tuning  # noqa: E402
from whichcar.training.network.backbones import build_backbone, has_classifier  # noqa: E402
from whichcar.training.network.co_tuning import CoTuningHead, co_tuning_head, relate  # noqa: E402
from whichcar.training.network.models import TrainingModels  # noqa: E402
from whichcar.training.setup import models_from  # noqa: E402

LABELS = np.array([[1, 0, 0, 0], [0, 0, 0.25, 0.75], [0, 1, 0, 0], [0, 0, 0, 1]], np.float32)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
CLASSIFIER = np.random.default_rng(1).normal(size=(8, 10)).astype(np.float32), np.ones(10, np.float32)
SIZE = (16, 16)


def experiment(co_tuning: float = 1, weights: str | None = "imagenet", **recipe: Any) -> Experiment:  # noqa: ANN401
    return Experiment.model_validate(
        {
            "seed": 1,
            "data": {"directory": "cars", "image_size": [16, 16]},
            "model": {"weights": weights},
            "compile": {"optimizer": {"sgd": {"learning_rate": 0.1}}},
            "recipe": {"co_tuning": co_tuning, **recipe},
        }
    )


def models(settings: Experiment, weight: float = 1.0) -> TrainingModels:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Resizing(16, 16, name="resize")(inputs)
    x = keras.layers.Rescaling(1 / 255)(x)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv1_conv")(x)
    x = keras.layers.Dropout(0.0, name="dropout")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(4, "softmax", name="predictions")(x))
    return models_from(model, settings, HARDWARE, CoTuningHead(4, weight, *CLASSIFIER))


def entropy(target: np.ndarray, probabilities: np.ndarray) -> float:
    return float(-(target * np.log(probabilities)).sum(axis=-1).mean())


def test_the_loss_adds_the_cross_entropy_of_imagenets_classes_from_the_labels_also_mixed_ones() -> None:
    trained = models(experiment(label_smoothing=0.1), 0.5)
    relation = np.random.default_rng(2).dirichlet(np.ones(10), 4).astype(np.float32)
    trained.train_model.get_layer("co_tuning").relation.assign(relation)
    main, imagenet = (np.asarray(scores) for scores in trained.train_model(IMAGES, training=False))
    assert imagenet.shape == (4, 10)
    expected = entropy(0.9 * LABELS + 0.025, main) + 0.5 * entropy(LABELS @ relation, imagenet)
    loss, accuracy = trained.train_on_batch(IMAGES, LABELS, SIZE, 0.1)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(accuracy) == np.mean(main.argmax(1) == LABELS.argmax(1))


def test_what_is_saved_and_what_predicts_is_the_network_without_that_head() -> None:
    trained = models(experiment(ema=0.5))
    for _ in range(3):
        trained.train_on_batch(IMAGES, LABELS, SIZE, 0.1)
    assert [layer.name for layer in trained.export_model.layers][-1] == "predictions"
    with trained.averaged():
        scores = trained.predict_on_batch(IMAGES, SIZE)
        np.testing.assert_allclose(scores, np.asarray(trained.export_model(IMAGES, training=False)), rtol=1e-4)
    assert np.abs(trained.predict_on_batch(IMAGES, SIZE) - scores).max() > 1e-6
    saved = {variable.path for variable in trained.state_variables()}
    assert {"predictions/kernel", "co_tuning/bias", "co_tuning/relation"} <= saved


def test_head_rate_is_of_the_new_head_and_not_of_the_pretrained_one() -> None:
    def moved(rate: float) -> dict[str, np.ndarray]:
        trained = models(experiment(head_rate=rate))
        trained.train_model.get_layer("co_tuning").relation.assign(np.full((4, 10), 0.1))
        before = {v.path: np.asarray(v) for v in trained.train_model.trainable_variables}
        trained.train_on_batch(IMAGES, LABELS, SIZE, 0.1)
        return {v.path: np.asarray(v) - before[v.path] for v in trained.train_model.trainable_variables}

    slow, fast = moved(1.0), moved(4.0)
    for path in slow:
        factor = 4 if path.startswith("predictions") else 1
        np.testing.assert_allclose(fast[path], factor * slow[path], rtol=1e-3, atol=1e-6, err_msg=path)


def test_the_relation_is_what_the_untrained_network_answers_about_the_images_of_each_class() -> None:
    class Stored:
        def __len__(self) -> int:
            return 6

        def take(self, rows: np.ndarray) -> np.ndarray:
            return np.concatenate([IMAGES, IMAGES[:2]])[rows]

    trained = models(experiment())
    answers = np.asarray(trained.train_model(IMAGES, training=False)[1])
    relate(trained, Stored(), np.array([0, 1, 3]), np.array([2, 0, 2]), SIZE)  # type: ignore[arg-type]
    relation = np.asarray(trained.train_model.get_layer("co_tuning").relation)
    np.testing.assert_allclose(relation[2], (answers[0] + answers[3]) / 2, rtol=1e-4)
    np.testing.assert_allclose(relation[0], answers[1], rtol=1e-4)
    assert not relation[[1, 3]].any()


def test_of_large_images_fewer_are_related_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(co_tuning, "plain_batches", lambda images, rows, count: sizes.append(count) or [])
    for side in (256, 512):
        relate(models(experiment()), [], np.arange(4), np.arange(4), (side, side))  # type: ignore[arg-type]
    assert sizes == [64, 16]


def tiny(weights: None, include_top: bool, pooling: str | None, input_tensor: object = None) -> keras.Model:
    """Stand in for `keras.applications.ResNet50`."""
    inputs = keras.Input((8, 8, 3)) if input_tensor is None else input_tensor
    x = keras.layers.Conv2D(6, 3, name="conv1_conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    inputs = keras.utils.get_source_inputs(inputs)
    return keras.Model(inputs, keras.layers.Dense(1000, "softmax", name="predictions")(x) if include_top else x)


def test_one_file_with_the_top_layer_gives_backbone_and_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.applications, "ResNet50", tiny)
    whole = tiny(None, True, None)
    whole.save_weights(tmp_path / "top.weights.h5")
    tiny(None, False, "avg").save_weights(tmp_path / "notop.weights.h5")
    inputs = keras.Input((8, 8, 3))
    backbone = keras.Model(inputs, build_backbone("resnet50", tmp_path / "top.weights.h5", inputs))
    kernel = whole.layers[1].get_weights()[0]
    np.testing.assert_array_equal(backbone.get_layer("conv1_conv").get_weights()[0], kernel[:, :, ::-1])
    settings = experiment(weights=str(tmp_path / "top.weights.h5"))
    head = co_tuning_head(settings, 4)
    assert head
    head.build((None, 6))
    np.testing.assert_array_equal(np.asarray(head.kernel), whole.layers[-1].get_weights()[0])
    assert [has_classifier("resnet50", str(tmp_path / f"{name}.weights.h5")) for name in ("top", "notop")] == [1, 0]
    with pytest.raises(
        CheckpointError, match=r"co_tuning: .*notop.weights.h5 has no ImageNet classifier; give as model"
    ):
        co_tuning_head(experiment(weights=str(tmp_path / "notop.weights.h5")), 4)


def test_a_classifier_that_cannot_be_downloaded_is_told_and_that_of_vgg_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def offline(weights: str | None, **_: object) -> None:
        raise OSError(f"URL fetch failure on https://example.org/{weights}.h5")

    for name in ("ResNet50", "VGG16"):
        monkeypatch.setattr(keras.applications, name, offline)
    assert not has_classifier("vgg16", "imagenet") and not caplog.messages
    assert not has_classifier("resnet50", "imagenet")
    assert [message.partition(";")[0] for message in caplog.messages] == [
        "without co-tuning: model.weights: the ImageNet weights of ResNet50 could not be downloaded "
        "(URL fetch failure on https://example.org/imagenet.h5)"
    ]
