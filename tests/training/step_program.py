"""Train a small network for 20 steps on each number of devices; print backend, losses and probabilities of each.

python step_program.py OPTIMIZER DEVICES...
"""

import json
import sys

import numpy as np

from whichcar.config.experiment import Experiment
from whichcar.training.hardware import prepare
from whichcar.training.network.optimizer import rate_share
from whichcar.training.setup import models_from

SIDE, CLASSES, STEPS = 24, 5, 20


def experiment_with(optimizer: str) -> Experiment:
    return Experiment.model_validate({
        "seed": 3,
        "data": {"directory": "unused", "image_size": [SIDE, SIDE]},
        "model": {"weights": None},
        "compile": {"optimizer": {optimizer: {"learning_rate": 0.01, "weight_decay": 0.1}}},
        "recipe": {"warmup_steps": 3, "schedule": "cosine", "head_rate": 4, "label_smoothing": 0.1, "ema": 0.9,
                   "batch_norm_momentum": 0.9, "gradient_accumulation": 2},
    })  # fmt: skip


def train_on(devices: int, experiment: Experiment) -> tuple[str, list[float], list[list[float]]]:
    hardware = prepare("float32", devices=devices, batch_size=8)
    import keras

    from whichcar.training.network.co_tuning import CoTuningHead

    keras.utils.set_random_seed(0)
    layers, rng = keras.layers, np.random.default_rng(0)
    inputs = keras.Input((None, None, 3))
    x = layers.Resizing(SIDE, SIDE, antialias=True, name="resize")(inputs)
    x = layers.Rescaling(1 / 127.5, -1.0)(x)
    x = layers.Conv2D(8, 3, strides=2, name="conv1_conv")(x)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    x = layers.Dropout(DROPOUT, name="dropout")(x)
    export_model = keras.Model(inputs, layers.Dense(CLASSES, "softmax", name="predictions")(x))
    export_model.set_weights(
        [np.abs(rng.normal(0.3, 0.2, w.shape)) + (0.5 if "variance" in w.path else 0) for w in export_model.weights]
    )
    groups = np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 1]]
    head = CoTuningHead(CLASSES, 0.5, rng.normal(0, 0.3, (8, 2)), np.zeros(2))
    models = models_from(export_model, experiment, hardware, head)
    head.relation.assign(groups)
    losses = []
    for step in range(STEPS):
        images = rng.integers(0, 256, (8, 40, 32, 3), dtype=np.uint8)
        rate = 0.01 * rate_share(step, STEPS, experiment.recipe)
        labels = np.eye(CLASSES, dtype=np.float32)[images[:, 0, 0, 0] % CLASSES]
        losses.append(float(models.train_on_batch(images, labels, (SIDE, SIDE), rate)[0]))
    with models.averaged():
        models.recompute_moments([rng.integers(0, 256, (8, 40, 32, 3), dtype=np.uint8) for _ in range(3)], (SIDE, SIDE))
        scores = models.predict_on_batch(images, (SIDE, SIDE))
    spread = {len(variable.value.devices()) for variable in models.state_variables()} if devices > 1 else {1}
    assert spread == {devices}, spread
    return keras.backend.backend(), losses, scores.tolist()


if __name__ == "__main__":
    optimizer, *counts = sys.argv[1:]
    # On several devices the draws are the same, those of two backends are not.
    DROPOUT = 0.3 if len(counts) > 1 else 0.0
    print(json.dumps([train_on(int(count), experiment_with(optimizer)) for count in counts]))  # noqa: T201
