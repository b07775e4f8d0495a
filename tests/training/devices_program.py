"""Train three epochs on one device; again, two on four devices and the third on one; print both histories.

python devices_program.py DRAWN FOLDER
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from whichcar.config.experiment import Experiment
from whichcar.data.split.split import split
from whichcar.training import train as stage
from whichcar.training.hardware import Hardware
from whichcar.training.network.models import TrainingModels
from whichcar.training.setup import models_from

SETTINGS = {
    "seed": 5,
    "data": {"image_size": [32, 32], "batch_size": 8},
    "model": {"weights": None},
    "compile": {"optimizer": {"sgd": {"learning_rate": 0.05, "momentum": 0.9}}},
    "fit": {"epochs": 3},
    "recipe": {"ema": 0.9, "random_resized_crop": {"side": [0.7, 1.0]},
               "stages": [{"epochs": 1, "image_size": [24, 24]}, {"epochs": 2, "image_size": [32, 32]}]},
    "hardware": {"precision": "float32"},
}  # fmt: skip


def small_network(experiment: Experiment, hardware: Hardware, class_names: Sequence[str]) -> TrainingModels:
    """A network of two layers instead of ResNet-50."""
    import keras

    layers = keras.layers
    inputs = keras.Input((None, None, 3))
    x = layers.Resizing(*experiment.data.image_size, antialias=True, name="resize")(inputs)
    x = layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")(x)
    x = layers.Conv2D(8, 5, strides=3, name="conv1_conv")(x)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    x = layers.Dropout(0.1, name="dropout")(x)
    outputs = layers.Dense(len(class_names), "softmax", name="predictions")(x)
    return models_from(keras.Model(inputs, outputs), experiment, hardware)


def main(drawn: Path, folder: Path) -> None:
    split(drawn, drawn / "car_dataset_labels.csv", folder / "v1")
    stage.build_models = small_network

    def run(name: str, devices: int, *overrides: str, resume: bool = False) -> list[dict]:
        path = folder / name / "config.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(SETTINGS | {"data": {**SETTINGS["data"], "directory": str(folder / "v1")}}))
        done = stage.train(path, [f"hardware.devices={devices}", *overrides], resume=resume)
        return [asdict(epoch) for epoch in done.history]

    whole = run("whole", 1)
    assert len(run("parted", 4, "fit.stop_after=2")) == 2
    print(json.dumps([whole, run("parted", 1, resume=True)], default=str))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
