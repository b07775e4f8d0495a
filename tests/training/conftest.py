"""One ResNet-50 for all tests of training: building one takes seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from whichcar.training.hardware import prepare

if TYPE_CHECKING:
    import keras


@pytest.fixture(scope="session")
def noise() -> np.ndarray:
    """64 images, (64, 32, 32, 3) uint8."""
    rng = np.random.default_rng(0)
    return (rng.integers(0, 256, (64, 1, 1, 3)) * rng.uniform(0.2, 1, (64, 32, 32, 3))).astype(np.uint8)


@pytest.fixture(scope="session")
def resnet(noise: np.ndarray) -> keras.Model:
    """The network as checkpoints hold it, five classes, resizing to 32 x 32; not to be changed.

    Its weights are random, but its moving moments are those of `noise`, so that its answers are neither all alike nor
    0 and 1.
    """
    prepare("float32")
    import keras

    from whichcar.training.network.resnet50 import create_model, training_copy

    keras.utils.set_random_seed(0)
    model = create_model(None, (None, None, 3), dropout_rate=0.3, classes=5, image_size=(32, 32))
    seeing = training_copy(model, "float32", fused=False, batch_norm_momentum=0.0)
    seeing(noise, training=True)
    weights = seeing.get_weights()
    weights[-2] *= 0.5  # the head's kernel: milder answers
    model.set_weights(weights)
    return model
