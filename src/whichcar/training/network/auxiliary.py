"""Auxiliary heads: what else the backbone must tell apart while it trains; they are in no checkpoint.

Each is a softmax layer on the pooled features. Its target is the labels, one-hot or mixed, times a matrix: for make and
body type which group each class belongs to; for co-tuning (You, Kou, Long and Wang, NeurIPS 2020) how likely each class
of ImageNet is for an image of each class, as the pretrained network itself answers before it trains.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from whichcar.config.experiment import Experiment
from whichcar.errors import ConfigError
from whichcar.progress import Bar
from whichcar.taxonomy import parse_name
from whichcar.training.batches import Rows, plain_batches
from whichcar.training.network.backbones import imagenet_classifier
from whichcar.training.network.models import Size, TrainingModels

log = logging.getLogger(__name__)
BATCH = 64
COTUNING = "imagenet"


class AuxiliaryHead(keras.layers.Dense):
    """A softmax head, float32, whose target is `labels @ relation`.

    Args:
        relation: (classes, outputs); a row of zeros leaves the images of a class out. It is saved with the weights.
        loss_weight: factor of this head's loss.
        start: kernel and bias to begin with; None for random ones.
    """

    def __init__(
        self, name: str, relation: np.ndarray, loss_weight: float, start: Sequence[np.ndarray] | None = None
    ) -> None:
        super().__init__(relation.shape[1], "softmax", dtype="float32", name=name)
        self.loss_weight, self._relation, self._start = loss_weight, relation, start
        self.is_pretrained = start is not None  # it then moves as slowly as the backbone

    def build(self, input_shape: Any) -> None:  # noqa: ANN401
        """Make the variables."""
        super().build(input_shape)
        self.relation = self.add_weight(shape=self._relation.shape, trainable=False, name="relation")
        self.relation.assign(self._relation)
        if self._start is not None:
            self.kernel.assign(self._start[0])
            self.bias.assign(self._start[1])

    def loss(self, labels: Any, probabilities: Any) -> Any:  # noqa: ANN401
        """Return the cross-entropy of each image, (n,), from labels (n, classes)."""
        return keras.losses.categorical_crossentropy(keras.ops.matmul(labels, self.relation), probabilities)


def auxiliary_heads(experiment: Experiment, class_names: Sequence[str], features: int) -> list[AuxiliaryHead]:
    """Return the heads that the recipe asks for, none by default.

    Args:
        features: how many the backbone has.

    Raises:
        ConfigError: the classes are of one make or body type, or the backbone comes without ImageNet's classifier.
    """
    weights, heads = experiment.recipe.auxiliary, []
    if weights.make:
        makes = [parse_name(name).make.casefold() for name in class_names]
        heads.append(AuxiliaryHead("make", _groups("make", makes), weights.make))
    if weights.body:
        bodies = [parse_name(name).body for name in class_names]
        heads.append(AuxiliaryHead("body", _groups("body", bodies), weights.body))
    if weights.imagenet:
        kernel, bias = imagenet_classifier(experiment.model.backbone, experiment.model.weights, features)
        relation = np.zeros((len(class_names), len(bias)), np.float32)  # until `relate` fills it in
        heads.append(AuxiliaryHead(COTUNING, relation, weights.imagenet, (kernel, bias)))
    return heads


def _groups(name: str, group_of: Sequence[str]) -> np.ndarray:
    """Return which group each class is of, (classes, groups) one-hot; zeros for a class of none."""
    groups = sorted({group for group in group_of if group})
    if len(groups) < 2:
        found = f"all are {groups[0]}" if groups else "none has one that is known, such as Sedan or SUV"
        raise ConfigError(f"recipe.auxiliary.{name}: needs classes of two kinds at least; {found}; delete it")
    return np.array([[group == own for group in groups] for own in group_of], np.float32)


def with_heads(model: keras.Model, heads: Sequence[AuxiliaryHead]) -> keras.Model:
    """Return a network of `training_copy` with further outputs, or itself where there is none to add."""
    if not heads:
        return model
    features = model.get_layer("dropout").input
    return keras.Model(model.input, [model.output, *(head(features) for head in heads)], name="with_heads")


def relate(models: TrainingModels, images: Rows, rows: np.ndarray, classes: np.ndarray, size: Size) -> None:
    """Fill in the co-tuning head's relation: its mean probabilities on the training images of each class.

    Args:
        models: not trained yet; without that head nothing is done.
        rows, classes: (n,), which of the images are for training, and their class numbers.
        size: height and width that images are resized to.
    """
    if COTUNING not in models.train_model.output_names:
        return
    head = models.train_model.get_layer(COTUNING)
    answering = replace(models, main_model=keras.Model(models.train_model.input, head.output))
    answering.main_model.compile(jit_compile=models.main_model.jit_compile)
    sums = np.zeros(head.relation.shape, np.float64)
    done = 0
    with Bar("ImageNet's classes in the training images", len(rows)) as bar:
        for batch in plain_batches(images, rows, BATCH):
            own = classes[done : done + BATCH]
            np.add.at(sums, own, answering.predict_on_batch(batch, size)[: len(own)])
            done += len(own)
            bar.update(len(own))
    head.relation.assign(sums / np.maximum(1, np.bincount(classes, minlength=len(sums)))[:, None])
