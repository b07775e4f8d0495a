"""Cross-entropy where a network is sure and wrong."""

import json
import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax, json, keras
from whichcar.training.network.loss import cross_entropy

def loss(logits):
    return cross_entropy(keras.ops.array([[1.0, 0.0, 0.0]]), keras.ops.softmax(logits))[0]

value, gradient = jax.value_and_grad(loss)(keras.ops.array([[0.0, 20.0, 0.0]]))
print(json.dumps([float(value), *map(float, gradient[0])]))
"""


def test_an_image_has_a_gradient_on_jax_too_however_sure_the_wrong_answer_is() -> None:
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx([20, -1, 1, 0], abs=1e-5)
