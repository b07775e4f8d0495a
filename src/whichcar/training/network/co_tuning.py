"""Co-tuning (You, Kou, Long and Wang, NeurIPS 2020): during training, the network also predicts ImageNet's classes.

A second softmax layer on the pooled features starts as the ImageNet classifier. Its target is the labels (one-hot or
mixed) times a matrix: the mean ImageNet probabilities of the images of each class, as predicted by the pretrained
network before training. Checkpoints do not include this layer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from whichcar.config.experiment import Experiment
from whichcar.progress import Bar
from whichcar.training.batches import Rows, images_at_once, plain_batches
from whichcar.training.network.backbones import imagenet_classifier
from whichcar.training.network.loss import cross_entropy
from whichcar.training.network.models import Size, TrainingModels

NAME = "co_tuning"


class CoTuningHead(keras.layers.Dense):
    """ImageNet classifier in float32, trained towards the target `labels @ relation`.

    Args:
        classes: number of classes. `relation`, (classes, outputs), is zeros until `relate` fills it in;
            it is part of the saved state of a run.
        loss_weight: factor of this head's loss.
        kernel, bias: initial values, (features, outputs) and (outputs,).
    """

    def __init__(self, classes: int, loss_weight: float, kernel: np.ndarray, bias: np.ndarray) -> None:
        super().__init__(len(bias), "softmax", dtype="float32", name=NAME)
        self.loss_weight, self._classes, self._start = loss_weight, classes, (kernel, bias)

    def build(self, input_shape: Any) -> None:  # noqa: ANN401
        """Create the variables."""
        super().build(input_shape)
        kernel, bias = self._start
        self.relation = self.add_weight(
            shape=(self._classes, len(bias)), initializer="zeros", trainable=False, name="relation"
        )
        self.kernel.assign(kernel)
        self.bias.assign(bias)

    def loss(self, labels: Any, probabilities: Any) -> Any:  # noqa: ANN401
        """Return the cross-entropy of each image, (n,), from labels (n, classes)."""
        return cross_entropy(keras.ops.matmul(labels, self.relation), probabilities)


def co_tuning_head(experiment: Experiment, classes: int) -> CoTuningHead | None:
    """Return the head for `recipe.co_tuning`, or None if co-tuning is off.

    Args:
        classes: number of classes.

    Raises:
        ConfigError: the backbone has no ImageNet classifier, or it cannot be downloaded.
        CheckpointError: the weights file has no classifier.
    """
    weight = experiment.recipe.co_tuning
    if not weight:
        return None
    kernel, bias = imagenet_classifier(experiment.model.backbone, experiment.model.weights)
    return CoTuningHead(classes, weight, kernel, bias)


def with_head(model: keras.Model, head: CoTuningHead | None) -> keras.Model:
    """Return a model from `training_copy` with `head` as a second output, or unchanged if `head` is None."""
    if head is None:
        return model
    return keras.Model(model.input, [model.output, head(model.get_layer("dropout").input)], name="co_tuned")


def relate(models: TrainingModels, images: Rows, rows: np.ndarray, classes: np.ndarray, size: Size) -> None:
    """Set the head's `relation` to the mean ImageNet probabilities of the training images of each class.

    Args:
        models: models before training; without a co-tuning head, nothing is done.
        rows, classes: (n,), row numbers of the training images and their class numbers.
        size: height and width that images are resized to.
    """
    if NAME not in models.train_model.output_names:
        return
    head = models.train_model.get_layer(NAME)
    answering = replace(models, main_model=keras.Model(models.train_model.input, head.output))
    answering.main_model.compile(jit_compile=models.main_model.jit_compile)
    sums = np.zeros(head.relation.shape, np.float64)
    done, batch_size = 0, images_at_once(size)
    with Bar("ImageNet's classes in the training images", len(rows)) as bar:
        for batch in plain_batches(images, rows, batch_size):
            own = classes[done : done + batch_size]
            np.add.at(sums, own, answering.predict_on_batch(batch, size)[: len(own)])
            done += len(own)
            bar.update(len(own))
    head.relation.assign(sums / np.maximum(1, np.bincount(classes, minlength=len(sums)))[:, None])
