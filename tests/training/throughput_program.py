"""Measure the speed of a tiny network on JAX; print how many compiled training steps that has kept, and one after it.

python throughput_program.py IMAGES
"""

import os
import sys
from pathlib import Path

from whichcar.data.split.tree import read_tree
from whichcar.training.budget import Facts
from whichcar.training.hardware import prepare
from whichcar.training.throughput import measure

hardware = prepare("float32")
import jax  # noqa: E402
import keras  # noqa: E402


def tiny(weights: None, include_top: bool, pooling: str | None, input_tensor: object) -> keras.Model:
    """Stand in for `keras.applications.ResNet50`."""
    x = keras.layers.Conv2D(6, 3, strides=4, name="conv1_conv")(input_tensor)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), keras.layers.GlobalAveragePooling2D()(x))


def kept() -> int:
    return len(list(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("jit_train_step-*-cache")))


keras.applications.ResNet50 = tiny
measure(Facts(2, 8, 2, 70), None, read_tree(sys.argv[1], 0.2, 123), hardware, 1.0)
inside = kept()


def train_step(x: jax.Array) -> jax.Array:
    return x + 1


jax.jit(train_step)(1.0)
print(f"train_step in measuring: {inside}, after it: {kept()}")  # noqa: T201
