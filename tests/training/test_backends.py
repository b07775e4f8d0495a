"""TensorFlow and JAX train the same small network to the same losses."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import json
import numpy as np
from whichcar.config.experiment import Experiment
from whichcar.training.hardware import prepare
from whichcar.training.network.optimizer import rate_share
from whichcar.training.setup import models_from

hardware = prepare("float32")
import keras
from whichcar.training.network.auxiliary import AuxiliaryHead

experiment = Experiment.model_validate({
    "seed": 3,
    "data": {"directory": "unused", "image_size": [24, 24]},
    "model": {"weights": None},
    "compile": {"optimizer": {"OPTIMIZER": {"learning_rate": 0.01, "weight_decay": 0.1}}},
    "recipe": {"warmup_steps": 3, "schedule": "cosine", "head_rate": 4, "label_smoothing": 0.1, "ema": 0.9,
               "batch_norm_momentum": 0.9, "gradient_accumulation": 2},
})
layers = keras.layers
inputs = keras.Input((None, None, 3))
x = layers.Resizing(24, 24, antialias=True, name="resize")(inputs)
x = layers.Rescaling(1 / 127.5, -1.0)(x)
x = layers.Conv2D(8, 3, strides=2, name="conv1_conv")(x)
x = layers.BatchNormalization(name="conv1_bn")(x)
x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
x = layers.Dropout(0.0, name="dropout")(x)
export_model = keras.Model(inputs, layers.Dense(5, "softmax", name="predictions")(x))
rng = np.random.default_rng(0)
export_model.set_weights(
    [np.abs(rng.normal(0.3, 0.2, w.shape)) + (0.5 if "variance" in w.path else 0) for w in export_model.weights]
)
groups = np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 1]]
head = AuxiliaryHead("make", groups, 0.5, [rng.normal(0, 0.3, (8, 2)), np.zeros(2)])
models = models_from(export_model, experiment, hardware, [head])
losses = []
for step in range(20):
    images = rng.integers(0, 256, (6, 40, 32, 3), dtype=np.uint8)
    rate = 0.01 * rate_share(step, 20, experiment.recipe)
    labels = np.eye(5, dtype=np.float32)[images[:, 0, 0, 0] % 5]
    losses.append(float(models.train_on_batch(images, labels, (24, 24), rate)[0]))
with models.averaged():
    score = models.predict_on_batch(images, (24, 24))
print(json.dumps([keras.backend.backend(), losses, score.tolist()]))
"""


def trained_on(backend: str, optimizer: str) -> tuple[list[float], list[list[float]]]:
    program = PROGRAM.replace("OPTIMIZER", optimizer)
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    used, losses, score = json.loads(done.stdout.splitlines()[-1])
    assert used == backend
    return losses, score


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_both_backends_train_to_the_same_loss(optimizer: str) -> None:
    losses, score = trained_on("tensorflow", optimizer)
    other_losses, other_score = trained_on("jax", optimizer)
    assert losses == pytest.approx(other_losses, rel=2e-4)
    for row, other in zip(score, other_score, strict=True):
        assert row == pytest.approx(other, abs=2e-4)
